"""Which rows go into which split. Pure.

Rows are known by keys: equal keys, equal inputs. What is missing is cut by seed from what is there, in the shares
below; equal rows stay together, and the order in which rows come does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

WHOLE = ""
"""The name of rows that nobody has split."""
SHARES = {"train": 70, "calibration": 5, "validation": 10, "test": 15}
UNLABELLED = {"calibration": 50, "validation": 50}
# A split may share no row with those to its right: train, what is tuned and chosen by, and what judges.
_KEPT_FROM = {
    "train": ("calibration", "validation", "test"),
    "calibration": ("test",),
    "validation": ("test",),
    "test": (),
}


class Cut(NamedTuple):
    """What is to be made of the split `donor`: shares by name, in any unit."""

    donor: str
    shares: Mapping[str, int]


def plan(labelled: Mapping[str, bool]) -> Cut | None:
    """From the splits that are there, and whether each has labels, to the cut that gives the missing ones.

    Needed is validation, and test where there are labels. Raises ValueError, with a sentence, where nothing can be cut.
    """
    if WHOLE in labelled:
        return Cut(WHOLE, SHARES if labelled[WHOLE] else UNLABELLED)
    if "validation" not in labelled:
        donor = next((split for split in ("train", "calibration") if split in labelled), None)
        if donor is None:
            raise ValueError(
                "there are only rows of test, which judge at the end; give train, calibration or validation too"
            )
        tested = "test" in labelled or not labelled[donor]
        if donor == "calibration" and tested:
            return Cut(donor, UNLABELLED)
        wanted = {"calibration", "validation", "test"} - set(labelled) - ({"test"} if tested else set())
        return _from(donor, wanted)
    if "test" in labelled or not labelled["validation"]:
        return None
    return _from("train" if labelled.get("train") else "validation", {"test"})


def _from(donor: str, wanted: set[str]) -> Cut:
    return Cut(donor, {split: share for split, share in SHARES.items() if split == donor or split in wanted})


def cut(keys: Keys, shares: Mapping[str, int], seed: int) -> dict[str, Rows]:
    """Row numbers of each part, ascending. Equal keys go into one part; no part is empty.

    Raises ValueError where there are fewer different rows than parts.
    """
    _, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
    if len(counts) < len(shares):
        raise ValueError(
            f"{len(counts)} different rows cannot be split into {', '.join(shares)}; give more rows, or the splits"
        )
    order = np.random.default_rng(seed).permutation(len(counts))
    middles = np.cumsum(counts[order]) - counts[order] / 2
    bounds = np.cumsum(list(shares.values())) / sum(shares.values()) * len(keys)
    part = np.empty(len(counts), np.int64)
    part[order] = np.searchsorted(bounds[:-1], middles, side="right")
    _fill(part, len(shares))
    row_part = part[group.reshape(-1)]
    return {name: np.flatnonzero(row_part == at) for at, name in enumerate(shares)}


def _fill(part: Rows, parts: int) -> None:
    """Give every empty part one group of the largest."""
    for at in range(parts):
        sizes = np.bincount(part, minlength=parts)
        if sizes[at] == 0:
            part[np.flatnonzero(part == sizes.argmax())[0]] = at


def disjoint(keys: Mapping[str, Keys]) -> dict[str, Mask]:
    """Per split the rows that stay, so that train, calibration with validation, and test share none; test is whole."""
    kept = {}
    for split, own in keys.items():
        others = [keys[other] for other in _KEPT_FROM[split] if other in keys]
        kept[split] = ~np.isin(own, np.concatenate(others)) if others else np.ones(len(own), bool)
    return kept
