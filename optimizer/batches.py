"""Many steps of training in one call into TensorFlow, which costs a quarter of a small model's step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from optimizer.data import Array
from optimizer.objective import Taught

_AT_ONCE, _BYTES = 16, 32 << 20
"""Steps in one call, and what their rows may take."""


def in_one_call(learn: Callable[[Taught], None], batch: int) -> Callable[[Taught], Any]:
    """`learn` for every `batch` of the rows that it is given, one after the other."""

    def several(chunk: Taught) -> None:
        number = tf.shape(chunk.inputs[0])[0]

        def step(at: Any) -> Any:
            learn(chunk.map(lambda part: part[at : at + batch]))
            return at + batch

        tf.while_loop(lambda at: at < number, step, [0], parallel_iterations=1)

    found: Callable[[Taught], Any] = tf.function(several, autograph=False, reduce_retracing=True)
    return found


def chunks(rows: Taught, order: Array, batch: int) -> Iterator[tuple[Taught, int]]:
    """The rows in this order, as many as one call takes, and how many steps are done with them."""
    row = sum(part.nbytes // len(part) for part in rows.inputs)
    size = max(1, min(_AT_ONCE, _BYTES // max(1, row * batch))) * batch
    for at in range(0, len(order), size):
        yield rows.taken(order[at : at + size]), -(-min(at + size, len(order)) // batch)
