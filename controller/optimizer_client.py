"""Talks to the optimizer process over its pipes: one run or example at a time, with progress."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from agent.contract.children import command, environment
from controller.errors import Internal, LeptaError, UserError

Event = dict[str, Any]


class Optimizer:
    """The optimizer process for as long as the `with` block lasts. Its noise goes to `log`, or nowhere."""

    def __init__(self, log: Path | None = None) -> None:
        self._log = log
        self._lock = threading.Lock()

    def __enter__(self) -> Optimizer:
        with contextlib.ExitStack() as stack:
            noise = stack.enter_context(self._log.open("ab")) if self._log else subprocess.DEVNULL
            self._process = subprocess.Popen(
                command("optimizer.__main__"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=noise,
                env=environment(),
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """The end of its stdin ends it and its children; a stubborn one is killed."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.returncode

    def warm(self) -> None:
        """Have TensorFlow imported in the background."""
        self._send({"do": "warm"})

    def optimize(self, run: Path, out: Path, request: str | None = None) -> Iterator[Event]:
        """Events of a run, as optimizer/__main__.py tells; the last has the report. Raises UserError or Internal."""
        return self._events({"do": "optimize", "run": str(run), "out": str(out)}, request)

    def example(
        self, name: str, out: Path, options: Mapping[str, Any] | None = None, request: str | None = None
    ) -> Iterator[Event]:
        """Events of making an example, as for `optimize`."""
        return self._events({"do": "example", "name": name, "out": str(out), "options": dict(options or {})}, request)

    def cancel(self, request: str) -> None:
        """Stop a run by the id that was given to it; also from another thread."""
        self._send({"id": request, "do": "cancel"})

    def _events(self, message: Mapping[str, Any], request: str | None) -> Iterator[Event]:
        wanted = request or uuid.uuid4().hex
        self._send({"id": wanted, **message})
        for line in self._process.stdout or ():
            event: Event = msgspec.json.decode(line)
            if event.get("id") != wanted:
                continue
            if event["event"] == "failed":
                raise _failure(event)
            yield event
            if event["event"] == "done":
                return
        raise Internal(f"the optimizer ended without an answer (exit status {self._process.wait()})")

    def _send(self, message: Mapping[str, Any]) -> None:
        stdin = self._process.stdin
        if stdin is None:
            raise Internal("the optimizer was not started")
        try:
            with self._lock:
                stdin.write(msgspec.json.encode(message) + b"\n")
                stdin.flush()
        except BrokenPipeError as error:
            status = self._process.wait()
            raise Internal(f"the optimizer is gone (exit status {status})", "its log says why") from error


def optimize_folder(
    model: Path,
    data: Path,
    profiles: Sequence[str],
    out: Path,
    strict: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
    *,
    name: str = "model",
    labels: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    recipe: str = "",
    compare: bool | None = None,
    trust: bool = False,
    cache: Path | None = None,
    log: Path | None = None,
) -> dict[str, Any]:
    """Optimize without a controller: `out` holds report.json and its files afterwards. Returns the report.

    `recipe`: a builtin's name or a file's path; `cache`: where passes are remembered, None: nowhere. `on_event` gets
    every progress event. Raises UserError or Internal.
    """
    run = {
        "model": name,
        "version": 1,
        "source": str(model.resolve()),
        "data": str(data.resolve()),
        "profiles": list(profiles),
        "strict": strict,
        "labels": list(labels or ()),
        "preprocessing": dict(preprocessing) if preprocessing else None,
        "recipe": recipe,
        "compare": compare,
        "trust": trust,
        "cache": str(cache) if cache is not None else None,
    }
    with tempfile.TemporaryDirectory(prefix="lepta-run-") as folder, Optimizer(log) as optimizer:
        path = Path(folder) / "run.json"
        path.write_bytes(msgspec.json.encode(run))
        for event in optimizer.optimize(path, out.resolve()):
            if event["event"] == "done":
                report: dict[str, Any] = event["report"]
                return report
            on_event(event)
    raise Internal("the optimizer gave no report")


def _failure(event: Event) -> LeptaError:
    return UserError(event["error"]) if event["who"] == "user" else Internal(event["error"])
