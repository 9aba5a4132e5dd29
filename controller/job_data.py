"""What a job asks of its model: what rows must look like, and how many fit a message."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from agent.contract.messages import MAX_INLINE
from agent.contract.tensors import DTYPES, TensorSpec
from controller.job_inputs.wanted import Wanted
from controller.records import Artifact, Version

# Room for names and shapes.
_ABOUT = 2048


def most_rows(row_bytes: int, outputs: Sequence[TensorSpec], blob_bytes: int, *, stored: bool) -> int:
    """How many rows one shard may have: as inputs (`row_bytes` each) they fit a blob of `blob_bytes`, and their outputs
    fit one message."""
    return max(1, min(most_answers(outputs, stored=stored), (blob_bytes - _ABOUT) // max(1, row_bytes)))


def most_answers(outputs: Sequence[TensorSpec], *, stored: bool) -> int:
    """How many rows of outputs fit one message: as float32, or `stored` as the model has them."""
    sizes = (DTYPES[spec.dtype] if stored else 4 for spec in outputs)
    row = sum(size * math.prod(spec.shape) for size, spec in zip(sizes, outputs, strict=True))
    return max(1, (MAX_INLINE - _ABOUT) // max(1, row))


def wanted_of(version: Version, artifact: Artifact) -> Wanted:
    """What the rows of a job must be."""
    return Wanted(inputs_of(artifact), version.labels, version.preprocessing)


def inputs_of(artifact: Artifact) -> tuple[TensorSpec, ...]:
    return msgspec.convert(artifact.report["inputs"], tuple[TensorSpec, ...])


def outputs_of(artifact: Artifact) -> tuple[TensorSpec, ...]:
    return msgspec.convert(artifact.report["outputs"], tuple[TensorSpec, ...])
