"""How much of every group goes, so that a model fits a budget and every group pays the same in quality. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

from optimizer.errors import RefusedError

Curve = Sequence[tuple[float, float]]
"""Points (ratio removed, what is lost), ratios rising from above 0 to at most 1."""
Ratios = dict[str, float]

_HALVINGS = 50


class BudgetError(RefusedError):
    """A budget that the model cannot reach."""


def choose(curves: Mapping[str, Curve], cost: Callable[[Ratios], float], budget: float) -> Ratios:
    """The smallest ratios by group whose `cost` is at most `budget`.

    One loss is tolerated for all groups, and each is cut as far as its measured curve allows: the sensitivity scheme
    of Han et al. (arXiv 1506.02626) and Li et al. (arXiv 1608.08710) with the threshold found by bisection. `cost`
    must not rise with any ratio. Raises BudgetError where the largest measured ratios still cost more.
    """
    if cost(dict.fromkeys(curves, 0.0)) <= budget:
        return dict.fromkeys(curves, 0.0)
    low, high = 0.0, max((lost for curve in curves.values() for _, lost in curve), default=0.0)
    if high <= 0 or cost(_at(curves, low)) <= budget:
        return _shared(curves, cost, budget, low)
    if (least := cost(_at(curves, high))) > budget:
        raise BudgetError(f"pruning reaches {least:,.0f}, not {budget:,.0f}: give a larger budget or a smaller model")
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(_at(curves, middle)) <= budget else (middle, high)
    return _at(curves, high)


def allowed(curve: Curve, tolerated: float) -> float:
    """The largest ratio at which a group loses at most `tolerated`, between measured points by a straight line.

    A curve that falls again is read as if it did not: what was lost at a smaller ratio is lost.
    """
    losses = list(accumulate((max(0.0, lost) for _, lost in curve), max))
    before, lost_before = 0.0, 0.0
    for (ratio, _), lost in zip(curve, losses, strict=True):
        if lost > tolerated:
            return before + (ratio - before) * (tolerated - lost_before) / (lost - lost_before)
        before, lost_before = ratio, lost
    return before


def _at(curves: Mapping[str, Curve], tolerated: float) -> Ratios:
    return {name: allowed(curve, tolerated) for name, curve in curves.items()}


def _shared(curves: Mapping[str, Curve], cost: Callable[[Ratios], float], budget: float, tolerated: float) -> Ratios:
    """Where more can go without any loss than must: an equal share of what each group could lose."""
    most = _at(curves, tolerated)

    def at(share: float) -> Ratios:
        return {name: ratio * share for name, ratio in most.items()}

    if (least := cost(at(1.0))) > budget:
        raise BudgetError(f"pruning reaches {least:,.0f}, not {budget:,.0f}: give a larger budget or a smaller model")
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(at(middle)) <= budget else (middle, high)
    return at(high)
