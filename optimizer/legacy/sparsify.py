"""Magnitude pruning: the smallest weights become zero while the model is trained on (Zhu, Gupta: arXiv 1710.01878).

Zeros speed nothing up on a CPU and leave the file as large: they pay where it is compressed, and on accelerators that
skip them.
"""

from __future__ import annotations

import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras

from optimizer.errors import RefusedError
from optimizer.legacy.convert import Counterpart, counterpart, give_back
from optimizer.legacy.rows import lesson
from optimizer.legacy.tune import Hooks, Tuned, scorer, thin_dropout, tune
from optimizer.passes import Inputs, Progress
from optimizer.recipe import Sparsify
from optimizer.sources import load_source
from optimizer.work_files import SOURCE

# Kind of layer -> the weights that are pruned; kernels of matrix products.
_WEIGHTS: dict[str, tuple[str, ...]] = {
    "Dense": ("kernel",),
    "Conv1D": ("kernel",),
    "Conv2D": ("kernel",),
    "Conv2DTranspose": ("kernel",),
    "Conv3D": ("kernel",),
    "SeparableConv1D": ("pointwise_kernel",),
    "SeparableConv2D": ("pointwise_kernel",),
    "Embedding": ("embeddings",),
    "GRU": ("cell.kernel", "cell.recurrent_kernel"),
    "LSTM": ("cell.kernel", "cell.recurrent_kernel"),
    "SimpleRNN": ("cell.kernel", "cell.recurrent_kernel"),
}
# Those whose rows the n:m pattern is defined on.
_PATTERNED = ("Dense", "Conv2D", "SeparableConv2D")


class Plan(NamedTuple):
    """Steps of training, and at which pruning begins and has reached its end."""

    total: int
    begin: int
    end: int
    frequency: int


