"""PURE: is a version that has just begun to serve as good as the one before? Judged by its live answers.

Chance is given its due, because a roll back for nothing costs a good version:

- *Faulty answers* count from the third on, and only above the share that is tolerated and that the version before had.
- *p95*: if the true p95 were within the limit, one answer in twenty would be slower. The binomial tail says whether as
  many as were seen can be chance. The limit is a multiple of the former p95, and at least 20 ms above it.
- *Drift*: the classes of the answers against those of the version before, by Pearson's chi-squared test of two samples
  (approximated after Wilson and Hilferty, 1931) and only if a large share moved: a fixed distance alone fires on small
  samples. Mean confidence is not looked at: it says little. Outputs without classes are compared by their means.
  People may ask something else than a minute ago; no test tells that from a broken version, so the default is wide.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection
from math import comb, erf, fsum, pi, sqrt

import msgspec

from agent.contract.manifest import Watch
from agent.settings import Limits

REMEMBERED = 256
"""Answers of a version that are compared."""
_EVERY = 20
"""Slowness and drift are looked at after so many answers each."""
_CHANCE = 1e-3
_CHANCE_OF_FAULTS = 0.1
"""Greater: a fault is somebody's lost answer, and three of twenty are enough by default."""
_DRIFT_CHANCE_Z = 3.72
"""Standard normal quantile of a chance of 1 in 10,000."""
_SLOWER_MS = 20.0
_SAME = 0.9
"""Where more answers than this share were the same class before, drift is not looked at."""


class Seen(msgspec.Struct, frozen=True):
    """What one answer was like. `classes`: top-1 of its rows; `level`: mean of an output that has no classes."""

    fault: bool = False
    row_ms: float | None = None
    classes: tuple[int, ...] = ()
    level: float | None = None


class Tally:
    """What a version's answers were like: all counted, the last ones remembered."""

    __slots__ = ("answers", "classes", "crashes", "faults", "levels", "row_ms")

    def __init__(self) -> None:
        self.answers = self.faults = self.crashes = 0
        self.row_ms: deque[float] = deque(maxlen=REMEMBERED)
        self.classes: deque[int] = deque(maxlen=REMEMBERED)
        self.levels: deque[float] = deque(maxlen=REMEMBERED)

    def take(self, seen: Seen) -> None:
        """One more answer."""
        self.answers += 1
        self.faults += seen.fault
        self.classes.extend(seen.classes)
        if seen.row_ms is not None:
            self.row_ms.append(seen.row_ms)
        if seen.level is not None:
            self.levels.append(seen.level)


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a version under watch; see `agent.contract.manifest.Watch`."""

    answers: int
    seconds: float
    failures: int
    error_rate: float
    p95_ratio: float
    p95_ms: float
    drift: float
    crashes: int


def terms(wanted: Watch, limits: Limits, rollout: Watch | None = None) -> Terms:
    """The rollout's terms, the manifest's where it leaves them open, and the agent's own where both do."""
    own = Terms(
        answers=limits.watch_answers,
        seconds=limits.watch_s,
        failures=limits.watch_failures,
        error_rate=limits.watch_error_rate,
        p95_ratio=limits.watch_p95_ratio,
        p95_ms=limits.watch_p95_ms,
        drift=limits.watch_drift,
        crashes=limits.watch_crashes,
    )
    told = [msgspec.structs.asdict(each).items() for each in (wanted, rollout) if each is not None]
    return msgspec.structs.replace(own, **{name: value for each in told for name, value in each if value is not None})


def judge(asked: Terms, before: Tally, now: Tally, *, last: bool = False) -> str:
    """Why the version must go; empty if it may stay. `last`: the watch ends, everything is looked at."""
    reason = _crash_loop(asked, now) or _errors(asked, before, now)
    if reason or not (last or now.answers % _EVERY == 0):
        return reason
    return _slowness(asked, before, now) or _drift(asked, before, now)


def p95(values: Collection[float]) -> float | None:
    """By nearest rank; None of nothing."""
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))] if values else None


def drift(before: Tally, now: Tally) -> float | None:
    """How far the answers moved, 0 to 1; None where there is nothing to compare.

    Classes: the share that would have to change its class (total variation). Means: the same of two normal
    distributions so far apart.
    """
    if before.classes and now.classes:
        was, is_ = Counter(before.classes), Counter(now.classes)
        shares = [is_[c] / len(now.classes) - was[c] / len(before.classes) for c in was.keys() | is_.keys()]
        return fsum(map(abs, shares)) / 2
    if len(before.levels) > 1 and now.levels:
        apart, spread = abs(_mean(now.levels) - _mean(before.levels)), _deviation(before.levels)
        return erf(apart / spread / 2 / sqrt(2)) if spread > 0 else float(apart > 0)
    return None


