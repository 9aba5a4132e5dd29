"""Labels of channels: which channels of which tensors are one and must go together.

Every channel that a layer makes is an atom. A tensor is labelled by the atoms along its last axis: passing on keeps
the labels, concatenating strings them together, flattening repeats them, adding ties atom to atom. What is tied is
one class: the idea of the dependency graph of Fang et al., "DepGraph: Towards Any Structural Pruning" (arXiv
2301.12900), kept per channel, so that offsets and repeats need no bookkeeping.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
"""Atoms (later: classes) along one axis."""


class Fixed(NamedTuple):
    """Atoms that must stay, where and why."""

    labels: Labels
    path: str
    reason: str


class Atoms:
    """A disjoint-set forest over atoms, with those that must stay."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self.fixed: list[Fixed] = []

    def fresh(self, count: int) -> Labels:
        first = len(self._parent)
        self._parent += range(first, first + count)
        return np.arange(first, first + count, dtype=np.int64)

    def tie(self, a: Labels, b: Labels) -> None:
        """Make `a[i]` and `b[i]` one, for every i; both of one length."""
        pairs = np.stack([a, b], 1)
        for left, right in np.unique(pairs[a != b], axis=0).tolist():
            self._parent[self._root(left)] = self._root(right)

    def fix(self, labels: Labels, path: str, reason: str) -> None:
        self.fixed.append(Fixed(labels, path, reason))

    def classes(self) -> Labels:
        """The class of every atom: 0, 1, ... in the order in which their first atoms were made."""
        roots = np.array([self._root(atom) for atom in range(len(self._parent))], np.int64)
        _, first, inverse = np.unique(roots, return_index=True, return_inverse=True)
        order: Any = np.empty(len(first), np.int64)
        order[np.argsort(first)] = np.arange(len(first))
        found: Labels = order[inverse.reshape(-1)]
        return found

    def _root(self, atom: int) -> int:
        parent = self._parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom
