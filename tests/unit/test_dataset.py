"""Every form of data becomes the same canonical file."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from agent.contract.manifest import Preprocessing
from controller.inputs import image_to_array
from optimizer.data import Splits
from optimizer.dataset.step import prepare_data
from optimizer.sources import InputSpec

IMAGE = InputSpec("image", "float32", (4, 4, 1))
CLASSES = 3
Arrays = dict[str, Any]
Write = Callable[[Path, Arrays], Path]


def rows(count: int, first: int = 0) -> Any:
    """Rows that all differ."""
    found = (first + np.arange(count))[:, None, None, None] + np.linspace(0, 0.4, 16).reshape(4, 4, 1)
    return found.astype(np.float32)


def split_arrays() -> Arrays:
    made: Arrays = {}
    for split, count, first in (("train", 60, 0), ("validation", 20, 100), ("test", 30, 200)):
        made[f"{split}/x"] = rows(count, first)
        made[f"{split}/y"] = np.arange(count) % CLASSES
    return made


def prepared(data: Path, out: Path, **changed: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    settings = {"inputs": [IMAGE._asdict()], "classes": CLASSES, "preprocessing": None, "seed": 0, **changed}
    return prepare_data({"data": data}, settings, out, lambda *_: None)


def as_npz(path: Path, arrays: Arrays) -> Path:
    np.savez(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def as_compressed(path: Path, arrays: Arrays) -> Path:
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def as_underscored(path: Path, arrays: Arrays) -> Path:
    return as_npz(path, {name.replace("/", "_"): array for name, array in arrays.items()})


def as_keras_names(path: Path, arrays: Arrays) -> Path:
    return as_npz(path, {"_".join(reversed(name.split("/"))): array for name, array in arrays.items()})


def as_folder(path: Path, arrays: Arrays) -> Path:
    for name, array in arrays.items():
        file = path / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, array)
    (path / "README.txt").write_text("rows")
    (path / ".hidden.npy").write_text("none")
    return path


def as_zip(path: Path, arrays: Arrays) -> Path:
    """Of the folder, with the folder's own name around everything."""
    as_folder(path, arrays)
    return Path(shutil.make_archive(str(path), "zip", path.parent, path.name))


@pytest.mark.parametrize("write", [as_npz, as_compressed, as_underscored, as_keras_names, as_folder, as_zip])
def test_splits_of_every_form_give_the_same_file_and_the_same_digests(tmp_path: Path, write: Write) -> None:
    arrays = split_arrays()
    manifest = prepared(write(tmp_path / "given", arrays), tmp_path / "out")
    reference = prepared(as_npz(tmp_path / "reference", arrays), tmp_path / "reference-out")
    assert manifest == reference
    assert (tmp_path / "out" / "data.npz").read_bytes() == (tmp_path / "reference-out" / "data.npz").read_bytes()
    assert {split: part["rows"] for split, part in manifest["splits"].items()} == {
        "train": 60,
        "validation": 20,
        "test": 30,
    }
    assert all(part["labelled"] and part["taken_out"] == 0 for part in manifest["splits"].values())
    splits = Splits(tmp_path / "out" / "data.npz", [IMAGE])
    np.testing.assert_array_equal(splits.inputs("test", 99)["image"], arrays["test/x"])
    np.testing.assert_array_equal(splits.labels("train", 99, CLASSES), arrays["train/y"])


@pytest.mark.parametrize("write", [as_npz, as_folder, as_zip])
def test_rows_that_nobody_has_split_are_cut_in_the_documented_shares(tmp_path: Path, write: Write) -> None:
    data = write(tmp_path / "given", {"x": rows(200), "y": np.arange(200) % CLASSES})
    manifest = prepared(data, tmp_path / "out")
    counts = {split: part["rows"] for split, part in manifest["splits"].items()}
    assert counts == {"train": 140, "calibration": 10, "validation": 20, "test": 30}
    assert manifest["trainable"]
    assert manifest["notes"][0].startswith("split by seed 0 from the 200 rows")
    splits = Splits(tmp_path / "out" / "data.npz", [IMAGE])
    for split in counts:
        labels, first = splits.labels(split, 999, CLASSES), splits.inputs(split, 999)["image"][:, 0, 0, 0]
        np.testing.assert_array_equal(labels, np.round(first) % CLASSES)
    assert prepared(data, tmp_path / "out") == manifest
    assert prepared(data, tmp_path / "out", seed=1)["splits"] != manifest["splits"]


