"""Keys and secrets of the controller: made once, private, and never quietly replaced."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from agent.contract.signing import write_secret
from controller import keys
from controller.errors import UserError
from controller.keys import KeyFileError
from controller.settings import BROKER_VARIABLE, choose_broker

NOW = 1_800_000_000.0


def test_keys_are_made_once_and_are_private(tmp_path: Path) -> None:
    first, second = keys.load_or_create(tmp_path, NOW), keys.load_or_create(tmp_path, NOW)
    assert first.release is not None
    assert first.controller.public.id == second.controller.public.id != first.release.public.id
    assert (first.api_token, first.broker_password) == (second.api_token, second.broker_password)
    assert len(first.api_token) >= 32
    assert first.api_token != first.broker_password
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_the_first_api_key_is_told_apart_from_one_that_was_there(tmp_path: Path) -> None:
    made = keys.load_or_create(tmp_path, NOW)
    assert made.first
    assert re.fullmatch("lepta_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", made.api_token)
    assert not keys.load_or_create(tmp_path, NOW).first


def test_a_token_of_an_older_version_goes_on_working(tmp_path: Path) -> None:
    write_secret(tmp_path / keys.API_TOKEN, "R4nd0m_text-of-an-older-version\n")
    found = keys.load_or_create(tmp_path, NOW)
    assert (found.api_token, found.first) == ("R4nd0m_text-of-an-older-version", False)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    made = keys.load_or_create(tmp_path, NOW)
    assert made.api_token not in repr(made)


@pytest.mark.parametrize("name", [keys.CONTROLLER_KEY, keys.RELEASE_KEY, keys.API_TOKEN, keys.BROKER_PASSWORD])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"two words of garbage\n"])
def test_a_damaged_file_is_named_and_not_replaced(tmp_path: Path, name: str, content: bytes) -> None:
    keys.load_or_create(tmp_path, NOW)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(KeyFileError, match=name) as caught:
        keys.load_or_create(tmp_path, NOW)
    assert "enrol again" in str(caught.value.hint)
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    keys.load_or_create(tmp_path, NOW)
    (tmp_path / keys.API_TOKEN).chmod(mode)
    with pytest.raises(KeyFileError, match="read by other users"):
        keys.load_or_create(tmp_path, NOW)


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"controller\.key cannot be used"):
        keys.load_or_create(tmp_path / "nowhere", NOW)


def test_the_command_line_wins_over_the_environment_and_auto_is_the_default() -> None:
    assert choose_broker(None, {}) == "auto"
    assert choose_broker(None, {BROKER_VARIABLE: "mqtt://ann:secret@host"}) == "mqtt://ann:secret@host"
    assert choose_broker("embedded", {BROKER_VARIABLE: "mosquitto"}) == "embedded"


def test_a_password_on_the_command_line_is_refused_without_repeating_it() -> None:
    with pytest.raises(UserError) as caught:
        choose_broker("mqtt://ann:hunter2@host", {})
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"
    assert BROKER_VARIABLE in str(caught.value.hint)
