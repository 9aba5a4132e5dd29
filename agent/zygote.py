"""The warm fork parent: imports numpy and the interpreter once, then forks a worker for every pipe it is sent.

Its own small process, exec'd and single-threaded, so that forking is safe and the supervisor stays small. Control
socket is standard input (SOCK_SEQPACKET): each packet carries one file descriptor, answers are JSON lines of
`{"ready": ...}`, `{"forked": pid, "id": n}`, `{"exited": pid, "status": s}`.
"""

from __future__ import annotations

import array
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
from typing import Any

from agent import priority
from agent.contract import heap
from agent.contract.faults import fault
from agent.memory import HEAP_BYTES, let_go_of_code, trim

_PR_SET_PDEATHSIG = 1


def main() -> int:
    die_with_parent()
    heap.keep(HEAP_BYTES)
    control = socket.socket(fileno=os.dup(0))
    problem = preload(sys.argv[1:])
    gc.collect()
    trim()
    let_go_of_code()
    gc.freeze()
    priority.arm()
    return Zygote(control).run(problem)


def preload(runtimes: list[str]) -> str:
    """Import what every worker needs; return what went wrong, empty if nothing did."""
    try:
        import agent.worker

        agent.worker.rehearse(runtimes)
    except Exception as error:  # noqa: BLE001 - told to the supervisor; a worker would die of the same
        return f"{type(error).__name__}: {error}"
    return ""


def die_with_parent() -> None:
    """Ask the kernel (Linux) to end this process with its parent, even if that one is killed."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


class Zygote:
    """Forks on request and reports exits until the control socket closes."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: set[int] = set()
        self._woken, wake = os.pipe()
        for descriptor in (self._woken, wake):
            os.set_blocking(descriptor, False)
        self._wake = wake

    def run(self, problem: str) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor ends us in order.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._tell(ready=not problem, problem=problem, threads=_threads())
        while True:
            readable = select.select([self._control.fileno(), self._woken], [], [])[0]
            if self._woken in readable:
                self._drain_wake()
                self._reap()
            if self._control.fileno() in readable and not self._serve():
                self._end_children()
                return 0

    def _serve(self) -> bool:
        """Handle one packet; False once the supervisor is gone."""
        handles = array.array("i")
        data, ancillary, _, _ = self._control.recvmsg(4096, socket.CMSG_SPACE(handles.itemsize))
        if not data:
            return False
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                handles.frombytes(payload[: handles.itemsize])
        asked = json.loads(data)
        self._fork(asked["id"], socket.socket(fileno=handles[0]), behind=asked["behind"])
        return True

    def _fork(self, number: int, pipe: socket.socket, *, behind: bool) -> None:
        fault("zygote.fork")
        pid = os.fork()
        if pid == 0:
            if behind:
                priority.step_back()
                priority.give_way()
            self._become_worker(pipe, behind)
        self._children.add(pid)
        pipe.close()
        self._tell(forked=pid, id=number)

    def _become_worker(self, pipe: socket.socket, behind: bool) -> None:
        die_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        os.close(self._woken)
        os.close(self._wake)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        from agent.worker import run_forked

        run_forked(pipe, behind)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._children.discard(pid)
            self._tell(exited=pid, status=os.waitstatus_to_exitcode(status))

    def _end_children(self) -> None:
        """Nobody is left to serve; wait for them too, so that no zombie outlives us."""
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            os.waitpid(pid, 0)

    def _drain_wake(self) -> None:
        try:
            while os.read(self._woken, 512):
                pass
        except BlockingIOError:
            return

    def _tell(self, **fields: Any) -> None:
        try:
            self._control.send(json.dumps(fields).encode())
        except OSError:
            os._exit(0)  # The supervisor is gone; so are we, and the workers with us.


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1
