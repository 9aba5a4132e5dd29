"""Accuracy, size and speed of pruned networks, and int8 against float: several seeds, all trained in this run.

The float model is trained by labels until its loss on the validation rows falls no more, under a rate that falls to
zero. "Budget" of the net from scratch: the pruned model's shapes with new weights are trained by labels for as many
steps of AdamW as pruning took between and after its rounds together, on the same rows in batches of the same size, from
the same rate falling to zero by one cosine, with the same weight decay; both keep the epoch with the least loss on the
validation rows. Test rows are looked at once, when everything is trained and converted.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.optimizer import latency
from tests.benchmarks.optimizer.jobs import outcomes
from tests.benchmarks.optimizer.outcome import Outcome
from tests.benchmarks.optimizer.spread import Spread, paired, spread
from tests.benchmarks.results import Figure, at_most

SEEDS = range(4)
FLOAT_BYTES = 4
MLP_LEFT, CNN_LEFT = 100_000, 10_000


def figures(folder: Path, quick: bool) -> list[Figure]:
    seeds = range(1) if quick else SEEDS
    made = outcomes(folder, [(kind, seed) for kind in ("cnn", "mlp") for seed in seeds], quick)
    cnns, mlps = ([one for one in made if one.kind == kind] for kind in ("cnn", "mlp"))
    return [
        *_sizes("mlp", mlps, MLP_LEFT, 0.3),
        _file_ratio(mlps),
        _latency_ratio(folder, mlps, quick),
        _gain("mlp", mlps, promised=False),
        *_sizes("cnn", cnns, CNN_LEFT, 1.0),
        _gain("cnn", cnns, promised=True),
        *_int8({"mlp": mlps, "cnn": cnns}),
    ]


def _sizes(kind: str, made: Sequence[Outcome], left: int, most: float) -> list[Figure]:
    floats, int8 = [one.big.accuracy_float for one in made], [one.small.accuracy_int8 for one in made]
    drop = paired(floats, int8)
    before, small = (statistics.fmean(column) for column in (floats, int8))
    after = max(one.after.parameters for one in made)
    size = f"{made[0].before.parameters:,} parameters to {after:,} at most; MACs to 1/{_least_ratio(made, 'macs'):.1f}"
    note = f"{drop.text}; float {before:.2f}, pruned int8 {small:.2f}"
    ratio = _least_ratio(made, "parameters")
    return [
        at_most(f"{kind}_drop_points", drop.mean, most, "points", note),
        Figure(f"{kind}_parameter_ratio", ratio, "x", f"<= {left:,} left", after <= left, size, always=True),
    ]


def _file_ratio(made: Sequence[Outcome]) -> Figure:
    floats = min(min(FLOAT_BYTES * one.before.parameters, one.big.bytes_float) for one in made)
    small = max(one.small.bytes_int8 for one in made)
    note = (
        f"4 bytes a parameter, or the float .tflite if that is smaller: {floats:,} bytes; pruned int8 .tflite {small:,}"
    )
    return Figure("mlp_file_ratio", floats / small, "x", ">= 36", floats / small >= 36, note)


def _latency_ratio(folder: Path, made: Sequence[Outcome], quick: bool) -> Figure:
    """By itself, once all training has ended."""
    found = []
    for one in made:
        files = [f"{one.kind}-{one.seed}-{name}.tflite" for name in ("float-float", "pruned-int8")]
        before, after = ((folder / file).read_bytes() for file in files)
        found.append(latency.paired(before, after, turns=5 if quick else 40, rows=50 if quick else 500))
    ratio = spread([each.ratio for each in found])
    times = "; ".join(f"{each.first_us:.0f} and {each.second_us:.1f} us" for each in found)
    note = f"{ratio.text}; a row, LiteRT, 1 thread, in turns, float and pruned int8: {times}"
    return Figure("mlp_latency_ratio", ratio.mean, "x", ">= 8", ratio.mean >= 8, note)


def _gain(kind: str, made: Sequence[Outcome], promised: bool) -> Figure:
    """Float against float."""
    scratch = [one.accuracy_scratch for one in made]
    gain = paired([one.small.accuracy_float for one in made], scratch)
    note = (
        f"{gain.text}; float pruned against its shapes from scratch ({statistics.fmean(scratch):.2f}), by labels, for "
        f"as many steps ({made[0].steps:,}) of the same optimizer and schedule"
    )
    promise, holds = ("> 0", gain.mean > 0) if promised else ("", None)
    return Figure(f"{kind}_scratch_gain_points", gain.mean, "points", promise, holds, note)


def _int8(made: Mapping[str, Sequence[Outcome]]) -> list[Figure]:
    models = {kind: [one.big for one in some] for kind, some in made.items()}
    models |= {f"pruned {kind}": [one.small for one in some] for kind, some in made.items()}
    drops = {
        name: paired([q.accuracy_float for q in some], [q.accuracy_int8 for q in some]) for name, some in models.items()
    }
    plain = {
        name: paired([q.accuracy_plain for q in some], [q.accuracy_int8 for q in some]) for name, some in models.items()
    }
    return [_worst("ptq_worst_drop_points", drops, 0.2), _worst("ptq_worst_behind_plain_points", plain, 0.1)]


def _worst(key: str, found: Mapping[str, Spread], most: float) -> Figure:
    note = "; ".join(f"{name} {each.text}" for name, each in found.items())
    return at_most(key, max(each.mean for each in found.values()), most, "points", note)


def _least_ratio(made: Sequence[Outcome], what: str) -> float:
    return min(float(getattr(one.before, what) / getattr(one.after, what)) for one in made)
