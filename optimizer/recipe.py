"""Recipes: which passes a run may take, and their settings. TOML files; three come with Lepta.

A run tries the smallest model first: every budget of `prune` from the smallest on, then the model as it is; each is
quantized after training, and, where that misses the gate on validation, by what `quantize` allows beyond it.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from agent.contract.manifest import Shadow, Watch
from firmware_profiles.allowed import describe, unknown_key
from optimizer.errors import RefusedError
from optimizer.prune.settings import Pruning
from optimizer.tuning import Tuning

Scheme = Literal["int8", "int16x8", "float16", "dynamic"]
When = Literal["never", "if-needed", "always"]


class Prune(Pruning, frozen=True, forbid_unknown_fields=True):
    """Structured pruning. `budgets`: shares of parameters (or MACs) to try, the smallest first; else `budget` alone."""

    budgets: Annotated[tuple[Annotated[float, Meta(gt=0, le=1)], ...], Meta(max_length=8)] = ()


class Sparsify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Magnitude pruning by tensorflow-model-optimization: weights become zero, shapes stay (arXiv 1710.01878)."""

    schedule: Literal["polynomial", "constant"] = "polynomial"
    initial: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Share of zeros at step `begin`; polynomial decay only."""
    final: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    begin: Annotated[int, Meta(ge=0)] = 0
    end: Annotated[int, Meta(ge=-1)] = -1
    """Training step at which `final` is reached; -1: after two thirds of all steps."""
    frequency: Annotated[int, Meta(ge=1)] = 100
    pattern: tuple[int, int] | None = None
    """(n, m): n of every m weights in a row become zero; replaces `final`."""
    tuning: Tuning = Tuning(epochs=4, batch=128, rate=1e-3, dropout=1.0)


class Distill(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Training of the model itself, or of a smaller one given by its file, by what the float model answers."""

    student: str = ""
    """Path of a `.keras` file to teach instead; its weights are where it starts from."""
    tuning: Tuning = Tuning()


class Quantize(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """int8: weights and activations. int16x8: activations of 16 bits. float16, dynamic: weights alone."""

    scheme: Scheme = "int8"
    qat: When = "if-needed"
    """Quantization-aware training (arXiv 1712.05877), which needs rows to train on."""
    mixed: When = "if-needed"
    """Operators that err most stay float; never where the profile's hardware has no float."""
    float_operators: Annotated[int, Meta(ge=1)] = 4
    """At most so many stay float."""
    tuning: Tuning = Tuning(epochs=2, batch=128, rate=2e-4, dropout=0.0)
    """Of quantization-aware training."""


class Compare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows of the report beside ours: what other ways give for the same training. Each costs its training."""

    tfmot: bool = True
    """Magnitude pruning to the same share of weights, then quantization."""
    scratch: bool = True
    """The pruned model's shapes, new weights, and as many training steps on labels alone."""


class Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one profile has otherwise; a table that is left out is the recipe's."""

    budgets: tuple[Annotated[float, Meta(gt=0, le=1)], ...] = ()
    quantize: Quantize | None = None


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Passes in their order: distill, prune, sparsify, quantize. A table that is left out is not taken."""

    description: str = ""
    distill: Distill | None = None
    prune: Prune | None = None
    sparsify: Sparsify | None = None
    quantize: Quantize = Quantize()
    compare: Compare = Compare(tfmot=False, scratch=False)
    seeds: Annotated[int, Meta(ge=1, le=20)] = 1
    """How often training is done, with other seeds; the best on validation goes on, the report tells the spread."""
    seconds: Annotated[float, Meta(gt=0)] = 1800.0
    """Time limit of one pass."""
    memory_mb: Annotated[int, Meta(ge=256)] = 16_384
    """Memory that one pass may take."""
    profiles: dict[str, Override] = {}
    watch: Watch = Watch()
    """How devices look after the version once it has the requests."""
    shadow: Shadow = Shadow()
    """Whether it answers copies of live requests there before."""

    def for_profile(self, profile: str) -> Override:
        """The settings of one profile, complete."""
        given = self.profiles.get(profile, Override())
        prune = self.prune
        own = () if prune is None else prune.budgets or (prune.budget,)
        return Override(budgets=given.budgets or own, quantize=given.quantize or self.quantize)


def builtin() -> tuple[str, ...]:
    """Names of the recipes that come with Lepta."""
    return tuple(sorted(path.stem for path in _folder().glob("*.toml")))


def find(name_or_path: str) -> Recipe:
    """A builtin recipe by name, or one from a `.toml` file; raises RefusedError that says what is allowed."""
    if name_or_path.endswith(".toml"):
        return _load(Path(name_or_path))
    if name_or_path not in builtin():
        known = ", ".join(builtin())
        raise RefusedError(f"no recipe is called {name_or_path!r}; there are {known}, or give a .toml file")
    return _load(_folder() / f"{name_or_path}.toml")


def parse(text: str, source: str) -> Recipe:
    """Read a recipe from TOML text. `source` names it in errors."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RefusedError(f"{source}: not TOML: {error}") from error
    problem = unknown_key(raw, Recipe)
    if problem is not None:
        raise RefusedError(f"{source}: {problem}")
    try:
        return msgspec.convert(raw, Recipe)
    except msgspec.ValidationError as error:
        raise RefusedError(f"{source}: {describe(error, Recipe)}") from error


def plain(settings: msgspec.Struct) -> dict[str, Any]:
    """As JSON would have it: what passes take."""
    built: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(settings))
    return built


def _load(path: Path) -> Recipe:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"{path}: cannot read the recipe: {error}") from error
    return parse(text, str(path))


def _folder() -> Path:
    return Path(__file__).parent / "recipes"
