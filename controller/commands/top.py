"""`lepta top`: the fleet live, asked once a second. On no terminal, or with --once, one frame as plain lines."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from controller.commands import common, top_table
from controller.commands.layout import ago
from controller.commands.top_table import Order
from controller.errors import LeptaError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from controller.client.rest import Client
    from controller.replies import Device

EVERY_S = 1.0
_STYLES = {"well": "", "busy": "yellow", "ill": "red", "away": "dim"}
_KEYS = "q quits, s sorts by the next column"
_ORDERS: tuple[Order, ...] = ("name", "cpu", "memory", "rate", "p95")


def top(
    sort: Annotated[Order, typer.Option(help="What stands first: by name, or the greatest of the others.")] = "name",
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
) -> int:
    """The devices live: load, models, rows per second, p95 of requests."""
    if once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        with common.connect() as client:
            _print(client.devices(), sort)
        return 0
    watch = Watch(sort)
    watch.ask()
    if watch.trouble is not None:
        raise watch.trouble
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(watch):
        _live(watch)
    return 0


def _print(devices: list[Device], order: Order) -> None:
    rows = [row.cells for group in top_table.rows(devices, order) for row in group]
    print(top_table.summary(devices))
    for text in top_table.lines(rows, sys.maxsize) if rows else []:
        print(text)


class Watch:
    """What is known of the fleet, and since when nothing new is: a controller that is gone is asked again."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.devices: list[Device] = []
        self.trouble: LeptaError | None = None
        self._client: Client | None = None
        self._heard = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the last answer."""
        return time.monotonic() - self._heard

    def ask(self) -> None:
        """Once; what goes wrong is kept in `trouble`, and the next time starts afresh: it may be elsewhere by then."""
        try:
            if self._client is None:
                self._client = common.connect()
            self.devices = self._client.devices()
            self._heard, self.trouble = time.monotonic(), None
        except LeptaError as error:
            self.trouble = error
            self.close()

    def press(self, key: str) -> bool:
        """False for a key that ends it."""
        if key == "s":
            self.order = _ORDERS[(_ORDERS.index(self.order) + 1) % len(_ORDERS)]
        return key not in ("q", "Q", "\x1b")

    def close(self) -> None:
        if self._client is not None:
            self._client.__exit__()
            self._client = None


def _live(watch: Watch) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False, emoji=False)
    with _keys(), Live(frame(watch, console), console=console, screen=True, auto_refresh=False) as live:
        due = time.monotonic() + EVERY_S
        while True:
            key = _key(due - time.monotonic())
            if key and not watch.press(key):
                return
            if not key:
                watch.ask()
                due = time.monotonic() + EVERY_S
            live.update(frame(watch, console), refresh=True)


def frame(watch: Watch, console: Console) -> Text:
    """The screen's content: never more lines or columns than the terminal has."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ellipsis")
    text.append("lepta top", "bold")
    text.append(f"  {top_table.summary(watch.devices)}\n")
    text.append(*_second_line(watch))
    groups = top_table.rows(watch.devices, watch.order)
    rows, left_out = top_table.fit(groups, console.height - 4)
    if rows:
        header, *lines = top_table.lines([row.cells for row in rows], console.width)
        text.append(f"\n{header}\n", "bold")
        for row, line in zip(rows, lines, strict=True):
            text.append(f"{line}\n", "dim" if watch.trouble else _STYLES[row.mood])
    if left_out:
        text.append(f"... and {left_out} more; s sorts the busiest to the top", "dim")
    text.rstrip()
    return text


def _second_line(watch: Watch) -> tuple[str, str]:
    if watch.trouble is None:
        return f"sorted by {watch.order}; {_KEYS}\n", "dim"
    return f"{watch.trouble.message}; last heard {ago(watch.silent_s)}, still trying\n", "yellow"


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Keys come one by one and are not shown; the terminal is as before afterwards."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _key(seconds: float) -> str:
    """What is pressed next, "q" when the terminal is gone; "" if nothing comes in time."""
    descriptor = sys.stdin.fileno()
    ready, _, _ = select.select([descriptor], [], [], max(0.0, seconds))
    return (os.read(descriptor, 16).decode(errors="replace") or "q") if ready else ""
