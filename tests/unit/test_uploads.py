"""The first look at what users upload."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from controller.errors import UserError
from controller.uploads import check_data, check_model


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, "{}")
    return path


def test_what_could_be_a_model_or_data_passes(tmp_path: Path) -> None:
    check_model(archive(tmp_path / "m", "config.json", "metadata.json", "model.weights.h5"), "m.keras")
    np.savez(tmp_path / "d.npz", x=np.zeros(3))
    check_data(tmp_path / "d.npz", "d.npz")


@pytest.mark.parametrize("content", [b"", b"root:x:0:0", b"PK\x03\x04 cut off"])
def test_what_is_no_archive_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"passwd is not a Keras model"):
        check_model(path, "passwd")
    with pytest.raises(UserError, match=r"passwd is not an \.npz file"):
        check_data(path, "passwd")


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "docx", "word/document.xml")
    with pytest.raises(UserError, match=r"it has no config\.json"):
        check_model(path, "letter.docx")
    with pytest.raises(UserError, match=r"it holds word/document\.xml"):
        check_data(path, "letter.docx")
