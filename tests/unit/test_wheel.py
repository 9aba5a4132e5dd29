"""The wheel that the controller makes of itself: whole, the same each time, installable, and refused when changed."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from controller import wheel


@pytest.fixture(scope="module")
def made() -> wheel.Wheel:
    return wheel.build()


@pytest.fixture
def files(made: wheel.Wheel) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(made.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_same_code_gives_the_same_bytes(made: wheel.Wheel) -> None:
    again = wheel.build()
    assert again == made
    assert hashlib.sha256(again.content).hexdigest() == again.sha256


def test_it_holds_the_packages_with_their_data_and_nothing_else(files: dict[str, bytes]) -> None:
    tops = {name.split("/")[0] for name in files}
    (info,) = (top for top in tops if top.endswith(".dist-info"))
    assert tops - {info} == set(wheel.PACKAGES)
    for name in ("agent/cli.py", "firmware_profiles/rpi4.toml", "optimizer/__main__.py", f"{info}/licenses/LICENSE"):
        assert files[name]
    assert not [name for name in files if "__pycache__" in name or name.endswith(".pyc")]


def test_its_record_names_every_file_with_the_hash_it_has(files: dict[str, bytes]) -> None:
    (record,) = (name for name in files if name.endswith("/RECORD"))
    lines = [line.split(",") for line in files[record].decode().splitlines()]
    assert {name for name, _, _ in lines} == set(files)
    for name, digest, size in lines:
        if name != record:
            hashed = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={hashed}", len(files[name]))


def test_it_tells_no_clock_and_no_path_of_the_machine_that_made_it(made: wheel.Wheel) -> None:
    with zipfile.ZipFile(io.BytesIO(made.content)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert not [name for name in archive.namelist() if "direct_url" in name or name.startswith("/")]


@pytest.mark.slow
def test_it_installs_and_its_agent_runs_but_changed_bytes_are_refused(made: wheel.Wheel, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    path = tmp_path / made.name
    changed = bytearray(made.content)
    changed[-1] ^= 1
    path.write_bytes(changed)
    refused = _pip(tmp_path, path, made)
    assert refused.returncode != 0
    assert "HASH" in refused.stderr.upper()
    assert not (tmp_path / "venv" / "bin" / "lepta-agent").exists()
    path.write_bytes(made.content)
    installed = _pip(tmp_path, path, made)
    assert installed.returncode == 0, installed.stderr
    agent = subprocess.run(
        [str(tmp_path / "venv" / "bin" / "lepta-agent"), "--version"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (agent.returncode, agent.stdout.split()[-1]) == (0, made.name.split("-")[1])


def _pip(folder: Path, path: Path, made: wheel.Wheel) -> subprocess.CompletedProcess[str]:
    command = [str(folder / "venv" / "bin" / "pip"), "install", "-q", "--no-deps", "--disable-pip-version-check"]
    wanted = f"lepta @ {path.as_uri()}#sha256={made.sha256}"
    return subprocess.run([*command, wanted], capture_output=True, text=True, cwd=folder, check=False)
