"""What a command shows: with colour and live progress on a terminal, as plain lines anywhere else."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from controller.commands.layout import aligned

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichBar
    from rich.progress import TaskID


# A log file hears of a long step this often.
_CALM_S = 20.0


class Progress(Protocol):
    """Steps one after the other; each is named once more with its time when the next begins."""

    def update(self, step: str, fraction: float | None = None, detail: str = "") -> None:
        """`fraction`: 0 to 1, None where nobody knows."""


class Screen(Protocol):
    def line(self, text: str = "") -> None: ...
    def note(self, text: str) -> None:
        """A line of lesser importance."""

    def heading(self, text: str) -> None: ...
    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
        """Aligned columns; those numbered in `right` are flush right."""

    def progress(self) -> AbstractContextManager[Progress]: ...


def open_screen(environment: Mapping[str, str] = os.environ) -> Screen:
    """The screen that fits the standard output: plain where it is no terminal or a dumb one, or NO_COLOR is set."""
    out = sys.stdout
    if not out.isatty() or environment.get("NO_COLOR") or environment.get("TERM") in ("dumb", ""):
        return Plain(out)
    return Terminal()


class Plain:
    """Lines."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def line(self, text: str = "") -> None:
        print(text, file=self._out, flush=True)

    note = line

    def heading(self, text: str) -> None:
        self.line()
        self.line(text)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
        for text in aligned([header, *rows] if header else rows, right):
            self.line(f"  {text}")

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        steps = _Steps(self.line, _CALM_S)
        yield steps
        steps.finish()


class Terminal:
    """Rich: headings in bold, lesser things dim, a bar that moves."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console: Console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)

    def line(self, text: str = "") -> None:
        self._console.print(text)

    def note(self, text: str) -> None:
        self._console.print(text, style="dim")

    def heading(self, text: str) -> None:
        self._console.print()
        self._console.print(text, style="bold")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
        lines = [f"  {text}" for text in aligned([header, *rows] if header else rows, right)]
        if header:
            self.note(lines.pop(0))
        for text in lines:
            self.line(text)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichBar

        columns = (TextColumn("  {task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
        with RichBar(*columns, console=self._console, transient=True) as bar:
            steps = _Live(bar, _Steps(self.line))
            yield steps
        steps.finish()


class _Steps:
    """Names each step with its time once it is over; a step that failed is not named.

    Of a long step it tells every `every_s` seconds where it is; None: never.
    """

    def __init__(self, say: _Say, every_s: float | None = None) -> None:
        self._say = say
        self._every_s = every_s
        self._step = ""
        self._began = self._told = 0.0

    def update(self, step: str, fraction: float | None = None, detail: str = "") -> None:
        now = time.monotonic()
        if step != self._step:
            self.finish()
            self._step, self._began, self._told = step, now, now
        elif self._every_s is not None and detail and now - self._told >= self._every_s:
            self._told = now
            self._say(f"    {step}: {detail}")

    def finish(self) -> None:
        if self._step:
            self._say(f"  {self._step:<44} {time.monotonic() - self._began:6.1f} s")
        self._step = ""


class _Live:
    """A moving bar above which the finished steps stay."""

    def __init__(self, bar: RichBar, steps: _Steps) -> None:
        self._bar = bar
        self._steps = steps
        self._id: TaskID = bar.add_task("", total=None)
        self.finish = steps.finish

    def update(self, step: str, fraction: float | None = None, detail: str = "") -> None:
        self._steps.update(step)
        text = f"{step}: {detail}" if detail else step
        self._bar.update(
            self._id, description=f"{text:<44}", total=None if fraction is None else 1.0, completed=fraction or 0
        )


class _Say(Protocol):
    def __call__(self, text: str = "") -> None: ...
