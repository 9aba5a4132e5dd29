"""Ballots and how they are counted, row by row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controller.reducers.face import Array


@dataclass(frozen=True)
class Ballot:
    """A device's answers for the rows of a shard. `sure`: its probability of the label, in units of 2^-40. `prints`:
    of the outputs' bits."""

    device: str
    artifact: str
    last: int
    labels: Array
    sure: Array
    prints: Array


@dataclass(frozen=True)
class Count:
    """By row: the elected class, how many voted for it, how many voted, and how sure that makes."""

    labels: Array
    votes_for: Array
    votes: int
    confidence: Array


def distinct(ballots: Sequence[Ballot]) -> list[Ballot]:
    """One ballot a device, in the order of names: who computed twice because others were lost has one vote."""
    return list({ballot.device: ballot for ballot in sorted(ballots, key=lambda b: b.device, reverse=True)}.values())[
        ::-1
    ]


def count(ballots: Sequence[Ballot], classes: int, reliability: Mapping[str, float] | None) -> Count:
    """Elect a class for each row. Of equal ones the one whose voters were surer wins, then the lower number.

    `reliability`: by device, how often it is right; None gives everybody the same weight. `ballots` must not be empty.
    """
    labels = np.stack([ballot.labels for ballot in ballots])
    sure = np.stack([ballot.sure for ballot in ballots])
    same = labels[:, np.newaxis] == labels[np.newaxis]
    votes, sureness = same.sum(axis=1), (same * sure[np.newaxis]).sum(axis=1)
    weights = np.array([_weight(reliability[b.device], classes) if reliability else 1.0 for b in ballots])
    score = np.zeros(labels.shape)
    for voter, weight in enumerate(weights):
        score += same[:, voter] * weight
    place = np.zeros(labels.shape[1], np.int64)
    columns = np.arange(labels.shape[1])
    for each in range(1, len(ballots)):
        place = np.where(_beats(each, place, score, sureness, labels), each, place)
    won = score[place, columns]
    if reliability is None:
        confidence = won / len(ballots)
    else:
        confidence = _posterior(score, won, same, classes)
    return Count(labels[place, columns], votes[place, columns], len(ballots), confidence)


def fingerprints(outputs: Mapping[str, Array]) -> Array:
    """(rows,) uint64 that differ where bits of the outputs do, but for one chance in 2^64."""
    total: Array | None = None
    for number, name in enumerate(sorted(outputs)):
        array = np.ascontiguousarray(outputs[name], np.float32)
        words = array.reshape(len(array), -1).view(np.uint32).astype(np.uint64)
        # Odd factors from a fixed series; the sum wraps around.
        factors = np.random.default_rng(number).integers(0, 2**64, words.shape[1], np.uint64) | np.uint64(1)
        mixed = (words * factors).sum(axis=1, dtype=np.uint64)
        total = mixed if total is None else total ^ mixed
    assert total is not None
    return total


def _weight(right: float, classes: int) -> float:
    """The logarithm of how much likelier the named class becomes; one who is wrong more often than by chance counts
    for nothing rather than against."""
    return max(0.0, math.log(right * (classes - 1) / (1 - right)))


def _beats(each: int, place: Array, score: Array, sureness: Array, labels: Array) -> Array:
    columns = np.arange(labels.shape[1])
    tied = score[each] == score[place, columns]
    surer = sureness[each] > sureness[place, columns]
    as_sure = sureness[each] == sureness[place, columns]
    better: Array = (score[each] > score[place, columns]) | (
        tied & (surer | (as_sure & (labels[each] < labels[place, columns])))
    )
    return better


def _posterior(score: Array, won: Array, same: Array, classes: int) -> Array:
    """Of the elected class, all classes being as likely before the vote."""
    # Each class is counted once: by the first who named it.
    first = np.array([~same[each, :each].any(axis=0) for each in range(len(score))])
    named = (first * np.exp(score - won)).sum(axis=0)
    confidence: Array = 1 / (named + (classes - first.sum(axis=0)) * np.exp(-won))
    return confidence
