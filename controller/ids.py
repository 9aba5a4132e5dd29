"""PURE: ids of requests, in the order in which they were given: what is written last lies at the end of an index."""

from __future__ import annotations

from collections.abc import Callable

_CHANCE_BITS = 12


class Ordered:
    """`request-0006…`: the microseconds since 1970 and 12 bits of chance, in 16 hex digits, which last until 2112.
    Always greater than the one before, whatever the clock does."""

    def __init__(self, kind: str, now_ns: Callable[[], int], draw_bits: Callable[[int], int]) -> None:
        self._kind = kind
        self._now_ns = now_ns
        self._draw_bits = draw_bits
        self._last = 0

    def __call__(self) -> str:
        now = (self._now_ns() // 1000 << _CHANCE_BITS) | self._draw_bits(_CHANCE_BITS)
        self._last = max(self._last + 1, now)
        return f"{self._kind}-{self._last:016x}"
