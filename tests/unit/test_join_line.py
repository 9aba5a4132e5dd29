"""The line to paste: one line, safe to show to a shell, its token in no argument and no URL."""

from __future__ import annotations

import shlex

import pytest

from controller.commands.join_line import INSTALLERS, Installer, Invitation, line
from controller.errors import UserError

_LAN = Invitation(
    url="https://ctl.test:8000",
    token="t0ken-of_the-test",
    ca_fingerprint="ab" * 32,
    wheel_url="https://ctl.test:8000/install/lepta-0.1.0-py3-none-any.whl",
    wheel_sha256="cd" * 32,
)
_HERE = Invitation(url="http://127.0.0.1:8000", token="t0ken")


def commands(text: str) -> list[list[str]]:
    """As a shell divides it."""
    parts = shlex.split(text)
    found: list[list[str]] = [[]]
    for part in parts:
        if part in ("&&", "|"):
            found.append([])
        else:
            found[-1].append(part)
    return found


@pytest.mark.parametrize("installer", INSTALLERS)
def test_every_way_installs_the_wheel_by_its_hash_and_then_joins(installer: Installer) -> None:
    *install, echo, join = commands(line(_LAN, installer))
    assert f"lepta @ {_LAN.wheel_url}#sha256={_LAN.wheel_sha256}" in install[-1]
    assert echo == ["echo", _LAN.token]
    assert join[1:] == ["join", _LAN.url, "--token", "-", "--ca-fingerprint", _LAN.ca_fingerprint, "--run"]


@pytest.mark.parametrize("installer", INSTALLERS)
def test_the_token_stands_only_behind_the_shells_own_echo(installer: Installer) -> None:
    told = commands(line(_LAN, installer))
    assert [command[0] for command in told if _LAN.token in " ".join(command)] == ["echo"]
    assert "\n" not in line(_LAN, installer)


@pytest.mark.parametrize("installer", INSTALLERS)
def test_only_this_controllers_host_is_taken_without_a_known_certificate(installer: Installer) -> None:
    install = commands(line(_LAN, installer))[-3]
    trusting = [part for part in install if "ctl.test" in part and "lepta @" not in part]
    assert [part.rpartition(" ")[2] for part in trusting] == ["ctl.test:8000"]


def test_uv_tool_install_is_not_offered_because_it_takes_changed_bytes() -> None:
    assert all("uv tool" not in line(_LAN, installer) for installer in INSTALLERS)


def test_the_default_is_a_virtual_environment_that_stock_debian_allows() -> None:
    venv, pip, *_ = commands(line(_LAN))
    assert venv == ["python3", "-m", "venv", "~/.lepta"]
    assert pip[0] == "~/.lepta/bin/pip"


def test_with_a_file_the_token_is_not_shown() -> None:
    text = line(_LAN, token_file="/etc/lepta/my claim.txt")
    assert _LAN.token not in text
    assert commands(text)[-1][3:5] == ["--token-file", "/etc/lepta/my claim.txt"]


def test_on_this_machine_nothing_is_installed() -> None:
    assert line(_HERE, program="lepta-agent") == ("echo t0ken | lepta-agent join http://127.0.0.1:8000 --token - --run")


def test_a_service_can_be_installed_instead() -> None:
    assert line(_LAN, and_then="--install").endswith(" --install")


def test_hostile_text_stays_one_word() -> None:
    hostile = _LAN._replace(token="a; rm -rf ~", url="https://x$(reboot):1")
    *_, echo, join = commands(line(hostile))
    assert echo == ["echo", "a; rm -rf ~"]
    assert join[2] == "https://x$(reboot):1"
    assert "'https://x$(reboot):1'" in line(hostile)


def test_ipv6_addresses_work_with_pip_and_are_refused_where_the_installer_cannot() -> None:
    six = _LAN._replace(url="https://[fd00::1]:8000", wheel_url="https://[fd00::1]:8000/install/lepta.whl")
    assert "--trusted-host '[fd00::1]:8000'" in line(six)
    others: tuple[Installer, ...] = ("uv", "pipx")
    for installer in others:
        with pytest.raises(UserError, match="IPv6"):
            line(six, installer)
