"""Data that cannot be used is refused in one sentence that names the file or the array."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimizer.data import DataError
from optimizer.dataset.step import prepare_data
from optimizer.sources import InputSpec
from tests.unit.test_dataset import CLASSES, IMAGE, as_npz, picture, prepared, rows, split_arrays


def refused(data: Path, **changed: Any) -> str:
    out = data.parent / "out"
    with pytest.raises(DataError) as caught:
        prepared(data, out, **changed)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without(split: str) -> dict[str, Any]:
    return {f"{split}/x": None, f"{split}/y": None}


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"holdout/x": np.zeros(3)}, "array 'holdout/x': names are SPLIT/NAME"),
        ({"x": np.zeros(3)}, "array 'x': names are SPLIT/NAME"),
        ({"validation/x": np.zeros((20, 5, 4, 1))}, "validation/x has shape [20, 5, 4, 1]; the model's input 'image'"),
        ({"validation/x": np.zeros(())}, "validation/x has shape []"),
        ({"validation/x": np.zeros((0, 4, 4, 1))}, "at least 1"),
        ({"validation/x": np.full((20, 4, 4, 1), np.nan)}, "validation/x holds values that are not finite numbers"),
        ({"validation/x": np.full((20, 4, 4, 1), 1e300)}, "not finite numbers"),
        ({"validation/x": np.full((20, 4, 4, 1), "a")}, "has dtype <U1; numbers are wanted"),
        ({"validation/y": np.arange(20)}, "validation/y row 3 is 3; this model has 3 classes"),
        ({"validation/y": np.arange(20) - 1}, "row 0 is -1"),
        ({"validation/y": np.zeros(9, int)}, "validation/y has 9 rows, its inputs have 20"),
        ({"validation/y": np.zeros(20)}, "has dtype float64"),
        ({"validation/y": np.ones((20, 3), int)}, "shape [20, 3]; class indices"),
        ({"validation/x": np.array([{"a": 1}], object)}, "pickled objects, which could run code"),
        ({"train/z": rows(60)}, "has no array train/image; train has x, z"),
        ({**without("train"), **without("validation")}, "only rows of test"),
        ({"train/x": np.concatenate([rows(7, 200), rows(53)])}, "7 of 60 rows of train are in calibration"),
        ({"validation/x": rows(20, 200)}, "20 of 20 rows of validation are in test too"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, changed: dict[str, Any], part: str) -> None:
    arrays = {name: array for name, array in {**split_arrays(), **changed}.items() if array is not None}
    assert part in refused(as_npz(tmp_path / "given", arrays))


def test_too_few_rows_to_split_are_refused(tmp_path: Path) -> None:
    message = refused(as_npz(tmp_path / "given", {"x": rows(3), "y": np.zeros(3, int)}))
    assert "3 different rows cannot be split into train, calibration, validation, test" in message


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.csv").write_text("1,2,3")
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.txt").write_text("a")
    assert "holds nothing" in refused(tmp_path / "empty")
    assert "text.csv is no data that is known" in refused(tmp_path / "text.csv")
    assert "words holds a.txt" in refused(tmp_path / "words")
    assert "cannot be read" in refused(tmp_path / "none.npz")


def test_arrays_and_pictures_together_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "both" / "a" / "1.png", 0)
    np.save(tmp_path / "both" / "x.npy", rows(3))
    assert "holds arrays (x.npy) and pictures (a/1.png)" in refused(tmp_path / "both")


def damage(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


def test_arrays_that_are_cut_off_or_lie_about_their_size_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", rows(40))
    assert "short cannot be read: it is cut off" in refused(damage(tmp_path / "short.npy", lambda whole: whole[:-9]))
    np.save(tmp_path / "huge.npy", rows(40))
    lying = damage(tmp_path / "huge.npy", lambda whole: whole.replace(b"(40, 4, 4, 1), }", b"(9999999999,)}"))
    assert "huge cannot be read" in refused(lying)
    np.save(tmp_path / "head.npy", rows(40))
    assert "head cannot be read" in refused(damage(tmp_path / "head.npy", lambda whole: whole[:40]))
    flipped = as_npz(tmp_path / "flipped", {"x": rows(40)})
    with zipfile.ZipFile(flipped) as archive:
        at = archive.getinfo("x.npy").header_offset + 400
    assert "x cannot be read" in refused(damage(flipped, lambda whole: whole[:at] + b"\xff" + whole[at + 1 :]))


def test_an_archive_never_leads_outside_nor_holds_a_name_twice(tmp_path: Path) -> None:
    for name in ("../x.npy", "/x.npy", "a/../../x.npy", "..\\x.npy"):
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
            archive.writestr(name, b"")
        assert "holds a file outside of itself" in refused(tmp_path / "data.zip")
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("x.npy", b"")
        archive.writestr("y.npy", b"")
    damage(tmp_path / "twice.zip", lambda whole: whole.replace(b"y.npy", b"x.npy"))
    assert "holds x.npy twice" in refused(tmp_path / "twice.zip")


def test_a_link_out_of_a_folder_is_refused_and_one_inside_is_not(tmp_path: Path) -> None:
    np.save(tmp_path / "outside.npy", rows(40))
    inside = tmp_path / "data"
    inside.mkdir()
    (inside / "x.npy").symlink_to(tmp_path / "outside.npy")
    assert "x.npy is a link that leads out of data" in refused(inside)
    (inside / "x.npy").unlink()
    np.save(inside / "real.npy", rows(40))
    os.rename(inside / "real.npy", inside / ".real")
    (inside / "x.npy").symlink_to(inside / ".real")
    assert prepared(inside, tmp_path / "out")["splits"]["validation"]["rows"] == 20


def test_an_archive_that_unpacks_to_too_much_is_refused_unopened(tmp_path: Path) -> None:
    more = tmp_path / "more.zip"
    with zipfile.ZipFile(more, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(5000):
            archive.writestr(f"train/{number}.npy", b"")
    assert "5000 arrays; at most 4096" in refused(more)
    assert "unpacks to more than" in refused(_claiming(tmp_path / "claims.zip", 0xFFFFFFF0, twice=True))


def _claiming(path: Path, size: int, twice: bool) -> Path:
    """An archive whose list of contents claims `size` bytes for every file."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x.npy", "y.npy")[: 1 + twice]:
            archive.writestr(name, b"")
    content = path.read_bytes()
    for at in [at for at in range(len(content)) if content[at : at + 4] == b"PK\x01\x02"]:
        content = content[: at + 24] + struct.pack("<I", size) + content[at + 28 :]
    path.write_bytes(content)
    return path


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing of it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "b/9.png is no picture that can be read"),
        (b"GIF89a", "b/9.png is no picture that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "b/9.png is no picture that can be read"),
        (png_of_size(4, 4), "b/9.png is no picture that can be read"),
        (png_of_size(60_000, 60_000), "b/9.png"),
        (png_of_size(10_000, 10_000), "b/9.png has 10000 x 10000 pixels; at most 50,000,000 are read"),
    ],
)
def test_a_broken_or_gigantic_picture_is_named(tmp_path: Path, content: bytes, part: str) -> None:
    for at in range(8):
        picture(tmp_path / "data" / "abc"[at % 3] / f"{at}.png", at)
    (tmp_path / "data" / "b" / "9.png").write_bytes(content)
    assert part in refused(tmp_path / "data")


