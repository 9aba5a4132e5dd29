"""Facts about a device, profiles of device classes, and which fits which."""

from __future__ import annotations

import msgspec


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a device is. Measured by the agent; an override from its configuration wins and is named in `overridden`."""

    machine: str
    """Architecture as the kernel names it: x86_64, aarch64, armv7l."""
    system: str = "linux"
    board: str = ""
    """The device tree's model line, such as "Raspberry Pi 4 Model B Rev 1.4"; empty where there is none."""
    cpus: int = 1
    """Logical processors that the agent may use."""
    memory_mb: int = 0
    disk_mb: int = 0
    """Free space where the agent keeps its data."""
    accelerators: tuple[str, ...] = ()
    """What the host fronts: "fpga", "gpu", "ethos-u55"."""
    runtimes: tuple[str, ...] = ()
    """Installed interpreters, best first: "ai-edge-litert", "tflite-runtime"."""
    python: str = ""
    labels: dict[str, str] = {}
    overridden: tuple[str, ...] = ()
    """Names of the facts that the configuration set; an accelerator named here is simulated unless a driver answers."""
