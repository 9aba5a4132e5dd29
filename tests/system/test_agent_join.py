"""Joining: whom the agent believes, what it keeps, and that the same line again repairs whatever went wrong."""

from __future__ import annotations

import json
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import enroll
from agent.contract import children
from tests.certificates import YEAR, TestAuthority
from tests.desk import Desk


@pytest.fixture
def authority() -> TestAuthority:
    return TestAuthority()


@pytest.fixture
def desk(authority: TestAuthority, tmp_path: Path) -> Iterator[Desk]:
    with Desk(authority, authority.server(tmp_path)) as desk:
        yield desk


def machine(folder: Path, number: int = 1) -> dict[str, str]:
    """The environment of another machine: its id differs."""
    root = folder / f"machine-{number}"
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc" / "machine-id").write_text(f"{number:032x}\n")
    return {"LEPTA_HARDWARE_ROOT": str(root)}


def run(*arguments: object, token: str = "good", **environment: str) -> tuple[int, str, str]:
    """Exit status, standard output, standard error; the token comes on standard input."""
    done = subprocess.run(
        [*children.command("agent.cli"), *map(str, arguments)],
        input=token + "\n", capture_output=True, text=True, timeout=30, check=False,
        env=children.environment(environment),
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def join(desk: Desk, data: Path, *more: object, token: str = "good", **environment: str) -> tuple[int, str, str]:
    fingerprint = desk.authority.fingerprint if desk.authority else ""
    trusted = ["--ca-fingerprint", fingerprint] if fingerprint else []
    return run("join", desk.url, "--token", "-", *trusted, "--data", data, *more, token=token, **environment)


def test_a_device_that_joined_keeps_key_identity_and_certificate_to_itself(desk: Desk, tmp_path: Path) -> None:
    data = tmp_path / "data"
    status, told, _ = join(desk, data, "--name", "edge-7")
    assert status == 0
    assert told.splitlines()[0] == f"joined {desk.url} as edge-7"
    assert f"next: lepta-agent run --data {data}" in told
    identity = enroll.stored(data)
    assert identity is not None
    assert desk.authority is not None
    assert identity.ca == desk.authority.pem
    assert (data / "agent.pem").read_text() == identity.certificate
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in data.iterdir() if path.name != "agent.lock"} == {0o600}
    assert not (data / "joining.json").exists()


def test_a_second_join_changes_nothing_and_another_controller_is_refused(desk: Desk, tmp_path: Path) -> None:
    data = tmp_path / "data"
    join(desk, data)
    before = (data / "identity.json").read_bytes()
    status, told, _ = join(desk, data, token="")
    assert (status, len(desk.asked)) == (0, 1)
    assert "already" in told
    status, _, told = run("join", "https://elsewhere.example:8000", "--token", "-", "--data", data)
    assert status == 2
    assert f"lepta-agent wipe --data {data}" in told
    assert (data / "identity.json").read_bytes() == before


def test_the_token_is_never_told_to_a_controller_with_another_ca(desk: Desk, tmp_path: Path) -> None:
    other = TestAuthority()
    status, _, told = run(
        "join", desk.url, "--token", "-", "--ca-fingerprint", other.fingerprint, "--data", tmp_path / "data"
    )
    assert status == 5
    assert desk.authority is not None
    assert other.fingerprint in told
    assert desk.authority.fingerprint in told
    assert desk.asked == []


def test_an_impostor_who_shows_the_right_ca_but_lacks_its_key_gets_no_token(
    authority: TestAuthority, tmp_path: Path
) -> None:
    with Desk(authority, TestAuthority().server(tmp_path)) as desk:
        status, _, told = join(desk, tmp_path / "data")
    assert (status, desk.asked) == (4, [])
    assert "not the controller that this device trusts" in told


