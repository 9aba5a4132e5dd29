"""The first look at what users upload."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from controller.errors import UserError
from controller.uploads import check_data, check_model

KERAS = ("config.json", "metadata.json", "model.weights.h5")


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, "{}")
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def kind_of(path: Path, name: str, *, trust: bool = False) -> str:
    return check_model(path, name, trust=trust)


def test_each_kind_of_model_is_known_by_its_content_and_its_name_gets_that_ending(tmp_path: Path) -> None:
    assert kind_of(archive(tmp_path / "1", *KERAS), "m") == "m.keras"
    assert kind_of(archive(tmp_path / "2", *KERAS), "/home/me/m.keras") == "m.keras"
    assert kind_of(archive(tmp_path / "3", "m/saved_model.pb", "m/variables/variables.index"), "m") == "m.zip"
    assert kind_of(archive(tmp_path / "4", "m/archive_format", "m/models/model.json"), "m.pt2") == "m.pt2"
    assert kind_of(archive(tmp_path / "5", "serialized_exported_program.json", "version"), "old") == "old.pt2"
    assert kind_of(written(tmp_path / "6", b"\x1c\0\0\0TFL3 and more"), "m.bin") == "m.bin.tflite"
    assert kind_of(written(tmp_path / "7", b"\x08\x08\x12\x07pytorch"), "m.onnx") == "m.onnx"
    assert kind_of(written(tmp_path / "8", b"\x89HDF\r\n\x1a\n..."), "..", trust=True) == "model.h5"


def test_each_kind_of_data_is_known_by_its_content_and_its_name_gets_that_ending(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros(3))
    np.save(tmp_path / "d.npy", np.zeros(3))
    assert check_data(tmp_path / "d.npz", "d.npz") == "d.npz"
    assert check_data(tmp_path / "d.npz", "folder.zip") == "folder.zip"
    assert check_data(tmp_path / "d.npz", "data") == "data.npz"
    assert check_data(tmp_path / "d.npy", "rows") == "rows.npy"
    assert check_data(archive(tmp_path / "p", "train/cat/1.JPG", "train/cat/.DS_Store"), "pets") == "pets.zip"


def test_a_model_that_can_run_code_is_refused_unless_it_is_trusted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"old\.h5 is a legacy HDF5 model, which can run code") as refused:
        kind_of(written(tmp_path / "h", b"\x89HDF\r\n\x1a\n..."), "old.h5")
    assert "--trust" in (refused.value.hint or "")


@pytest.mark.parametrize("content", [b"", b"root:x:0:0", b"PK\x03\x04 cut off"])
def test_what_is_neither_is_refused_by_name_with_what_is_taken(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path / "file", content)
    with pytest.raises(UserError, match=r"passwd is not a model") as refused:
        kind_of(path, "passwd")
    assert ".tflite" in (refused.value.hint or "")
    with pytest.raises(UserError, match=r"passwd is not data") as refused:
        check_data(path, "passwd")
    assert "pictures" in (refused.value.hint or "")


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "docx", "word/document.xml")
    with pytest.raises(UserError, match=r"letter\.docx is no model: it holds word/document\.xml"):
        kind_of(path, "letter.docx")
    with pytest.raises(UserError, match=r"no arrays and no pictures: it holds word/document\.xml"):
        check_data(path, "letter.docx")
    with pytest.raises(UserError, match=r"it has no metadata\.json, model\.weights\.h5"):
        kind_of(archive(tmp_path / "half", "config.json"), "m.keras")


@pytest.mark.parametrize("inside", ["../../etc/cron.d/x.npy", "/etc/x.npy"])
def test_an_archive_that_reaches_outside_of_itself_is_refused(tmp_path: Path, inside: str) -> None:
    with pytest.raises(UserError, match="outside of itself"):
        check_data(archive(tmp_path / "z", "a.npy", inside), "d.zip")
