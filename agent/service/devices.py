"""The device nodes that an accelerator's runtime opens."""

from __future__ import annotations

import contextlib
import grp
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from agent.cli import USAGE, CliError
from agent.service.unit import Device

_NODES = {
    "gpu": ("nvidia[0-9]*", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "dri/renderD*"),
    "fpga": ("fpga*", "xdma*", "dfl-fme.*", "dfl-port.*"),
    "ethos-u55": ("ethosu*",),
}


def of_accelerators(accelerators: Iterable[str], folder: Path = Path("/dev")) -> tuple[Device, ...]:
    """The nodes that are there for these accelerators (`Facts.accelerators`)."""
    found = {node for name in accelerators for pattern in _NODES.get(name, ()) for node in folder.glob(pattern)}
    return tuple(_described(node) for node in sorted(found) if _is_node(node))


def named(words: Sequence[str]) -> tuple[Device, ...]:
    """What `--device PATH[:GROUP]` says. Without a group, the one that the node has here. Raises CliError."""
    return tuple(map(_named, words))


def _named(word: str) -> Device:
    path, _, group = word.partition(":")
    if not path.startswith("/dev/") or ".." in path or any(character.isspace() for character in word):
        raise CliError(USAGE, f"--device {word}: a path below /dev is wanted, such as /dev/fpga0 or /dev/fpga0:video")
    return Device(path, group) if group else _described(Path(path))


def _described(node: Path) -> Device:
    group = ""
    with contextlib.suppress(OSError, KeyError):
        found = node.stat()
        if found.st_gid and not found.st_mode & stat.S_IWOTH:
            group = grp.getgrgid(found.st_gid).gr_name
    return Device(str(node), group)


def _is_node(path: Path) -> bool:
    mode = path.stat().st_mode
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
