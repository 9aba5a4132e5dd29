"""What a run starts with, once its source is opened and its data in order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from optimizer.kinds import Opened


class Source(NamedTuple):
    """What all candidates are made from and measured against."""

    kind: Opened
    path: Path
    data: Path
    inspected: Path
    """Folder of the source's outputs and of the acceptance set."""
    facts: Mapping[str, Any]
    """What `inspect` says of the source."""
    trainable: bool
    """There are rows to train on, and a model to train."""
    tested: bool
    """There are labelled rows of test."""
