"""PURE: does a candidate answer as the serving version does? A sequential test, so that a broken one is found soon.

A. Wald, "Sequential Tests of Statistical Hypotheses", Annals of Mathematical Statistics 16 (1945): after every
comparison the log likelihood ratio of "a share `good` agrees" to "a share `bad` agrees" is held against two bounds.
"""

from __future__ import annotations

from math import log
from typing import Literal

import msgspec

Verdict = Literal["go on", "agrees", "differs"]
_EDGE = 1e-6


class Test(msgspec.Struct, frozen=True, kw_only=True):
    """`wrongly_refused`: chance that a good candidate is; `wrongly_taken`: that a bad one is."""

    good: float
    bad: float
    wrongly_refused: float = 0.01
    wrongly_taken: float = 0.01


def verdict(test: Test, agreed: int, compared: int) -> Verdict:
    """After so many comparisons."""
    ratio = evidence(test, agreed, compared)
    if ratio >= log((1 - test.wrongly_refused) / test.wrongly_taken):
        return "agrees"
    if ratio <= log(test.wrongly_refused / (1 - test.wrongly_taken)):
        return "differs"
    return "go on"


def leaning(test: Test, agreed: int, compared: int) -> Verdict:
    """Where no more comparisons may be made: what is likelier; nothing speaks against one that was never compared."""
    return "agrees" if evidence(test, agreed, compared) >= 0 else "differs"


def evidence(test: Test, agreed: int, compared: int) -> float:
    """The log likelihood ratio: above 0 where `good` is likelier."""
    good, bad = (min(1 - _EDGE, max(_EDGE, share)) for share in (test.good, test.bad))
    return agreed * log(good / bad) + (compared - agreed) * log((1 - good) / (1 - bad))
