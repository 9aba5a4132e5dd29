"""What a job asks of its model: what rows must look like, and how many fit a message."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from agent.contract.messages import MAX_INLINE
from agent.contract.tensors import TensorSpec
from controller.job_inputs.wanted import Wanted
from controller.records import Artifact, Version


def most_rows(row_bytes: int, outputs: Sequence[TensorSpec]) -> int:
    """How many rows fit into one message, both as input (`row_bytes` each) and as float32 output."""
    out_bytes = sum(4 * int(np.prod(spec.shape, dtype=np.int64)) for spec in outputs)
    # Some room for names and shapes.
    return max(1, (MAX_INLINE - 2048) // max(1, row_bytes, out_bytes))


def wanted_of(version: Version, artifact: Artifact) -> Wanted:
    """What the rows of a job must be."""
    return Wanted(inputs_of(artifact), version.labels, version.preprocessing)


def inputs_of(artifact: Artifact) -> tuple[TensorSpec, ...]:
    return msgspec.convert(artifact.report["inputs"], tuple[TensorSpec, ...])


def outputs_of(artifact: Artifact) -> tuple[TensorSpec, ...]:
    return msgspec.convert(artifact.report["outputs"], tuple[TensorSpec, ...])
