"""The data file: what is read from it, and what is refused by naming the array."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimizer.data import DataError, Splits
from optimizer.sources import InputSpec

IMAGE = InputSpec("image", "float32", (4, 4, 1))
CLASSES = 3


def arrays(**changed: Any) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for split, rows in (("train", 20), ("validation", 10), ("test", 8)):
        made[f"{split}/x"] = np.arange(rows * 16, dtype=np.float32).reshape(rows, 4, 4, 1)
        made[f"{split}/y"] = np.arange(rows) % CLASSES
    return {name: array for name, array in {**made, **changed}.items() if array is not None}


def saved(path: Path, content: dict[str, Any]) -> Path:
    np.savez(path, **content)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "d.npz"


def test_a_single_input_may_have_any_name_and_comes_in_the_models_dtype(path: Path) -> None:
    content = arrays(**{"validation/x": np.ones((10, 4, 4, 1), np.uint8)})
    splits = Splits(saved(path, content), [IMAGE])
    found = splits.inputs("validation", 6)
    assert list(found) == ["image"]
    assert found["image"].shape == (6, 4, 4, 1)
    assert found["image"].dtype == np.float32
    np.testing.assert_array_equal(splits.labels("test", 100, CLASSES), np.arange(8) % CLASSES)


def test_calibration_is_its_own_split_or_rows_of_validation_and_never_of_train_or_test(path: Path) -> None:
    content = arrays()
    np.testing.assert_array_equal(
        Splits(saved(path, content), [IMAGE]).calibration(5)["image"], content["validation/x"][:5]
    )
    own = arrays(**{"calibration/x": np.zeros((2, 4, 4, 1), np.float32)})
    topped_up = Splits(saved(path, own), [IMAGE]).calibration(5)["image"]
    assert np.array_equal(topped_up, np.concatenate([own["calibration/x"], own["validation/x"][:3]]))
    assert Splits(path, [IMAGE]).calibration(2)["image"].shape[0] == 2


def test_train_and_test_may_be_missing(path: Path) -> None:
    content = {name: array for name, array in arrays().items() if name.startswith("validation/")}
    splits = Splits(saved(path, content), [IMAGE])
    assert not splits.holds("train")
    assert not splits.holds("test")
    assert splits.calibration(4)["image"].shape[0] == 4


def test_several_inputs_are_found_by_their_names(path: Path) -> None:
    specs = [InputSpec("a", "float32", (2,)), InputSpec("b", "int32", (3,))]
    content: dict[str, Any] = {f"{split}/a": np.zeros((4, 2)) for split in ("train", "validation", "test")}
    content |= {f"{split}/b": np.ones((4, 3)) for split in ("train", "validation", "test")}
    found = Splits(saved(path, content), specs).inputs("test", 4)
    assert [str(array.dtype) for array in found.values()] == ["float32", "int32"]
    del content["test/b"]
    with pytest.raises(DataError, match="no array test/b; test has a"):
        Splits(saved(path, content), specs).inputs("test", 4)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"validation/x": None, "validation/y": None}, "has no validation split"),
        ({"holdout/x": np.zeros(3)}, "array 'holdout/x': names are SPLIT/NAME"),
        ({"x": np.zeros(3)}, "array 'x': names are SPLIT/NAME"),
        ({"validation/x": np.zeros((10, 5, 4, 1))}, "validation/x has shape [10, 5, 4, 1]; the model's input 'image'"),
        ({"validation/x": np.zeros(())}, "validation/x has shape []"),
        ({"validation/x": np.zeros((0, 4, 4, 1))}, "at least 1"),
        ({"validation/x": np.full((10, 4, 4, 1), np.nan)}, "not finite numbers"),
        ({"validation/x": np.full((10, 4, 4, 1), "a")}, "has dtype <U1; numbers are wanted"),
        ({"validation/y": np.arange(10)}, "validation/y row 3 is 3; this model has 3 classes"),
        ({"validation/y": np.arange(10) - 1}, "row 0 is -1"),
        ({"validation/y": np.zeros(9, int)}, "has 9 rows, the inputs of validation have 10"),
        ({"validation/y": np.zeros(10)}, "has dtype float64"),
        ({"validation/y": np.eye(10, dtype=int)}, "shape [10, 10]; class indices"),
    ],
)
def test_bad_data_is_refused_by_naming_the_array(path: Path, changed: dict[str, Any], part: str) -> None:
    saved(path, arrays(**changed))
    with pytest.raises(DataError) as caught:
        _use(Splits(path, [IMAGE]))
    assert part in str(caught.value)


def test_pickled_objects_are_never_loaded(path: Path) -> None:
    content = arrays(**{"validation/x": np.array([{"a": 1}], object)})
    saved(path, content)
    with pytest.raises(DataError, match="pickled objects, which could run code"):
        _use(Splits(path, [IMAGE]))


def test_what_is_no_npz_file_is_refused(path: Path) -> None:
    path.write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"is not a \.npz file"):
        Splits(path, [IMAGE])
    with pytest.raises(DataError, match="cannot be read"):
        Splits(path.with_name("none.npz"), [IMAGE])


def test_an_archive_that_unpacks_to_too_much_is_refused_unopened(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for at in range(5000):
            archive.writestr(f"train/{at}.npy", b"")
    with pytest.raises(DataError, match="5000 arrays"):
        Splits(path, [IMAGE])


def _use(splits: Splits) -> None:
    splits.calibration(4)
    splits.inputs("validation", 100)
    splits.labels("validation", 100, CLASSES)
