"""The edge runtime. Imports only what a Raspberry Pi can carry.

`agent.Runtime` is for programs that run an artifact in their own process; it is imported when it is first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.inprocess import Runtime as Runtime

VERSION = "0.1.0"
"""The distribution's version; a constant because reading it from the installed metadata costs every start 15 ms."""


def __getattr__(name: str) -> object:
    """numpy and the interpreter cost every start of the agent; only who asks for `Runtime` pays."""
    if name == "Runtime":
        from agent.inprocess import Runtime

        return Runtime
    raise AttributeError(f"module 'agent' has no attribute {name!r}")
