"""Every limit of the optimizer, in one place."""

from __future__ import annotations

import msgspec

MB = 1 << 20


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds on what comes from outside, and the sizes of what is measured."""

    source_bytes: int = 512 * MB
    """A model file, packed and unpacked."""
    data_bytes: int = 4096 * MB
    """Data, unpacked, and as the passes read it."""
    data_files: int = 200_000
    """Files of a data folder or of a zip of one."""
    picture_pixels: int = 50_000_000
    """Of one picture."""
    config_bytes: int = 16 * MB
    """The config.json inside a .keras file."""
    config_depth: int = 100
    archive_files: int = 4096
    profiles: int = 16
    cache_bytes: int = 4096 * MB
    """What passes made and may be used again."""
    labels: int = 10_000
    request_bytes: int = MB
    """One line of JSON on a pipe."""

    step_seconds: float = 1800.0
    step_memory_mb: int = 16_384
    """Address space that one step may add to what its parent has mapped."""
    step_file_bytes: int = 4096 * MB
    silence_seconds: float = 180.0
    """A zygote says that it is alive twice a second, but not while it imports TensorFlow from a slow disk."""
    heartbeat_s: float = 0.5

    calibration_rows: int = 256
    errors_seconds: float = 60.0
    """About how long the errors of single operators are looked for."""
    parity_rows: int = 128
    parity_bytes: int = 4 * MB
    acceptance_rows: int = 512
    acceptance_bytes: int = 32 * MB
    """Both golden sets travel to every device."""
    train_rows: int = 200_000
    """Rows of train that a model is fine-tuned on."""
    score_rows: int = 20_000
    """Rows of validation and of test that are scored."""
    latency_runs: int = 200
    latency_seconds: float = 2.0
    tolerated_loss: float = 0.02
    """Least tolerated loss against the serving version: two sound versions differ by chance on a few hundred rows."""


LIMITS = Limits()
