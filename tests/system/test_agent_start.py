"""The first start and the command line: enrolment over HTTP, clear errors, exit statuses. No broker needed."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import enroll
from agent.contract import children
from agent.contract.signing import PrivateKey
from agent.join import Invitation, join
from agent.settings import Limits
from firmware_profiles.profile import Facts
from tests.desk import Desk


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Desk() as desk:
        yield desk


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    command = [*children.command("agent.cli"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=children.environment(), check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_token_is_traded_once_for_an_identity_that_only_the_owner_can_read(desk: Desk, tmp_path: Path) -> None:
    here = Facts(machine="x86_64")
    identity = join(tmp_path, Invitation(desk.url + "/", "good", name="edge-7"), here, Limits())
    assert (identity.agent, identity.controller, identity.broker.password) == ("edge-7", desk.url, "p")
    assert enroll.stored(tmp_path) == identity
    for name in ("identity.json", "agent.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert desk.key_of(desk.asked[0]) == PrivateKey.load_or_create(tmp_path / "agent.key").public.pem()
    assert desk.asked[0]["facts"]["machine"] == "x86_64"


def test_a_refused_token_is_said_with_the_controllers_own_words(desk: Desk, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("bad\n")
    status, _, told = run("run", "--controller", desk.url, "--token-file", token, "--data", tmp_path / "data")
    assert status == 5
    assert told.splitlines()[-1] == (
        "lepta-agent: the controller refused the enrolment (403): the claim token is not valid; make a new one"
    )


def test_an_answer_that_is_no_identity_is_refused_and_nothing_is_kept(desk: Desk, tmp_path: Path) -> None:
    desk.answer = b"<html>"
    with pytest.raises(enroll.EnrollError, match="not as a Lepta controller"):
        join(tmp_path, Invitation(desk.url, "good"), Facts(machine="x"), Limits())
    assert enroll.stored(tmp_path) is None


def test_an_unreachable_controller_is_one_line_and_its_own_exit_status(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = tmp_path / "token"
    token.write_text("good")
    status, _, told = run(
        "run", "--controller", f"http://127.0.0.1:{port}", "--token-file", token, "--data", tmp_path / "data"
    )
    assert status == 4
    assert told.count("\n") == 1
    assert "no controller at" in told


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["run"], 2, "first start needs --controller"),
        (["run", "--controller", "http://127.0.0.1:9"], 2, "claim token"),
        (["run", "--controller", "http://127.0.0.1:9", "--token-file", "/nowhere/token"], 2, "cannot be read"),
        (["run", "--config", "/nowhere/agent.toml"], 2, "/nowhere/agent.toml: cannot be read"),
    ],
)
def test_what_is_missing_is_said_in_one_line(tmp_path: Path, arguments: list[str], status: int, words: str) -> None:
    found, _, told = run(*arguments, "--data", tmp_path / "data")
    assert found == status
    assert words in told
    assert told.count("\n") == 1


def test_a_data_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, _, told = run("run", "--data", tmp_path / "file" / "data")
    assert status == 3
    assert "data folder" in told


def test_a_damaged_identity_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text("{")
    status, _, told = run("run", "--data", tmp_path)
    assert status == 5
    assert "restore it, or remove it" in told


def test_facts_are_shown_with_every_profile_and_the_reasons(tmp_path: Path) -> None:
    status, shown, _ = run("facts", "--data", tmp_path / "data")
    assert status == 0
    assert "machine" in shown
    assert "Profile x86-cpu: " in shown
    assert "wanted fpga" in shown


def test_the_version_is_printed_without_importing_anything_heavy() -> None:
    heavy = "{'numpy', 'paho', 'msgspec', 'psutil', 'cryptography'}"
    code = f"import sys, agent.cli; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
    status, shown, _ = run("--version")
    assert status == 0
    assert shown.startswith("lepta-agent ")


def test_an_enrolled_agent_starts_without_its_controller_and_stops_cleanly(desk: Desk, tmp_path: Path) -> None:
    join(tmp_path, Invitation(desk.url, "good", name="edge-7"), Facts(machine="x"), Limits())
    process = subprocess.Popen(
        [*children.command("agent.cli"), "run", "--data", str(tmp_path)],
        stderr=subprocess.PIPE,
        env=children.environment(),
        text=True,
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if "no broker" in line:
                break
        second, _, told = run("run", "--data", tmp_path)
        assert second == 3
        assert "another agent runs" in told
        process.terminate()
        assert process.wait(10) == 0
    assert not os.path.exists(f"/proc/{process.pid}")