@pytest.mark.parametrize("name", ["samples.npy", "x.npz", "folder", "calibration.npz"])
def test_samples_without_labels_calibrate_and_validate(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, rows(40))
    elif name == "folder":
        as_folder(path, {"image": rows(40)})
    else:
        as_npz(path, {"calibration/x" if name.startswith("cal") else "x": rows(40)})
    manifest = prepared(path, tmp_path / "out")
    assert {split: part["rows"] for split, part in manifest["splits"].items()} == {"calibration": 20, "validation": 20}
    assert not any(part["labelled"] for part in manifest["splits"].values())
    assert not manifest["trainable"]
    splits = Splits(tmp_path / "out" / "data.npz", [IMAGE])
    assert splits.labels("validation", 99, CLASSES) is None
    assert not splits.holds("test")


def test_only_what_is_missing_is_cut_and_test_is_as_it_was_given(tmp_path: Path) -> None:
    arrays = {name: array for name, array in split_arrays().items() if not name.startswith("validation")}
    whole = prepared(as_npz(tmp_path / "whole", split_arrays()), tmp_path / "whole-out")
    manifest = prepared(as_npz(tmp_path / "given", arrays), tmp_path / "out")
    assert list(manifest["splits"]) == ["train", "calibration", "validation", "test"]
    assert manifest["splits"]["test"] == whole["splits"]["test"]
    assert sum(manifest["splits"][split]["rows"] for split in ("train", "calibration", "validation")) == 60


def test_rows_that_appear_twice_leave_what_learns_and_chooses_and_are_counted(tmp_path: Path) -> None:
    arrays = split_arrays()
    arrays["train/x"][:3] = arrays["test/x"][:3]
    arrays["train/x"][3] = arrays["validation/x"][0]
    arrays["validation/x"][5] = arrays["test/x"][9]
    arrays["test/x"][21] = arrays["test/x"][20]
    manifest = prepared(as_npz(tmp_path / "given", arrays), tmp_path / "out")
    assert {split: part["taken_out"] for split, part in manifest["splits"].items()} == {
        "train": 4,
        "validation": 1,
        "test": 0,
    }
    assert manifest["splits"]["test"]["rows"] == 30
    assert "were taken out" in manifest["notes"][-1]
    splits = Splits(tmp_path / "out" / "data.npz", [IMAGE])
    parts = {split: {row.tobytes() for row in splits.inputs(split, 99)["image"]} for split in manifest["splits"]}
    assert not parts["train"] & (parts["validation"] | parts["test"])
    assert not parts["validation"] & parts["test"]
    np.testing.assert_array_equal(splits.labels("train", 1, CLASSES), [arrays["train/y"][4]])


def test_a_digest_changes_with_a_value_a_label_and_the_order(tmp_path: Path) -> None:
    def digest(**changed: Any) -> str:
        manifest = prepared(as_npz(tmp_path / "given", {**split_arrays(), **changed}), tmp_path / "out")
        found: str = manifest["splits"]["test"]["digest"]
        return found

    arrays = split_arrays()
    before = digest()
    assert digest() == before
    assert len(before) == len(hashlib.sha256().hexdigest())
    x, y = arrays["test/x"], arrays["test/y"]
    other = x.copy()
    other[0, 0, 0, 0] += 0.5
    assert len({before, digest(**{"test/x": other}), digest(**{"test/y": y[::-1]}), digest(**{"test/x": x[::-1]})}) == 4


def test_several_inputs_are_rows_together(tmp_path: Path) -> None:
    specs = [InputSpec("a", "float32", (2,)), InputSpec("b", "int32", (3,))]
    a = np.repeat(np.arange(50, dtype=np.float64), 2)[:, None] * np.ones(2)
    arrays = {"a": a, "b": np.arange(100)[:, None] * np.ones(3, int)}
    manifest = prepared(
        as_npz(tmp_path / "given", arrays), tmp_path / "out", inputs=[spec._asdict() for spec in specs], classes=0
    )
    found = Splits(tmp_path / "out" / "data.npz", specs).inputs("validation", 99)
    assert [str(array.dtype) for array in found.values()] == ["float32", "int32"]
    np.testing.assert_array_equal(found["a"][:, 0], found["b"][:, 0] // 2)
    assert manifest["splits"]["validation"]["rows"] == 50


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.arange(60)[:, None] % CLASSES, CLASSES),
        (np.eye(CLASSES)[np.arange(60) % CLASSES], CLASSES),
        ((np.arange(60) % CLASSES).astype(">i2"), None),
    ],
)
def test_labels_come_as_a_column_one_hot_or_in_any_width(tmp_path: Path, labels: Any, classes: int | None) -> None:
    arrays = {**split_arrays(), "train/y": labels}
    prepared(as_npz(tmp_path / "given", arrays), tmp_path / "out", classes=classes)
    found = Splits(tmp_path / "out" / "data.npz", [IMAGE]).labels("train", 99, CLASSES)
    np.testing.assert_array_equal(found, np.arange(60) % CLASSES)


