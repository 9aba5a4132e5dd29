"""Small steps on files that install, uninstall and wipe are made of."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

IDENTITY, LOCK = "identity.json", "agent.lock"


def write(path: Path, text: str, mode: int) -> None:
    """In one step as seen by readers. Folders that are missing are made for everybody to read."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)


def runs(data: Path) -> int | None:
    """The process that holds the data folder (0: not known), None if nobody does. Raises OSError."""
    try:
        descriptor = os.open(data / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        # Shared and given back at once: an agent that starts just now may find it taken, and is started again.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        told = os.read(descriptor, 20).decode("ascii", "replace").strip()
        return int(told) if told.isdecimal() else 0
    else:
        return None
    finally:
        os.close(descriptor)


def take_over(found: Path, data: Path) -> bool:
    """Move a data folder with an identity to where the service keeps it, unless there is one already."""
    if not (found / IDENTITY).is_file() or (data / IDENTITY).exists() or found.resolve() == data.resolve():
        return False
    data.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    data.mkdir(mode=0o700, exist_ok=True)
    for item in found.iterdir():
        shutil.move(str(item), str(data / item.name))
    found.rmdir()
    return True


def hand_over(data: Path) -> None:
    """What root wrote into the running service's folder belongs to the service's account, as the folder does."""
    with contextlib.suppress(OSError):
        owner = data.stat()
        if os.geteuid() != 0 or owner.st_uid == 0:
            return
        for folder, _, names in os.walk(data):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def remove(path: Path) -> bool:
    """A file, a link, or a folder with all in it; False if there was none. Raises OSError."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        return False
    return True


def prune(folder: Path, top: Path) -> None:
    """Remove empty folders from `folder` upwards, but not `top`."""
    while folder != top and folder.is_relative_to(top):
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
