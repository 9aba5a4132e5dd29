"""From nothing to a second host that answers: every command was printed by the one before, and is run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.namespaces import Host, two_hosts
from tests.system.test_fleet import until

pytestmark = [pytest.mark.root, pytest.mark.debian, pytest.mark.slow]
_MOST = 6


class Shell:
    """Somebody at the keyboards of a host. What a command says is in a file; `count` is how many were typed."""

    def __init__(self, host: Host, home: Path) -> None:
        self._host = host
        self.home = home
        self.count = 0
        home.mkdir()

    def sees(self, command: str, text: str) -> bool:
        """A look that belongs to the test."""
        self.count -= 1
        return text in self.type(command)

    def type(self, line: str) -> str:
        """Run it to its end; returns what it said."""
        with self.left_running(line) as (process, said):
            assert process.wait(180) == 0, said.read_text()
        return said.read_text()

    @contextmanager
    def left_running(self, line: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        self.count += 1
        said = self.home / f"said-{self.count}"
        # An agent of root lives in /var/lib/lepta; here that is nowhere.
        private = ("sh", "-c", "mount -t tmpfs none /var/lib && exec bash")
        with said.open("wb") as out:
            process = subprocess.Popen(
                [*self._host.prefix, *private],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                cwd=self.home,
                env={**_environment(), "HOME": str(self.home)},
            )
        try:
            # As a terminal does it: the line stands in no process list.
            assert process.stdin is not None
            process.stdin.write(line.encode() + b"\n")
            process.stdin.close()
            yield process, said
        finally:
            _end(process)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LEPTA_", "VIRTUAL_ENV"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    # The shell's own child is what the user sees; it ends its children and the shell follows.
    for child in psutil.Process(process.pid).children():
        child.terminate()
    psutil.wait_procs(family, timeout=20)
    if process.poll() is None:
        process.kill()
    process.wait()


def _borrow_libraries(home: Path) -> None:
    """What Lepta needs lies in the new environment already, as if an index had delivered it; Lepta itself does not."""
    here = Path(sysconfig.get_path("purelib"))
    borrowed = home / "borrowed"
    borrowed.mkdir()
    for entry in here.iterdir():
        if "lepta" not in entry.name and not entry.name.endswith(".pth"):
            (borrowed / entry.name).symlink_to(entry)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = home / ".lepta" / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "borrowed.pth").write_text(f"{borrowed}\n")


def _line(text: str, start: str) -> str:
    """The command in `text` that begins so."""
    [found] = {line.strip() for line in text.splitlines() if line.strip().startswith(start)}
    return found


def _arguments(process: subprocess.Popen[bytes]) -> str:
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    told = []
    for member in family:
        try:
            told += member.cmdline()
        except psutil.Error:
            continue
    return " ".join(told)


def test_from_up_to_an_answer_by_another_host_it_takes_six_commands_each_printed_by_the_one_before(
    tmp_path: Path,
) -> None:
    with two_hosts() as (here, there):
        desk, device = Shell(here, tmp_path / "desk"), Shell(there, tmp_path / "device")
        _borrow_libraries(device.home)
        with desk.left_running("lepta up --lan") as (up, said):
            until(lambda: "lepta device add" in said.read_text() or up.poll() is not None, "the controller")
            invitation = desk.type(_line(said.read_text(), "lepta device add"))
            join = _line(invitation, "python3 -m venv")
            token = re.search(r"echo (\S+) \|", join)
            assert token is not None
            with device.left_running(join) as (agent, heard):
                _watch(lambda: "connected as" in heard.read_text(), agent, token[1], heard)
                assert desk.sees("lepta device ls", "online")
                example = desk.type(_line(invitation, "lepta example"))
                deployed = desk.type(_line(example, "lepta deploy"))
                assert "lepta infer digits FILE" in deployed
                answer = desk.type(_line(example, "lepta infer"))
    assert answer.startswith("7 (")
    assert desk.count + device.count <= _MOST


def _watch(done: Callable[[], bool], process: subprocess.Popen[bytes], secret: str, heard: Path) -> None:
    """Until `done`: no program of `process` has the secret among its arguments."""

    def looked() -> bool:
        assert process.poll() is None, heard.read_text()
        assert secret not in _arguments(process)
        return done()

    until(looked, "the device comes online", 120)
