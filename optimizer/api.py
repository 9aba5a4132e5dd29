"""The optimizer from Python: `optimize` does a run in children and gives a `Result`.

Nothing here imports TensorFlow or numpy until arrays are given: a program may have them in any state.
"""

from __future__ import annotations

import contextlib
import html
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from optimizer import given, words
from optimizer.errors import StepError
from optimizer.folder import REPORT
from optimizer.lines import LineReader
from optimizer.pipeline import optimize as run_pipeline
from optimizer.report import Artifact, Report
from optimizer.runs import RunSpec, read_run
from optimizer.steps import ForkedSteps

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from agent.contract.manifest import Preprocessing
    from firmware_profiles.profile import Profile
    from optimizer.recipe import Recipe
    from optimizer.runner import Tell

PAGE = "report.html"
_LOG_LINES = 20


def optimize(
    model: Any,
    data: str | os.PathLike[str] | Mapping[str, ArrayLike] | tuple[ArrayLike, ArrayLike] | ArrayLike,
    profiles: str | Profile | Sequence[str | os.PathLike[str] | Profile] = ("x86-cpu",),
    recipe: str | os.PathLike[str] | Recipe = given.DEFAULT,
    *,
    name: str = "model",
    labels: Sequence[str] = (),
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    strict: bool = False,
    compare: bool | None = None,
    trust: bool = False,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Tell | None = None,
) -> Result:
    """Make a model small and integer for classes of devices, and prove what that cost. help(optimizer) says how.

    Args:
        model: Path of a model of any kind, or a model of Keras 3. Shapes are fixed but for axis 0, which is rows.
        data: A path; {"train/x": ..., "train/labels": ...}; (x, labels); or x alone. x is (rows, *input shape) of
            numbers, best float32; labels are class indices from 0, (rows,). What is not in splits is split by `seed`.
        profiles: Names of builtin profiles, paths of `.toml` files, or Profile objects; one or several.
        recipe: A builtin name, a path, TOML text, or a Recipe; `default` as far as the source can be trained.
        name: What the model is called: lower-case letters, digits, `.`, `_`, `-`.
        labels: Names of the classes, in the order of the model's scores.
        preprocessing: How a picture becomes an input, for devices that are asked with pictures.
        strict: The 95 % bound of the loss must stay within the profile's margin, not only its estimate.
        compare: Whether to compare with other ways, at the price of their training; None: as the recipe says.
        trust: Whether a source that can run code when it is loaded (`.h5`, `.pt2`) may do so.
        seed: Decides splits, the order of rows and new weights.
        out: Folder for the report and the artifacts; None: one that lasts as long as the Result.
        cache: Folder that remembers passes between runs; None: nothing is remembered.
        progress: Called with pass, profile, fraction (0 to 1), detail. What it raises ends the run.

    Raises RefusedError (model, data, profile or recipe cannot be used; it says what to do), StepError (a pass failed),
    both OptimizerError; KeyboardInterrupt at Ctrl-C, when all children have ended. A profile that does not pass
    raises nothing: it is in `Result.rejected`.
    """
    asked = _Asked(name, labels, preprocessing, strict, compare, trust, seed, cache)
    with tempfile.TemporaryDirectory(prefix="lepta-run-") as scratch:
        run = _spec(model, data, profiles, recipe, asked, Path(scratch))
        folder = None if out is None else Path(out).expanduser().absolute()
        return _go(run, folder, progress or _silent, Path(scratch) / "log")


class _Asked(NamedTuple):
    name: str
    labels: Sequence[str]
    preprocessing: Preprocessing | Mapping[str, Any] | None
    strict: bool
    compare: bool | None
    trust: bool
    seed: int
    cache: str | os.PathLike[str] | None


def _spec(model: Any, data: Any, profiles: Any, recipe: Any, asked: _Asked, scratch: Path) -> RunSpec:
    """By way of run.json, so that it is checked as every other run."""
    run = {
        "model": asked.name,
        "version": 1,
        "source": str(given.model_file(model, scratch)),
        "data": str(given.data_file(data, scratch)),
        "profiles": given.profile_names(profiles, scratch),
        "recipe": given.recipe_name(recipe, scratch),
        "labels": list(asked.labels),
        "preprocessing": given.preprocessing_of(asked.preprocessing),
        "strict": asked.strict,
        "compare": asked.compare,
        "trust": asked.trust,
        "seed": asked.seed,
        "cache": None if asked.cache is None else str(Path(asked.cache).expanduser().absolute()),
    }
    path = scratch / "run.json"
    path.write_bytes(msgspec.json.encode(run))
    return read_run(path)


