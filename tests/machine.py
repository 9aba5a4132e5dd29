"""Another machine on this one: systemd boots a copy of its root file system in a container. Needs root and
systemd-container.

The copy is an overlay whose upper layer lies in memory: nothing that the machine writes stays. It shares this
machine's network, and sees this program where it lies here, read-only. Everything is gone afterwards, also after a
failure.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from agent.service import program
from tests.waiting import until

_BOOT_S, _END_S, _COMMAND_S = 60.0, 20.0, 90.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class MachineError(RuntimeError):
    """This machine cannot carry another one, or that one did not do what the test needs."""


class Machine:
    """`root` is its file system, `leader` its first process, both as seen from here."""

    def __init__(self, root: Path, leader: psutil.Process) -> None:
        self.root, self.leader = root, leader
        self.inside = ("nsenter", "-t", str(leader.pid), "-m", "-u", "-i", "-p", "-r", "-w", "--")

    def run(self, *command: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command as its root; `given` comes on standard input."""
        environment = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", "PYTHONSAFEPATH": "1"}
        return subprocess.run(
            [*self.inside, *command], input=given, capture_output=True, text=True, check=False, env=environment,
            timeout=_COMMAND_S,
        )  # fmt: skip

    def do(self, *command: str, given: str = "") -> str:
        """What it printed. Raises MachineError, with the end of the journal, unless it ended with 0."""
        done = self.run(*command, given=given)
        if done.returncode != 0:
            journal = self.run("journalctl", "--no-pager", "--lines", "20").stdout
            said = f"{done.stdout}{done.stderr}\n{journal}"
            raise MachineError(f"{' '.join(command)}: exit status {done.returncode}\n{said}")
        return done.stdout

    def path(self, path: str) -> Path:
        """Where a path of that machine lies here."""
        return self.root / path.lstrip("/")

    @property
    def state(self) -> str:
        """As `systemctl is-system-running` says: "running" or "degraded" once it is up."""
        return self.run("systemctl", "is-system-running").stdout.strip()


@contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """A machine whose files lie below `folder`. Raises MachineError with what went wrong."""
    with ExitStack() as stack:
        root = stack.enter_context(_copy_of_this(folder))
        groups = stack.enter_context(_own_groups())
        log = folder / "boot.log"
        container = _start(root, groups, log)
        stack.callback(_end, container)
        try:
            yield _up(root, container)
        except MachineError as error:
            raise MachineError(f"{error}\n{log.read_text(errors='replace')[-3000:]}") from error


@contextmanager
def _copy_of_this(folder: Path) -> Iterator[Path]:
    memory, root = folder / "memory", folder / "memory" / "root"
    memory.mkdir()
    with _mounted(memory, "-t", "tmpfs", "-o", "mode=0755,size=512m", "tmpfs"):
        layers = {name: memory / name for name in ("upper", "work")}
        for layer in (root, *layers.values()):
            layer.mkdir()
        overlay = f"lowerdir=/,upperdir={layers['upper']},workdir={layers['work']}"
        with _mounted(root, "-t", "overlay", "-o", overlay, "overlay"):
            _strip(root / "etc")
            yield root


def _strip(etc: Path) -> None:
    """Of what is installed here nothing starts there, and nothing that was bound into the machine is cleaned away."""
    for wanted in (etc / "systemd" / "system").glob("*.wants/*"):
        wanted.unlink()
    (etc / "fstab").write_text("")
    (etc / "machine-id").write_text(f"{secrets.token_hex(16)}\n")
    cleaning = etc / "tmpfiles.d" / "tmp.conf"
    cleaning.parent.mkdir(exist_ok=True)
    cleaning.unlink(missing_ok=True)
    cleaning.symlink_to("/dev/null")


@contextmanager
def _mounted(point: Path, *how: str) -> Iterator[None]:
    done = subprocess.run(["mount", *how, str(point)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MachineError(f"mount {' '.join(how)}: {done.stderr.strip()}; these tests need a kernel and rights for it")
    try:
        yield
    finally:
        if subprocess.run(["umount", str(point)], capture_output=True, check=False).returncode != 0:
            subprocess.run(["umount", "--lazy", str(point)], check=True)


@contextmanager
def _own_groups() -> Iterator[list[Path]]:
    """A control group in every hierarchy that systemd uses: those that it makes below go with it."""
    name = f"lepta-{os.getpid()}-{secrets.token_hex(3)}"
    groups = [group / name for group in _groups()]
    if not groups:
        raise MachineError("no control groups are mounted here; systemd needs them")
    try:
        for group in groups:
            group.mkdir()
        yield groups
    finally:
        for group in groups:
            until(lambda group=group: _removed(group), 5.0)  # type: ignore[misc]


def _groups() -> Iterator[Path]:
    """This process's group in the unified hierarchy and in systemd's own, where they are mounted."""
    mine = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kind, path = line.split(":", 2)
        mine[kind] = path.lstrip("/")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, options, *_ = line.split()
        if kind == "cgroup2":
            yield Path(point) / mine[""]
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            yield Path(point) / mine["name=systemd"]


def _removed(group: Path) -> bool:
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):  # Busy until its last process is gone.
            os.rmdir(folder)
    return not group.exists()


def _start(root: Path, groups: list[Path], log: Path) -> subprocess.Popen[bytes]:
    bound = [f"--bind-ro={folder}" for folder in program.installed().folders]
    name = f"lepta-{secrets.token_hex(4)}"
    how = ["--register=no", "--keep-unit", "--private-users=no", "--resolv-conf=off", "--timezone=off"]
    command = ["systemd-nspawn", "-D", str(root), "--boot", f"--machine={name}", *how, *bound]
    enter = "".join(f"echo $$ >'{group}/cgroup.procs' && " for group in groups)
    with log.open("ab") as file:
        return subprocess.Popen(
            ["sh", "-c", f'{enter}exec "$@"', "sh", *command],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip


def _up(root: Path, container: subprocess.Popen[bytes]) -> Machine:
    deadline = time.monotonic() + _BOOT_S
    machine = None
    while time.monotonic() < deadline and container.poll() is None:
        leader = _leader(container.pid)
        machine = Machine(root, leader) if leader is not None else None
        if machine is not None and machine.state in ("running", "degraded"):
            return machine
        time.sleep(0.1)
    what = f"is {machine.state}" if machine is not None else "did not start"
    raise MachineError(f"systemd in a container {what}; it needs root, control groups and systemd-container")


def _leader(container: int) -> psutil.Process | None:
    """systemd, once it runs in the place of what made its container."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(container).children():
            if Path(child.exe()).name == "systemd":
                return child
    return None


def _end(container: subprocess.Popen[bytes]) -> None:
    """Switch it off; where that does not help, pull the plug: with its first process all others go."""
    leader = _leader(container.pid)
    with contextlib.suppress(psutil.Error, subprocess.TimeoutExpired):
        if leader is not None:
            leader.send_signal(signal.SIGRTMIN + 4)  # systemd(1): starts poweroff.target.
            container.wait(_END_S)
    with contextlib.suppress(psutil.Error):
        if container.poll() is None and leader is not None:
            leader.kill()
            container.wait(5)
    if container.poll() is None:
        container.kill()
        container.wait()