def sparsify_source(inputs: Inputs, given: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass: `source` becomes model.keras with zeros, trained on `data`, taught by `teacher` or by itself.

    Settings are those of recipe.Sparsify. Raises RefusedError for a schedule that never begins, and for models that
    Keras 2 cannot stand in for.
    """
    started = time.monotonic()
    progress(0.0, "loading")
    settings = read_settings(given)
    source = load_source(inputs["source"])
    teacher = load_source(inputs["teacher"]) if "teacher" in inputs else source
    taught = lesson(source, teacher, inputs["data"], settings.tuning)
    plan = plan_of(settings, settings.tuning.total_steps(taught.train.number))
    found = counterpart(source)
    thin_dropout(found.model, settings.tuning.dropout)
    before = scorer(found.model, taught.check)()
    pruned, left = _wrapped(found, settings, plan)
    update = tfmot.sparsity.keras.UpdatePruningStep()
    update.set_model(pruned)
    update.on_train_begin()
    tuned = tune(pruned, taught, settings.tuning, _later(progress), Hooks(update.on_epoch_end, plan.end))
    give_back(found._replace(model=tfmot.sparsity.keras.strip_pruning(pruned)))
    source.save(out / SOURCE)
    content = (out / SOURCE).read_bytes()
    zeros = zeros_of(found, set(left))
    progress(1.0, f"{zeros['zeros']:.1%} of the weights are zero")
    return {
        **zeros,
        **_told(settings, plan, tuned, left),
        "accuracy_before": before,
        "bytes": len(content),
        "compressed_bytes": len(zlib.compress(content, 9)),
        "wall_s": time.monotonic() - started,
    }


def read_settings(given: dict[str, Any]) -> Sparsify:
    """Settings as a recipe gives them, checked."""
    try:
        settings = msgspec.convert(given, Sparsify)
    except msgspec.ValidationError as error:
        raise RefusedError(f"settings of sparsify: {error}") from error
    if settings.pattern is not None and not 0 < settings.pattern[0] < settings.pattern[1]:
        raise RefusedError(f"pattern {list(settings.pattern)} is not n of m with 0 < n < m, such as [2, 4]")
    if settings.schedule == "polynomial" and settings.initial > settings.final:
        raise RefusedError(f"initial {settings.initial} is above final {settings.final}; pruning goes upwards")
    return settings


def plan_of(settings: Sparsify, total: int) -> Plan:
    """The steps as they will be. Raises RefusedError for training that ends before pruning begins.

    tensorflow-model-optimization counts from 1 and prunes at `begin` and every `frequency` steps; so that its last
    time is at `end`, that is moved up to the next one.
    """
    begin = max(1, settings.begin)
    if total <= begin:
        raise RefusedError(
            f"training ends after {total} steps, pruning would begin at step {begin} and never happen; "
            "train for more epochs, in smaller batches, or begin earlier"
        )
    end = settings.end if settings.end >= 0 else begin + (total - begin) * 2 // 3
    if end < begin:
        raise RefusedError(f"pruning would end at step {end}, before it begins at step {begin}")
    frequency = min(settings.frequency, max(1, (end - begin) // 10)) if settings.end < 0 else settings.frequency
    return Plan(total, begin, begin + -(-(end - begin) // frequency) * frequency, frequency)


def zeros_of(found: Counterpart, left: set[str]) -> dict[str, Any]:
    """Shares of zeros: in all parameters, in the weights that were pruned, and by layer."""
    layers, every = {}, 0
    for pair in found.pairs:
        every += sum(int(np.size(value)) for value in pair.modern.get_weights())
        if pair.name not in left and (weights := _weights(pair.modern)):
            count = sum(weight.size for weight in weights)
            gone = sum(int((weight == 0).sum()) for weight in weights)
            layers[pair.name] = {"weights": count, "zeros": gone / count}
    pruned = sum(layer["weights"] for layer in layers.values())
    gone = sum(round(layer["weights"] * layer["zeros"]) for layer in layers.values())
    return {"parameters": every, "zeros": gone / max(1, every), "zeros_pruned": gone / max(1, pruned), "layers": layers}


def _wrapped(found: Counterpart, settings: Sparsify, plan: Plan) -> tuple[Any, list[str]]:
    """The model with its prunable layers wrapped, and the names of layers with weights that stay as they are."""
    kinds = _PATTERNED if settings.pattern else tuple(_WEIGHTS)
    chosen = {id(pair.legacy): pair for pair in found.pairs if type(pair.legacy).__name__ in kinds}
    if not chosen:
        has = ", ".join(sorted({type(pair.modern).__name__ for pair in found.pairs}))
        raise RefusedError(f"there is nothing to prune: {', '.join(kinds)} can be, this model has {has}")
    schedule = _schedule(settings, plan)

    def wrap(layer: Any) -> Any:
        if id(layer) not in chosen:
            return layer
        return tfmot.sparsity.keras.prune_low_magnitude(layer, schedule, sparsity_m_by_n=settings.pattern)

    model = tf_keras.models.clone_model(found.model, clone_function=wrap)
    return model, [pair.name for pair in found.pairs if id(pair.legacy) not in chosen]


def _schedule(settings: Sparsify, plan: Plan) -> Any:
    if settings.pattern is not None or settings.schedule == "constant":
        return tfmot.sparsity.keras.ConstantSparsity(settings.final, plan.begin, frequency=plan.frequency)
    return tfmot.sparsity.keras.PolynomialDecay(
        settings.initial, settings.final, plan.begin, max(plan.end, plan.begin + 1), frequency=plan.frequency
    )


def _weights(layer: Any) -> list[Any]:
    found = []
    for place in _WEIGHTS.get(type(layer).__name__, ()):
        value = layer
        for name in place.split("."):
            value = getattr(value, name)
        found.append(np.asarray(value))
    return found


def _told(settings: Sparsify, plan: Plan, tuned: Tuned, left: list[str]) -> dict[str, Any]:
    warnings = []
    if tuned.steps < plan.end and settings.pattern is None:
        warnings.append(f"training ended at step {tuned.steps}, before pruning did at step {plan.end}")
    return {
        **tuned._asdict(),
        "begin": plan.begin,
        "end": plan.end,
        "left_dense": left,
        "warnings": warnings,
    }


def _later(progress: Progress) -> Progress:
    return lambda done, detail: progress(0.1 + 0.85 * done, detail)