def _go(run: RunSpec, out: Path | None, tell: Tell, log: Path) -> Result:
    folder = Path(tempfile.mkdtemp(prefix="lepta-result-")) if out is None else out
    try:
        with _steps(log) as steps:
            run_pipeline(run, folder, steps, tell)
        return Result(folder, kept=out is not None)
    except BaseException as error:
        if isinstance(error, StepError):
            error.add_note(_end_of(log))
        if out is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


class Built:
    """One profile's artifact, as it lies in a folder."""

    def __init__(self, path: Path, facts: Artifact) -> None:
        self.path = path
        """The .tflite file."""
        self.facts = facts
        """All figures, as in report.json."""

    @property
    def bytes(self) -> int:
        return self.facts.bytes

    @property
    def parameters(self) -> int:
        return self.facts.parameters

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one row."""
        return self.facts.macs

    @property
    def accuracy(self) -> float | None:
        """Share of test rows (of validation where there is no test) that it gets right; None without labels."""
        return self.facts.accuracy_int8

    @property
    def accuracy_before(self) -> float | None:
        """The float model's, on the same rows."""
        return self.facts.accuracy_float

    @property
    def latency_ms(self) -> float:
        """Median of one row on this host."""
        return self.facts.latency_ms

    def __repr__(self) -> str:
        return f"<{self.facts.profile}: {self.facts.made}, {words.size(self.bytes)}, {self.path.name}>"


class Result:
    """What a run made: the report, and the folder with its files."""

    def __init__(self, folder: Path, *, kept: bool = True) -> None:
        """Read a run's folder. Unless it is `kept`, it is removed with this object: `save` it before."""
        self.folder = folder
        self.report = msgspec.json.decode((folder / REPORT).read_bytes(), type=Report)
        if not kept:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    @property
    def artifacts(self) -> Mapping[str, Built]:
        """By profile; those that passed."""
        found = {a.profile: Built(self.folder / a.files["model"].file, a) for a in self.report.artifacts}
        return MappingProxyType(found)

    @property
    def rejected(self) -> Mapping[str, tuple[str, ...]]:
        """By profile: the reasons why it has no artifact."""
        return MappingProxyType({found.profile: found.reasons for found in self.report.rejected})

    @property
    def page(self) -> str:
        """The report as one HTML page that needs nothing else."""
        return (self.folder / PAGE).read_text(encoding="utf-8")

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Copy all files into `folder`, which is made if it is missing; report.json comes last. Raises OSError."""
        target = Path(folder).expanduser()
        target.mkdir(parents=True, exist_ok=True)
        names = sorted((path.name for path in self.folder.iterdir() if path.is_file()), key=lambda name: name == REPORT)
        for name in names:
            shutil.copyfile(self.folder / name, target / name)
        return target

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("profile", "made", "parameters", "size", "latency", "accuracy")]
        rows += [_line(built) for built in self.artifacts.values()]
        table = _aligned(rows) if len(rows) > 1 else []
        table += [f"{profile}  rejected: {'; '.join(reasons)}" for profile, reasons in self.rejected.items()]
        return "\n".join(table)

    def __repr__(self) -> str:
        return f"<Result: {len(self.artifacts)} artifacts, {len(self.rejected)} rejected, in {self.folder}>"

    def _repr_html_(self) -> str:
        """For notebooks: the page in a frame, so that its styles stay its own."""
        frame = 'sandbox="" style="width: 100%; height: 720px; border: 0" title="What optimization made of the model"'
        return f'<iframe {frame} srcdoc="{html.escape(self.page)}"></iframe>'


@contextlib.contextmanager
def _steps(log: Path) -> Iterator[ForkedSteps]:
    """Steps without a parent who could cancel: Ctrl-C, or whatever else is raised here, ends them and all children."""
    requests, held = os.pipe()
    with log.open("wb") as noise:
        steps = ForkedSteps(LineReader(requests), lambda message: False, noise.fileno())
        try:
            yield steps
        finally:
            os.close(held)
            try:
                steps.close()
            finally:
                os.close(requests)


def _end_of(log: Path) -> str:
    """What libraries said last: it may tell more than the error."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(("the end of its log:", *lines[-_LOG_LINES:]))


def _silent(step: str, profile: str, fraction: float, detail: str) -> None:
    """Tells nobody."""


def _line(built: Built) -> tuple[str, ...]:
    facts = built.facts
    return (
        facts.profile,
        facts.made,
        f"{words.count(facts.parameters_before)} -> {words.count(facts.parameters)}",
        f"{words.size(facts.bytes_before)} -> {words.size(facts.bytes)}",
        words.milliseconds(facts.latency_ms),
        f"{words.share(facts.accuracy_float)} -> {words.share(facts.accuracy_int8)}",
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
