"""Folders on their way to the controller."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from controller.client.pack import as_file
from controller.errors import UserError


def test_a_folder_becomes_a_zip_of_its_name_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for name in ("train/cat/1.png", "train/dog/2.txt", ".git/config", "train/.DS_Store"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "secret").symlink_to("/etc/passwd")
    with as_file(folder) as packed:
        assert packed.name == "pets.zip"
        with zipfile.ZipFile(packed) as archive:
            assert archive.namelist() == ["train/cat/1.png", "train/dog/2.txt"]
            assert archive.read("train/cat/1.png") == b"train/cat/1.png"
            assert archive.getinfo("train/cat/1.png").compress_type == zipfile.ZIP_STORED
    assert not packed.exists()


def test_a_file_goes_as_it_is(tmp_path: Path) -> None:
    with as_file(tmp_path / "m.keras") as path:
        assert path == tmp_path / "m.keras"


def test_more_than_allowed_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with (tmp_path / "huge.npy").open("wb") as file:
        file.truncate(9 * 1024**3)
    with pytest.raises(UserError, match=r"more than 8,589,934,592 bytes"), as_file(tmp_path):
        pass