@pytest.mark.parametrize(
    ("names", "changed", "part"),
    [
        (["a/1.png", "b/2.png"], {}, "has 2 folders of classes (a, b), the model 3 classes"),
        (["a/1.png", "2.png"], {}, "2.png lies beside folders of classes"),
        (["train/a/1.png", "b/2.png"], {}, "b/2.png lies beside the splits"),
        (["train/a/b/1.png", "test/a/1.png"], {}, "train/a/b/1.png lies too deep"),
        (["1.png"], {"inputs": [IMAGE._asdict(), IMAGE._replace(name="b")._asdict()]}, "the model has 2 inputs"),
        (["1.png"], {"inputs": [InputSpec("x", "float32", (16,))._asdict()]}, "which is no picture"),
        (["1.png"], {"preprocessing": {"height": 5, "width": 4}}, "do not fit input 'image' of shape [4, 4, 1]"),
        (["1.png"], {"preprocessing": {"height": 4, "width": 2, "channels": 2}}, "2 channels are not supported"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(
    tmp_path: Path, names: list[str], changed: dict[str, Any], part: str
) -> None:
    for at, name in enumerate(names):
        picture(tmp_path / "data" / name, at)
    assert part in refused(tmp_path / "data", **changed)


def test_flat_inputs_take_pictures_where_preprocessing_says_how(tmp_path: Path) -> None:
    for at in range(10):
        picture(tmp_path / "data" / f"{at}.png", at)
    settings = {
        "inputs": [InputSpec("x", "uint8", (16,))._asdict()],
        "classes": CLASSES,
        "preprocessing": {"height": 4, "width": 4, "scale": 1.0},
        "seed": 0,
    }
    (tmp_path / "out").mkdir()
    manifest = prepare_data({"data": tmp_path / "data"}, settings, tmp_path / "out", lambda *_: None)
    with np.load(tmp_path / "out" / "data.npz") as found:
        assert found["validation/x"].dtype == np.uint8
        assert found["validation/x"].shape == (5, 16)
    assert manifest["labels"] == []
