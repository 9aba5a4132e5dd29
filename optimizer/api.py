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
from typing import TYPE_CHECKING, Any

import msgspec

from optimizer import given, words
from optimizer.folder import REPORT
from optimizer.lines import LineReader
from optimizer.pipeline import optimize as run_pipeline
from optimizer.report import Artifact, Report
from optimizer.runs import read_run
from optimizer.steps import ForkedSteps

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from agent.contract.manifest import Preprocessing
    from firmware_profiles.profile import Profile
    from optimizer.recipe import Recipe
    from optimizer.runner import Tell

PAGE = "report.html"


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
    """Make a model small and integer for classes of devices, and prove what that cost.

    What a recipe takes, in this order: distillation (Hinton et al., arXiv 1503.02531); structured pruning of coupled
    channels (after DepGraph, arXiv 2301.12900), by first-order Taylor importance (arXiv 1906.10771) among others, the
    float model as teacher; magnitude pruning (arXiv 1710.01878); quantization after training, or with it (arXiv
    1712.05877). The smallest candidate that passes its gate on validation is released; test rows judge it once more.
    The gate compares the artifact with the float model row by row: the loss of accuracy and its one-sided 95 % bound
    (Tango, Statistics in Medicine 17, 1998, for McNemar's paired table), agreement, and SQNR.

    Args:
        model: Path of a model (`.keras`, SavedModel, `.tflite` and others, see docs/guides/optimize.md), or a model of
            Keras 3. Inputs have fixed shapes but for axis 0, which is rows.
        data: Rows, as the model takes them: shape (rows, *input shape); numbers, best float32. Labels are class
            indices, shape (rows,), integers from 0. One of:
            a path (`.npz`, `.npy`, a folder of arrays or of pictures by class);
            a mapping of arrays in splits, {"train/x": ..., "train/labels": ..., "test/x": ...}, with the inputs' names
            where there are several; or {"x": ..., "labels": ...}, which is split by `seed`;
            (x, labels), which is split by `seed`; or x alone: without labels only parity can be judged.
        profiles: Names of builtin profiles, paths of `.toml` files, or Profile objects; one or several.
        recipe: A builtin recipe's name (`default`, `ptq`, `quick`), the path of a `.toml` file, TOML text, or a Recipe.
            `default` is taken as far as the source can be trained.
        name: What the model is called: lower-case letters, digits, `.`, `_`, `-`.
        labels: Names of the classes, in the order of the model's scores.
        preprocessing: How a picture becomes an input; only needed for devices that are asked with pictures.
        strict: The 95 % bound of the loss must stay within the profile's margin, not only its estimate.
        compare: Whether the report compares with other ways, at the price of their training; None: as the recipe says.
        trust: Whether a source that can run code when it is loaded (`.h5`) may do so.
        seed: Decides splits, shuffling and new weights.
        out: Folder for report.json, report.html and the artifacts; None: a folder that lasts as long as the Result.
        cache: Folder that remembers passes between runs; None: nothing is remembered.
        progress: Called with (pass, profile, fraction of the run from 0 to 1, detail), at most some ten times a second.
            What it raises ends the run.

    Returns:
        Also if no profile passed: `Result.rejected` has the reasons.

    Raises:
        RefusedError: The model, the data, a profile or the recipe cannot be used; the message says what to do.
        StepError: A pass failed for reasons of its own, or went beyond its limits.
        KeyboardInterrupt: Ctrl-C; every child has been ended. All errors above are OptimizerError.

    The work is done in child processes that import TensorFlow themselves; this process may have imported it or not.
    """
    with tempfile.TemporaryDirectory(prefix="lepta-run-") as scratch:
        run = {
            "model": name,
            "version": 1,
            "source": str(given.model_file(model, Path(scratch))),
            "data": str(given.data_file(data, Path(scratch))),
            "profiles": given.profile_names(profiles, Path(scratch)),
            "recipe": given.recipe_name(recipe, Path(scratch)),
            "labels": list(labels),
            "preprocessing": given.preprocessing_of(preprocessing),
            "strict": strict,
            "compare": compare,
            "trust": trust,
            "seed": seed,
            "cache": None if cache is None else str(Path(cache).absolute()),
        }
        asked = Path(scratch) / "run.json"
        asked.write_bytes(msgspec.json.encode(run))
        spec = read_run(asked)
        folder = Path(tempfile.mkdtemp(prefix="lepta-result-")) if out is None else Path(out).absolute()
        try:
            with _steps() as steps:
                run_pipeline(spec, folder, steps, progress or _silent)
            return Result(folder, kept=out is not None)
        except BaseException:
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
        target = Path(folder)
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
def _steps() -> Iterator[ForkedSteps]:
    """Steps without a parent who could cancel: Ctrl-C, or whatever else is raised here, ends them and all children."""
    requests, held = os.pipe()
    steps = ForkedSteps(LineReader(requests), lambda message: False)
    try:
        yield steps
    finally:
        os.close(held)
        try:
            steps.close()
        finally:
            os.close(requests)


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