def chance_of(hits: int, of: int, share: float) -> float:
    """Probability of at least `hits` in `of` independent draws that each hit with probability `share`."""
    return fsum(comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(hits, of + 1))


def _crash_loop(asked: Terms, now: Tally) -> str:
    if now.crashes < asked.crashes:
        return ""
    return f"its worker ended {'once' if now.crashes == 1 else f'{now.crashes} times'} by itself"


def _errors(asked: Terms, before: Tally, now: Tally) -> str:
    tolerated = asked.error_rate + (before.faults / before.answers if before.answers else 0.0)
    if now.faults < asked.failures or chance_of(now.faults, now.answers, min(1.0, tolerated)) > _CHANCE_OF_FAULTS:
        return ""
    return f"{now.faults} of {now.answers} answers were faults, {tolerated:.1%} are tolerated"


def _slowness(asked: Terms, before: Tally, now: Tally) -> str:
    limits = [asked.p95_ms] if asked.p95_ms > 0 else []
    was = p95(before.row_ms) if len(before.row_ms) >= _EVERY else None
    if was is not None and asked.p95_ratio > 0:
        limits.append(max(asked.p95_ratio * was, was + _SLOWER_MS))
    if not limits:
        return ""
    limit = min(limits)
    slow = sum(ms > limit for ms in now.row_ms)
    if not slow or chance_of(slow, len(now.row_ms), 0.05) > _CHANCE:
        return ""
    former = f", {was:.2f} ms before" if was is not None else ""
    return f"{slow} of {len(now.row_ms)} answers took over {limit:.2f} ms a row (p95 {p95(now.row_ms):.2f} ms{former})"


def _drift(asked: Terms, before: Tally, now: Tally) -> str:
    moved = drift(before, now)
    if _monotonous(before.classes):
        return ""
    if moved is None or moved - _noise(before, now) <= asked.drift or not _beyond_chance(before, now):
        return ""
    what = "classes are given" if now.classes else "values are answered"
    return f"other {what} than by the version before: {moved:.0%} moved, {asked.drift:.0%} are tolerated"


def _monotonous(classes: Collection[int]) -> bool:
    """Nearly always the same answer: a picture that stands still, a check of health. It tells nothing of a version."""
    return bool(classes) and max(Counter(classes).values()) > _SAME * len(classes)


def _noise(before: Tally, now: Tally) -> float:
    """How far two samples of the same classes lie apart on average (half-normal means); 0 without classes."""
    if not (before.classes and now.classes):
        return 0.0
    both = Counter(before.classes) + Counter(now.classes)
    apart = 1 / len(before.classes) + 1 / len(now.classes)
    shares = [count / both.total() for count in both.values()]
    return fsum(sqrt(share * (1 - share) * apart) for share in shares) / sqrt(2 * pi)


def _beyond_chance(before: Tally, now: Tally) -> bool:
    if before.classes and now.classes:
        return _chi_squared_z(Counter(before.classes), Counter(now.classes)) > _DRIFT_CHANCE_Z
    count = min(len(before.levels), len(now.levels))
    if count < _EVERY:
        return False
    error = sqrt(_deviation(before.levels) ** 2 / len(before.levels) + _deviation(now.levels) ** 2 / len(now.levels))
    return abs(_mean(now.levels) - _mean(before.levels)) > _DRIFT_CHANCE_Z * error


def _chi_squared_z(was: Counter[int], is_: Counter[int]) -> float:
    """Pearson's statistic of two samples as a standard normal one (Wilson and Hilferty)."""
    of_was, of_is = was.total(), is_.total()
    both = was + is_
    freedom = len(both) - 1
    if freedom == 0:
        return 0.0
    statistic = fsum(
        (sample[c] - size * both[c] / (of_was + of_is)) ** 2 / (size * both[c] / (of_was + of_is))
        for sample, size in ((was, of_was), (is_, of_is))
        for c in both
    )
    spread = 2 / (9 * freedom)
    return float(((statistic / freedom) ** (1 / 3) - (1 - spread)) / sqrt(spread))


def _mean(values: Collection[float]) -> float:
    return fsum(values) / len(values)


def _deviation(values: Collection[float]) -> float:
    """Of a sample; 0 of one value."""
    if len(values) < 2:
        return 0.0
    mean = _mean(values)
    return sqrt(fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
