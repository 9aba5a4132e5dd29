"""The environment of the other servers."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from tests.benchmarks import environments
from tests.benchmarks.environments import EnvironmentMissing as EnvironmentMissing

# What was newest when this was written.
_SERVERS = ("mlserver==1.7.1", "litserve==0.2.19")


def python() -> Path:
    """Its interpreter. It has the LiteRT that we have, so that all servers run the same kernels."""
    return environments.python("servers", (*_SERVERS, f"ai-edge-litert=={version('ai-edge-litert')}"))
