"""How far something is, as people read it. Pure."""

from __future__ import annotations


def step_of(step: str, profile: str) -> str:
    return f"{step} for {profile}" if profile else step


def detail_of(detail: str, left_s: float | None) -> str:
    """What a step is at, with the time that the whole is going to take still, roughly."""
    if left_s is None or left_s < 1:
        return detail
    seconds = round(left_s) if left_s < 20 else 10 * round(left_s / 10)
    left = f"about {seconds} s left" if seconds < 120 else f"about {round(seconds / 60)} min left"
    return f"{detail}, {left}" if detail else left
