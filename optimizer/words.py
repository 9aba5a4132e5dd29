"""Figures and verdicts as people read them. None, which is "not measured", is an en dash."""

from __future__ import annotations

from optimizer.report import GateResult

NONE = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_TIMES = "\N{MULTIPLICATION SIGN}"


def count(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"


def size(value: float | None) -> str:
    """Bytes, in powers of a thousand."""
    if value is None:
        return NONE
    for unit, scale in _UNITS:
        if value >= scale:
            return f"{_digits(value / scale)} {unit}"
    return f"{value:,.0f} bytes"


def tick(value: float) -> str:
    """Bytes beside an axis, where they are round."""
    unit, scale = next(((unit, scale) for unit, scale in _UNITS if value >= scale), ("bytes", 1.0))
    return f"{value / scale:g} {unit}"


def share(value: float | None) -> str:
    return NONE if value is None else f"{value * 100:.2f} %"


def points(value: float | None) -> str:
    """A difference of two shares, with its sign, in percentage points."""
    if value is None:
        return NONE
    rounded = round(value * 100, 2)
    sign = "" if rounded == 0 else "+" if rounded > 0 else _MINUS
    return f"{sign}{abs(rounded):.2f} points"


def milliseconds(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.3f} ms" if value < 9.9995 else f"{_digits(value)} ms"


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    if value < 60:
        return f"{_digits(value)} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def megabytes(value: float | None) -> str:
    """`value` in MB."""
    return NONE if value is None else size(value * 1e6)


def decibels(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f} dB"


def error(value: float | None) -> str:
    return NONE if value is None else f"{value:.3g}"


def times(before: float | None, after: float | None, less: str, more: str) -> str:
    """ "13.4 x smaller"; "" where one of both is not known or nothing."""
    if not before or not after:
        return ""
    if 0.98 < before / after < 1.02:
        return "the same"
    factor, word = (before / after, less) if before > after else (after / before, more)
    return f"{factor:.{1 if factor >= 1.95 else 2}f} {_TIMES} {word}"


def verdict(gate: GateResult, where: str) -> str:
    """What the gate found, in plain words. `where`: the split that it judged on."""
    start = "Passed the gate" if gate.passed else "Did not pass the gate"
    if gate.loss is None:
        return f"{start}, judged without labels: by how far its outputs are from the float model's."
    moved = "loses" if gate.loss > 0 else "gains" if gate.loss < 0 else "neither gains nor loses"
    amount = f" {abs(gate.loss) * 100:.2f} points" if gate.loss else ""
    return (
        f"{start}: on {gate.rows:,} rows of {where} it {moved}{amount} of accuracy; up to {gate.margin * 100:.2f} "
        f"may be lost.{_bound(gate)}"
    )


def _bound(gate: GateResult) -> str:
    if gate.bound_95 is None:
        return ""
    most = f"{gate.bound_95 * 100:.2f} points".replace("-", _MINUS)
    rule = "this strict gate asks that of it too" if gate.strict else "shown, and not asked for: the gate is not strict"
    return f" With 95 % certainty the loss is at most {most} ({rule})."


def _digits(value: float) -> str:
    """Three digits that matter, more only before the point."""
    return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"
