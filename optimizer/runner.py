"""Does passes one after the other: each is looked up in the cache, or run in a child, and what it cost is added up."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from optimizer.cache import Cache, key_of
from optimizer.errors import CancelledError, OptimizerError
from optimizer.folder import digest_of
from optimizer.passes import PASSES
from optimizer.settings import LIMITS
from optimizer.steps import Steps, Work

Tell = Callable[[str, str, float, str], None]
"""pass, profile, fraction of the whole run, detail."""

_TOOLS = (
    "lepta",
    "tensorflow",
    "keras",
    "tf-keras",
    "ai-edge-litert",
    "litert-quantizer",
    "litert-torch",
    "onnx2torch",
    "numpy",
)


class Done(NamedTuple):
    """What a pass made: its folder, and what it says of it. `wall_s` and `peak_mb` are 0 where it was remembered."""

    folder: Path
    manifest: dict[str, Any]
    remembered: bool
    wall_s: float
    peak_mb: float


class Runner:
    """Owned by one run. `work` is a folder that is gone with the run; what the cache holds stays."""

    def __init__(self, steps: Steps, work: Path, store: Cache | None, tell: Tell) -> None:
        self._steps, self._work, self._store, self._tell = steps, work, store, tell
        self._seconds, self._memory_mb = LIMITS.step_seconds, LIMITS.step_memory_mb
        self._seen: dict[str, Done] = {}
        self._failed: dict[str, OptimizerError] = {}
        self._digests: dict[tuple[Path, int, int], str] = {}
        self._total = self._finished = self._told = 0.0
        self.done: list[tuple[str, Done]] = []

    def limit(self, seconds: float, memory_mb: int) -> None:
        """What every pass from now on may take."""
        self._seconds, self._memory_mb = seconds, memory_mb

    def warm(self, *names: str) -> None:
        """Passes that come later: what they are forked from is started now, beside what is done until then."""
        self._steps.warm(*(PASSES[name].kind for name in names))

    def expect(self, *names: str) -> None:
        """Passes that the run is going to take, as far as it knows: by them the fraction is reckoned."""
        self._total += sum(PASSES[name].weight for name in names)

    def do(self, name: str, inputs: Mapping[str, Path], settings: Mapping[str, Any], profile: str = "") -> Done:
        """Raises OptimizerError where the pass fails, CancelledError where it was cancelled.

        What this run has done already, or has failed to do, is not done again.
        """
        known = PASSES[name]
        digests = {role: self._digest(path) for role, path in inputs.items()}
        key = key_of(name, known.revision, digests, settings, tools())
        if (failure := self._failed.get(key)) is not None:
            raise failure
        done = self._seen.get(key) if known.remembered else None
        if done is None:
            try:
                done = self._done(name, inputs, dict(settings), profile, key)
            except CancelledError:
                raise
            except OptimizerError as error:
                self._failed[key] = error
                raise
            self._seen[key] = done
            self.done.append((name, done))
        self._finished += known.weight
        self._say(name, profile, 0.0, "remembered" if done.remembered else "done")
        return done

    def _done(self, name: str, inputs: Mapping[str, Path], settings: dict[str, Any], profile: str, key: str) -> Done:
        store = self._store if PASSES[name].remembered else None
        found = store.find(key) if store else None
        if found:
            return Done(*found, True, 0.0, 0.0)
        made = store.new() if store else Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._work))

        def progress(fraction: float, detail: str) -> None:
            self._say(name, profile, fraction * PASSES[name].weight, detail)

        try:
            work = Work(name, inputs, settings, made, self._seconds, self._memory_mb)
            finished = self._steps.run(work, progress)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        if store:
            made = store.keep(key, made, finished.result)
        return Done(made, finished.result, False, finished.wall_s, finished.peak_memory_mb)

    def _say(self, name: str, profile: str, under_way: float, detail: str) -> None:
        whole = max(self._total, self._finished + PASSES[name].weight)
        # A run that takes more than was expected stands still for a while, it does not go back.
        self._told = max(self._told, min(0.99, (self._finished + under_way) / whole))
        self._tell(name, profile, self._told, detail)

    def _digest(self, path: Path) -> str:
        facts = path.stat()
        known = (path, facts.st_mtime_ns, facts.st_size)
        if known not in self._digests:
            self._digests[known] = folder_digest(path) if path.is_dir() else digest_of(path)
        return self._digests[known]


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files of a folder."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole.update(f"{path.relative_to(folder)}\0{digest_of(path)}\n".encode())
    return whole.hexdigest()


@cache
def tools() -> Mapping[str, str]:
    """The versions of everything that decides what passes make."""
    found = {}
    for tool in _TOOLS:
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            found[tool] = "not installed"
    return found
