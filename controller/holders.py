"""PURE: which shards go first to which device, because it holds their rows already."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping


class Holders:
    """Each device's shards as a stack. The one on top goes to it first; those at the bottom are what others take from
    it when they have nothing left: so no two devices meet before the end."""

    def __init__(self, near: Mapping[int, Collection[str]] | None = None) -> None:
        """`near`: by shard, the devices that hold its rows."""
        self._stacks: dict[str, list[int]] = {}
        for number in sorted(near or {}):
            for device in (near or {})[number]:
                self._stacks.setdefault(device, []).append(number)
        self._held = frozenset(near or {})

    def is_held(self, shard: int) -> bool:
        """Does any device hold its rows?"""
        return shard in self._held

    def take(self, device: str, may_have: Callable[[str, int], bool]) -> int | None:
        """The next shard that this device may have. What is passed over is any device's from then on."""
        stack = self._stacks.get(device, [])
        while stack:
            number = stack.pop()
            if may_have(device, number):
                return number
        return None