def test_fingerprints_are_taken_as_people_write_them(desk: Desk, tmp_path: Path) -> None:
    assert desk.authority is not None
    digits = desk.authority.fingerprint.upper()
    written = "SHA256:" + ":".join(re.findall("..", digits))
    assert run("join", desk.url, "--token", "-", "--ca-fingerprint", written, "--data", tmp_path / "data")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["http://controller.example:8000"], 5, "lepta up --lan"),
        (["https://127.0.0.1:9"], 5, "--ca-fingerprint is needed"),
        (["https://127.0.0.1:9", "--ca-fingerprint", "12:34"], 5, "64 hex digits"),
        (["https://127.0.0.1:9", "--ca-fingerprint", "0" * 64], 4, "no controller at https://127.0.0.1:9"),
        (["controller:8000"], 5, "starts with http:// or https://"),
        (["http://nowhere.invalid:8000", "--insecure"], 4, "no controller at http://nowhere.invalid:8000"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(tmp_path: Path, arguments: list[str], status: int, words: str) -> None:
    found, _, told = run("join", *arguments, "--token", "-", "--data", tmp_path / "data")
    assert (found, told.count("\n")) == (status, 1)
    assert words in told


def test_http_and_https_taken_for_each_other_is_said(desk: Desk, tmp_path: Path) -> None:
    told = run("join", desk.url.replace("https", "http"), "--token", "-", "--data", tmp_path / "data")[2]
    assert "is its address https://" in told
    with Desk() as plain:
        url = plain.url.replace("http", "https")
        told = run("join", url, "--token", "-", "--ca-fingerprint", "0" * 64, "--data", tmp_path / "data")[2]
    assert "speaks no TLS" in told


def test_refusals_carry_the_controllers_words(desk: Desk, tmp_path: Path) -> None:
    status, _, told = join(desk, tmp_path / "one", token="old")
    assert (status, told) == (
        5, "lepta-agent: the controller refused the enrolment (403): the claim token is not valid; make a new one\n",
    )  # fmt: skip
    assert join(desk, tmp_path / "two", "--name", "edge")[0] == 0
    status, _, told = join(desk, tmp_path / "three", "--name", "edge")
    assert status == 5
    assert "taken; choose another with --name" in told


@pytest.mark.parametrize("point", ["join.begun", "join.answered"])
def test_the_same_line_again_repairs_a_kill(desk: Desk, tmp_path: Path, point: str) -> None:
    data = tmp_path / "data"
    assert join(desk, data, "--name", "edge-7", LEPTA_FAULTS=f"{point}=kill")[0] == -signal.SIGKILL
    assert "run the same `lepta-agent join` line again" in run("run", "--data", data)[2]
    assert join(desk, data, "--name", "edge-7")[0] == 0
    assert list(desk.devices.values()) == ["edge-7"]


def test_the_same_line_again_repairs_a_lost_answer(desk: Desk, tmp_path: Path) -> None:
    desk.loses = 1
    status, _, told = join(desk, tmp_path / "data")
    assert status == 4
    assert "Traceback" not in told
    assert join(desk, tmp_path / "data")[0] == 0
    assert len(desk.devices) == 1


def test_a_device_waits_for_approval_and_goes_on_waiting_after_a_kill(desk: Desk, tmp_path: Path) -> None:
    data, config = tmp_path / "data", tmp_path / "agent.toml"
    config.write_text("[limits]\napproval_first = 0.05\napproval_most = 0.1\n")
    desk.approved = False
    command = [
        *children.command("agent.cli"),
        "join",
        desk.url,
        "--token",
        "-",
        "--data",
        str(data),
        "--name",
        "edge-7",
    ]
    assert desk.authority is not None
    command += ["--ca-fingerprint", desk.authority.fingerprint, "--config", str(config)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=children.environment()) as waiting:
        assert waiting.stdin is not None
        assert waiting.stdout is not None
        waiting.stdin.write("good\n")
        waiting.stdin.flush()
        told = [waiting.stdout.readline() for _ in range(3)]
        waiting.kill()
    assert "lepta device approve edge-7" in told[1]
    assert re.search(r"key: [0-9a-f]{64}$", told[2].strip())
    known = enroll.stored(data)
    assert known is not None
    assert known.state == "pending"
    desk.approved = True
    assert join(desk, data, "--name", "edge-7", "--config", config)[0] == 0
    known = enroll.stored(data)
    assert known is not None
    assert (known.state, len(desk.asked)) == ("approved", 1)
    assert (data / "agent.pem").read_text() == known.certificate


def test_one_image_makes_a_device_of_each_machine(desk: Desk, tmp_path: Path) -> None:
    assert desk.authority is not None
    (tmp_path / "token").write_text("good\n")
    config = tmp_path / "agent.toml"
    config.write_text(
        f'controller = "{desk.url}"\ntoken_file = "{tmp_path}/token"\nca_fingerprint = "{desk.authority.fingerprint}"\n'
    )
    for number in (1, 2):
        _run_until_joined(config, tmp_path / f"data-{number}", machine(tmp_path, number))
    names = list(desk.devices.values())
    assert len(set(names)) == 2
    assert all(re.fullmatch(r"device-[0-9a-f]{8}", name) for name in names)


def test_two_agents_of_one_machine_are_told_apart_by_the_controller(desk: Desk, tmp_path: Path) -> None:
    for number in (1, 2):
        join(desk, tmp_path / f"data-{number}", **machine(tmp_path))
    first, second = desk.devices.values()
    assert second == f"{first}-2"


def test_a_copied_identity_is_not_used(desk: Desk, tmp_path: Path) -> None:
    join(desk, tmp_path / "data", "--name", "edge-7", **machine(tmp_path, 1))
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    status, _, told = run("run", "--data", tmp_path / "copy", **machine(tmp_path, 2))
    assert status == 3
    assert "made on another machine" in told
    assert f"lepta-agent wipe --data {tmp_path / 'copy'}" in told


def test_a_copied_image_joins_as_itself_where_it_has_a_fleets_token(desk: Desk, tmp_path: Path) -> None:
    join(desk, tmp_path / "data", **machine(tmp_path, 1))
    (tmp_path / "data" / "state.json").write_text(json.dumps({"generation": 7}))
    assert desk.authority is not None
    (tmp_path / "token").write_text("good\n")
    config = tmp_path / "agent.toml"
    config.write_text(
        f'controller = "{desk.url}"\ntoken_file = "{tmp_path}/token"\nca_fingerprint = "{desk.authority.fingerprint}"\n'
    )
    _run_until_joined(config, tmp_path / "data", machine(tmp_path, 2))
    assert len(set(desk.devices.values())) == 2
    assert not (tmp_path / "data" / "state.json").exists()


def test_a_device_in_1970_joins(authority: TestAuthority, tmp_path: Path) -> None:
    ahead = time.time() + 14 * YEAR
    with Desk(authority, authority.server(tmp_path, start=ahead, end=ahead + YEAR)) as desk:
        offset = f"{-time.time():.0f}"
        assert join(desk, tmp_path / "data", LEPTA_CLOCK_OFFSET_S=offset)[0] == 0
    assert float((tmp_path / "data" / "clock").read_text()) > time.time() - 60


def _run_until_joined(config: Path, data: Path, environment: dict[str, str]) -> None:
    command = [*children.command("agent.cli"), "run", "--config", str(config), "--data", str(data)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=children.environment(environment)) as process:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if "no broker" in line:
                break
        process.terminate()
        assert process.wait(10) == 0, "".join(told)
