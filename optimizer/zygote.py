"""A warm, single-threaded process that forks a fresh child for every step.

TensorFlow takes ten seconds to import and leaks with every conversion: so it is imported once, here, and each step
runs in a forked child that exits. Forking is sound only from a process with one thread, which is checked.

On stdin: {"step": name, "inputs": {...}, "settings": {...}, "out": folder, "seconds", "memory_mb"} or {"cancel": true};
at its end everything here ends. On stdout:
{"ready": ...} once, then per step {"progress": ...}, {"alive": seconds} and one {"result": ...} or {"error": ...}.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import resource
import select
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NoReturn, cast

from optimizer.errors import OptimizerError
from optimizer.lines import LineReader, Message, write
from optimizer.passes import PASSES, PRELOADS, Kind, Progress, Work
from optimizer.settings import LIMITS

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve steps of the kind named by LEPTA_ZYGOTE until stdin ends."""
    # Ctrl-C in a terminal reaches every process; our parent decides what it means and closes stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kind = cast(Kind, os.environ["LEPTA_ZYGOTE"])
    _die_with_parent()
    # Libraries print on stdout; the protocol keeps the real one, everybody else gets stderr.
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for module in PRELOADS[kind]:
        importlib.import_module(module)
    threads = _threads()
    if threads != 1:
        error = f"{kind} started {threads - 1} threads while it was imported, so that steps cannot be forked safely"
        write(out, {"error": error, "who": "us"})
        return 1
    write(out, {"ready": kind, "pid": os.getpid()})
    _serve(LineReader(sys.stdin.fileno()), out)
    return 0


def _serve(requests: LineReader, out: int) -> None:
    waiting: list[Message] = []
    while not requests.closed:
        waiting += requests.read()
        while waiting and not requests.closed:
            request = waiting.pop(0)
            if "step" in request:
                _run(request, requests, waiting, out)


def _run(request: Message, requests: LineReader, waiting: list[Message], out: int) -> None:
    """Fork a child for one step and watch it: its end, a cancellation, the end of our parent, the time limit."""
    started = time.monotonic()
    answers, held = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(answers)
        _child(request, held)
    os.close(held)
    why = _watch(child, request["seconds"], LineReader(answers), requests, waiting, out)
    os.close(answers)
    _, status, usage = os.wait4(child, 0)
    measured = {"wall_s": time.monotonic() - started, "peak_memory_mb": usage.ru_maxrss / 1024}
    write(out, {"ended": True, **_ending(request["step"], status, why), **measured})


def _watch(
    child: int, limit_s: float, answers: LineReader, requests: LineReader, waiting: list[Message], out: int
) -> str | None:
    """Pass on what the child says until it is gone (then its pipe closes). Returns why it was killed, if it was."""
    started, why = time.monotonic(), None
    watched = [answers, requests]
    while not answers.closed:
        ready, _, _ = select.select(watched, [], [], LIMITS.heartbeat_s)
        if answers in ready:
            for message in answers.read():
                write(out, message)
        if requests in ready:
            news = requests.read()
            waiting += [message for message in news if "cancel" not in message]
            if requests.closed or any("cancel" in message for message in news):
                why = _kill(child, "cancelled")
            if requests.closed:
                watched.remove(requests)
        seconds = time.monotonic() - started
        if seconds > limit_s and why is None:
            why = _kill(child, f"took longer than {limit_s:g} s; use less data or give the recipe more `seconds`")
        if not ready:
            write(out, {"alive": seconds})
    return why


def _child(request: Message, out: int) -> NoReturn:
    """Run the step; never returns. A crash in here costs this process only."""
    code = 0
    try:
        _die_with_parent()
        _limit_resources(request["memory_mb"])
        os.close(sys.stdin.fileno())
        inputs = {role: Path(path) for role, path in request["inputs"].items()}
        result = _function(request["step"])(inputs, request["settings"], Path(request["out"]), _reporter(out))
        write(out, {"result": result})
    except OptimizerError as error:
        write(out, {"error": str(error), "who": error.who})
    except MemoryError:
        limit = f"step {request['step']} needs more memory than {request['memory_mb']} MB"
        write(out, {"error": f"{limit}; use less data or give the recipe more `memory_mb`", "who": "user"})
    except BaseException as error:  # noqa: BLE001 - the last frame of this process: everything is reported here
        traceback.print_exc()
        write(out, {"error": f"{type(error).__name__}: {str(error)[:500]}", "who": "us"})
        code = 1
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


def _function(step: str) -> Work:
    module, _, name = PASSES[step].function.partition(":")
    function: Work = getattr(importlib.import_module(module), name)
    return function


def _reporter(out: int) -> Progress:
    """Sends progress, at most ten times a second."""
    last = 0.0

    def report(fraction: float, detail: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 0.1 or fraction >= 1:
            last = now
            write(out, {"progress": fraction, "detail": detail})

    return report


def _ending(step: str, status: int, why: str | None) -> Message:
    """How a child ended, beyond what it said itself."""
    if why == "cancelled":
        return {"error": "cancelled", "who": "user", "cancelled": True}
    if why is not None:
        return {"error": f"step {step} {why}", "who": "user"}
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        hint = (
            "the machine may be out of memory" if name == "SIGKILL" else "this model breaks a library that Lepta uses"
        )
        return {"error": f"step {step} crashed ({name}): {hint}", "who": "us"}
    return {}


def _kill(child: int, why: str) -> str:
    """Safe: the child is not reaped before its watch ends, so its id is still its own."""
    os.kill(child, signal.SIGKILL)
    return why


def _limit_resources(memory_mb: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_FSIZE, LIMITS.step_file_bytes)
    _lower(resource.RLIMIT_AS, _mapped_bytes() + memory_mb * 1024 * 1024)


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (limit, limit))


def _mapped_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except FileNotFoundError:
        return 0


def _threads() -> int:
    """Threads of this process, also those that Python does not know."""
    try:
        return len(os.listdir("/proc/self/task"))
    except FileNotFoundError:
        return threading.active_count()


def _die_with_parent() -> None:
    """Ask the kernel to kill us when our parent dies (Linux; elsewhere the end of stdin must do)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
