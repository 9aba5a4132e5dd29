"""The two networks and how each is trained, pruned and trained again. Chosen on validation rows alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import msgspec

from optimizer.prune.settings import Least, Pruning
from optimizer.tuning import Tuning

NEVER = 10_000
"""Of patience: training goes to its end, so that steps can be counted before."""


class Plan(NamedTuple):
    """`teacher`: how the float model is trained, by labels; `pruning`: how it becomes small."""

    teacher: Tuning
    pruning: Pruning


PLANS = {
    "mlp": Plan(
        Tuning(epochs=20, batch=128, rate=2e-3, patience=NEVER),
        Pruning(
            budget=0.1,
            rounds=3,
            least=Least(10),
            between=Tuning(epochs=2, batch=128, rate=1e-3, patience=NEVER, dropout=0.0),
            after=Tuning(
                epochs=40, batch=128, rate=3e-3, decay=1e-3, temperature=2.0, patience=NEVER, dropout=0.0
            ),
        ),
    ),
    "cnn": Plan(
        Tuning(epochs=12, batch=128, rate=4e-3, decay=5e-3, patience=NEVER),
        Pruning(
            budget=0.1,
            rounds=2,
            rows=1024,
            least=Least(6),
            between=Tuning(epochs=1, batch=64, rate=2e-3, temperature=2.0, patience=NEVER, dropout=0.0),
            after=Tuning(
                epochs=15, batch=64, rate=6e-3, decay=1e-3, temperature=2.0, patience=NEVER, dropout=0.0
            ),
        ),
    ),
}  # fmt: skip


def plan_of(kind: str, seed: int, quick: bool) -> Plan:
    """The plan of "mlp" or "cnn" by that seed; a quick one trains for a few steps."""
    teacher, pruning = PLANS[kind]
    replace = msgspec.structs.replace
    if quick:
        teacher = replace(teacher, epochs=3, batch=32)
        pruning = replace(
            pruning,
            rounds=2,
            rows=256,
            between=replace(pruning.between, epochs=1, batch=32),
            after=replace(pruning.after, epochs=3, batch=32),
        )
    between, after = replace(pruning.between, seed=seed), replace(pruning.after, seed=seed)
    return Plan(replace(teacher, seed=seed), replace(pruning, between=between, after=after))


def epochs_of(pruning: Pruning) -> int:
    """All training of pruning: between the rounds, and after the last."""
    return (pruning.rounds - 1) * pruning.between.epochs + pruning.after.epochs


def net(kind: str, quick: bool) -> Any:
    """The untrained network, with softmax; a quick one's BatchNorm forgets sooner, as it sees few batches."""
    return mlp() if kind == "mlp" else cnn(0.9 if quick else 0.99)


def mlp() -> Any:
    """784-800-400-10 with dropout: 952,410 parameters."""
    inputs = hidden = keras.Input((784,), name="pixels")
    for units in (800, 400):
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
        hidden = keras.layers.Dropout(0.3)(hidden)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="scores")(hidden))


def cnn(momentum: float) -> Any:
    """Four 3x3 convolutions of 16 to 128 channels with BatchNorm, the mean of all places: 99,162 parameters."""
    inputs = hidden = keras.Input((28, 28, 1), name="picture")
    for at, filters in enumerate((16, 32, 64, 128)):
        hidden = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(hidden)
        hidden = keras.layers.BatchNormalization(momentum=momentum)(hidden)
        hidden = keras.layers.ReLU()(hidden)
        if at < 3:
            hidden = keras.layers.MaxPooling2D(padding="same")(hidden)
    hidden = keras.layers.Dropout(0.3)(keras.layers.GlobalAveragePooling2D()(hidden))
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="scores")(hidden))
