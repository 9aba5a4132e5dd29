"""PURE: which path asks for what."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

Kind = Literal[
    "server", "live", "ready", "model", "model ready", "config", "infer", "stats", "all stats", "index", "load",
    "unload",
]  # fmt: skip


class Route(NamedTuple):
    kind: Kind
    model: str = ""
    version: str = ""
    """The one that is asked for; empty for the one that serves."""

    @property
    def method(self) -> str:
        return "POST" if self.kind in ("infer", "index", "load", "unload") else "GET"


_FIXED: dict[str, Kind] = {
    "/v2": "server",
    "/v2/health/live": "live",
    "/v2/health/ready": "ready",
    "/v2/models/stats": "all stats",
    "/v2/repository/index": "index",
}
_OF_A_MODEL: dict[str, Kind] = {
    "": "model",
    "ready": "model ready",
    "config": "config",
    "stats": "stats",
    "infer": "infer",
}
_OF_THE_REPOSITORY: dict[str, Kind] = {"load": "load", "unload": "unload"}


@lru_cache(256)
def find(path: str) -> Route | None:
    """None: nothing is there."""
    if path in _FIXED:
        return Route(_FIXED[path])
    match path.split("/"):
        case ["", "v2", "models", model, *rest] if model:
            version = rest[1] if len(rest) > 1 and rest[0] == "versions" and rest[1] else ""
            kind = _OF_A_MODEL.get("/".join(rest[2:] if version else rest))
            return Route(kind, model, version) if kind else None
        case ["", "v2", "repository", "models", model, verb] if model and verb in _OF_THE_REPOSITORY:
            return Route(_OF_THE_REPOSITORY[verb], model)
    return None
