"""Built-in examples, made by the optimizer's process: a model, its data, and something to send to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from controller import replies
from controller.background import Background
from controller.catalog import Catalog
from controller.errors import Busy, NotFound


class Maker(Protocol):
    """What examples need of the optimizer's process."""

    def example(self, example_id: str, name: str, out: Path, options: dict[str, Any]) -> None: ...


class Examples:
    """Owned by the event loop; kept in memory only, the files are in the catalog."""

    def __init__(
        self, folder: Path, catalog: Catalog, maker: Maker, *, most: int, limit: int, new_id: Callable[[str], str]
    ) -> None:
        """`most`: examples remembered; `limit`: bytes of one file."""
        self._folder = folder
        self._catalog = catalog
        self._maker = maker
        self._most = most
        self._limit = limit
        self._new_id = new_id
        self._made: dict[str, replies.Example] = {}
        self._background = Background()

    def start(self, name: str, options: dict[str, Any]) -> replies.Example:
        if sum(e.state in ("queued", "running") for e in self._made.values()) >= self._most:
            raise Busy("too many examples are being made", "wait for one to end")
        example = replies.Example(id=self._new_id("example"), state="queued")
        self._made[example.id] = example
        while len(self._made) > self._most:
            del self._made[next(iter(self._made))]
        self._maker.example(example.id, name, self._folder / example.id / "out", options)
        return example

    def get(self, example_id: str) -> replies.Example:
        try:
            return self._made[example_id]
        except KeyError:
            raise NotFound(f"no example is called {example_id!r}", "make one: lepta example digits --out DIR") from None

    def knows(self, example_id: str) -> bool:
        return example_id in self._made

    def event(self, example_id: str, event: dict[str, Any]) -> None:
        """What the optimizer told."""
        match event["event"]:
            case "progress":
                shown = {key: event[key] for key in ("step", "fraction", "detail") if event.get(key) is not None}
                self._change(example_id, state="running", **shown)
            case "failed":
                self._change(example_id, state="failed", error=event["error"])
            case "done":
                self._background.start(
                    self._keep(example_id, event["report"]),
                    lambda error: self._change(example_id, state="failed", error=error),
                )

    async def _keep(self, example_id: str, report: dict[str, Any]) -> None:
        out = self._folder / example_id / "out"
        files = {}
        for role, file in report["files"].items():
            files[role] = (await self._catalog.put_file(out / Path(file["file"]).name, self._limit)).digest
        kept = {key: report[key] for key in ("labels", "preprocessing", "accuracy") if key in report}
        self._change(example_id, state="done", files=files, fraction=1.0, **kept)

    def _change(self, example_id: str, **changes: Any) -> None:
        if example_id in self._made:
            before = msgspec.to_builtins(self._made[example_id])
            self._made[example_id] = msgspec.convert({**before, **changes}, replies.Example)
