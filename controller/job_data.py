"""What a job asks of its model: what rows must look like, and how many fit a message."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from agent.contract.messages import MAX_INLINE
from agent.contract.tensors import TensorSpec
from controller.job_inputs.wanted import Wanted
from controller.records import Artifact, Version

# Room for names and shapes.
_ABOUT = 2048


def most_rows(row_bytes: int, outputs: Sequence[TensorSpec], blob_bytes: int) -> int:
    """How many rows one shard may have: as inputs (`row_bytes` each) they fit a blob of `blob_bytes`, as float32
    outputs one message."""
    out_bytes = sum(4 * int(np.prod(spec.shape, dtype=np.int64)) for spec in outputs)
    by_output = (MAX_INLINE - _ABOUT) // max(1, out_bytes)
    return max(1, min(by_output, (blob_bytes - _ABOUT) // max(1, row_bytes)))


def wanted_of(version: Version, artifact: Artifact) -> Wanted:
    """What the rows of a job must be."""
    return Wanted(inputs_of(artifact), version.labels, version.preprocessing)


def inputs_of(artifact: Artifact) -> tuple[TensorSpec, ...]:
    return msgspec.convert(artifact.report["inputs"], tuple[TensorSpec, ...])


def outputs_of(artifact: Artifact) -> tuple[TensorSpec, ...]:
    return msgspec.convert(artifact.report["outputs"], tuple[TensorSpec, ...])
