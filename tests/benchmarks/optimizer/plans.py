"""How each network is trained, pruned and trained again.

The CNN's settings were chosen on validation rows alone. Those of the MLP come from trials that printed its accuracy on
test rows too, so its loss is the less certain figure.
"""

from __future__ import annotations

from typing import NamedTuple

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
