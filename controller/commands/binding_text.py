"""Bindings as text for people. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.binding_replies import Binding

HEADER = ("binding", "model", "topic", "format", "device", "state", "received", "predicted", "dropped", "failed", "")


def rows(binding: Binding) -> list[tuple[str, ...]]:
    """One line per device that it concerns."""
    what = (binding.name, binding.model, binding.topic, binding.format)
    if not binding.states:
        return [(*what, "-", f"no device is to run {binding.model}", "", "", "", "", "")]
    return [
        (*what, s.device, s.state, f"{s.received:,}", f"{s.predicted:,}", f"{s.dropped:,}", f"{s.failed:,}", s.reason)
        for s in binding.states
    ]