def test_columnwise_big_endian_and_channelless_arrays_are_the_same_rows(tmp_path: Path) -> None:
    arrays = split_arrays()
    strange = {
        **arrays,
        "train/x": np.asfortranarray(arrays["train/x"]),
        "test/x": arrays["test/x"][..., 0].astype(">f8"),
    }
    expected = prepared(as_npz(tmp_path / "plain", arrays), tmp_path / "out")
    assert prepared(as_npz(tmp_path / "strange", strange), tmp_path / "out") == expected


def picture(path: Path, shade: int, size: tuple[int, int] = (4, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.arange(size[0] * size[1]).reshape(size) % 100 + shade
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_folder_of_classes_gives_pixels_labels_and_their_names(tmp_path: Path, zipped: bool) -> None:
    for at in range(60):
        picture(tmp_path / "fruit" / ("pear", "apple", "fig")[at % 3] / f"{at}.png", at)
    data = Path(shutil.make_archive(str(tmp_path / "zip"), "zip", tmp_path, "fruit")) if zipped else tmp_path / "fruit"
    manifest = prepared(data, tmp_path / "out")
    assert manifest["labels"] == ["apple", "fig", "pear"]
    assert manifest["preprocessing"]["scale"] == 1 / 255
    splits = Splits(tmp_path / "out" / "data.npz", [IMAGE])
    for split in manifest["splits"]:
        shades = np.round(splits.inputs(split, 99)["image"][:, 0, 0, 0] * 255).astype(int)
        np.testing.assert_array_equal(splits.labels(split, 99, CLASSES), np.array([2, 0, 1])[shades % 3])


def test_pictures_in_splits_stay_in_them_and_need_no_classes(tmp_path: Path) -> None:
    for at, split in enumerate(("train", "val", "test")):
        for number in range(5):
            picture(tmp_path / "data" / split / f"{number}.png", 10 * at + number)
    manifest = prepared(tmp_path / "data", tmp_path / "out")
    assert {split: part["rows"] for split, part in manifest["splits"].items()} == {
        "train": 5,
        "validation": 5,
        "test": 5,
    }
    assert not manifest["splits"]["train"]["labelled"]


@pytest.mark.parametrize(
    "how",
    [Preprocessing(6, 5), Preprocessing(6, 5, 3, 1 / 128, -1.0), Preprocessing(4, 4, 1, 1 / 16, 0.0, invert=True)],
)
def test_pictures_are_read_as_lepta_infer_reads_them(tmp_path: Path, how: Preprocessing) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 9, 11, 4), dtype=np.uint8)
    for at, values in enumerate(pixels):
        (tmp_path / "data").mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / "data" / f"{at}.png")
    spec = InputSpec("image", "float32", (how.height, how.width, how.channels))
    given = {"inputs": [spec._asdict()], "preprocessing": msgspec.to_builtins(how)}
    prepared(tmp_path / "data", tmp_path / "out", **given)
    splits = Splits(tmp_path / "out" / "data.npz", [spec])
    found = [row.tobytes() for split in ("calibration", "validation") for row in splits.inputs(split, 9)["image"]]
    expected = [image_to_array(tmp_path / "data" / f"{at}.png", how)[0].tobytes() for at in range(4)]
    assert sorted(found) == sorted(expected)


def test_a_zip_of_unpacked_names_only_is_read_without_unpacking_to_disk(tmp_path: Path) -> None:
    data = as_zip(tmp_path / "given", split_arrays())
    before = sorted(tmp_path.rglob("*"))
    prepared(data, tmp_path / "out")
    assert {path.name for path in set(tmp_path.rglob("*")) - set(before)} == {"out", "data.npz"}
    with zipfile.ZipFile(tmp_path / "out" / "data.npz") as archive:
        assert all(info.date_time == (1980, 1, 1, 0, 0, 0) for info in archive.infolist())
