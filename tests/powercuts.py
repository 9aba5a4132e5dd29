"""An update is cut at every operation on the disk, or one fails: does the agent serve, and get to the new version?

python -m tests.powercuts [--images N] [--seed N]      every prefix, with N torn images of each; prints the counts
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.disk import Disk, RealDisk
from agent.pointers import PointerError, PointerFile
from agent.roots import Roots
from tests import disk_images
from tests.agent_here import MODEL, AgentHere, World, quiet
from tests.disk_images import Image, Medium, Operation, RecordingDisk
from tests.disks import CountingDisk, StumblingDisk

CHUNKS = 11
"""Of the new model: long enough to be secured on its way."""
OLD, NEW = 1, 2
ERRORS = (errno.ENOSPC, errno.EIO)


@dataclass
class Tally:
    """`write_prefixes`: operations after which the power went. `images`: disks that a cut there may leave."""

    write_prefixes: int = 0
    images: int = 0
    failed_operations: int = 0
    unusable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Update:
    """An update that went well, as the disk saw it."""

    world: World
    before: Image
    operations: list[Operation]


def record(folder: Path, *, first: bool = False) -> Update:
    """Bring version 1 to serve and then, recorded, version 2; `first`: record the first install instead.

    With version 2 come the root document whose key signed it, and a floor that shuts out version 1.
    """
    world = World()
    folder.mkdir(parents=True)
    if not first:
        world.desire(world.release(OLD, 2))
        _live(folder, RealDisk(), world, OLD)
    before = disk_images.read(folder)
    world.rotate()
    world.floor = {MODEL: NEW}
    world.desire(world.release(NEW, CHUNKS))
    disk = RecordingDisk(folder)
    _live(folder, disk, world, NEW)
    return Update(world, before, disk.operations)


def replay(update: Update, folder: Path, prefixes: list[int], images: int, seed: int) -> Tally:
    """Cut after each of these numbers of operations; `images` torn disks each, and the two that are plain."""
    tally, chance = Tally(), random.Random(seed)
    for prefix in prefixes:
        tally.write_prefixes += 1
        for number, image in enumerate(_after(update, prefix, images, chance)):
            tally.images += 1
            with tempfile.TemporaryDirectory(dir=folder) as place:
                disk_images.lay_out(image, Path(place))
                wrong = _recovers(update, Path(place))
            if wrong:
                tally.unusable.append(f"cut after operation {prefix}, image {number}: {wrong}")
    return tally


def stumble(update: Update, folder: Path, numbers: list[int], code: int, times: int) -> Tally:
    """The n-th operation of the update fails, and `times - 1` more after it; then the disk works again."""
    tally = Tally()
    for number in numbers:
        tally.failed_operations += 1
        with tempfile.TemporaryDirectory(dir=folder) as place:
            disk_images.lay_out(update.before, Path(place))
            disk = StumblingDisk(number, OSError(code, os.strerror(code)), times)
            wrong = _endures(update, Path(place), disk)
        if wrong:
            tally.unusable.append(f"{errno.errorcode[code]} at operation {number}, {times} times: {wrong}")
    return tally


def _after(update: Update, prefix: int, images: int, chance: random.Random) -> Iterator[Image]:
    medium = Medium(update.before)
    for operation in update.operations[:prefix]:
        medium.do(operation)
    yield medium.flushed()
    yield medium.lost()
    for _ in range(images):
        yield medium.torn(chance)


def _recovers(update: Update, place: Path) -> str:
    """Empty if the agent serves at once without anybody's help, and comes to the new version by itself."""
    try:
        return _comes_back(update, place)
    except PointerError as error:
        return f"the agent does not start: {error}"


def _comes_back(update: Update, place: Path) -> str:
    if update.before:
        alone = AgentHere(place, RealDisk(), update.world, online=False)
        served = alone.until(lambda: alone.serves in (OLD, NEW))
        alone.cut()
        if not served:
            return "without its controller nothing serves"
    agent = AgentHere(place, RealDisk(), update.world)
    came = agent.until(lambda: agent.committed == NEW)
    gaps = agent.gaps
    agent.cut()
    if not came:
        return f"the new version does not come; {agent.serves} serves"
    return _forgotten(update, place) or (f"{gaps} turns without anybody serving" if gaps else "")


def _endures(update: Update, place: Path, disk: CountingDisk) -> str:
    agent = AgentHere(place, disk, update.world)
    came = agent.until(lambda: agent.committed == NEW)
    gaps, serves = agent.gaps, agent.serves
    agent.cut()
    if not came:
        return f"no later try brings the new version; {serves} serves"
    return _forgotten(update, place) or (f"{gaps} turns without anybody serving" if gaps else "")


def _forgotten(update: Update, place: Path) -> str:
    """What a thief of the old release key could use after the next start; empty if nothing."""
    with quiet():
        version = Roots(place, RealDisk(), update.world.first_key).version
    floor = PointerFile(place, RealDisk()).load().minimum_sequence
    if version != len(update.world.roots):
        return f"root version {version} counts after the next start"
    return "" if floor == update.world.floor else f"the floor is {floor} after the next start"


def _live(folder: Path, disk: Disk, world: World, version: int) -> None:
    agent = AgentHere(folder, disk, world)
    if not agent.until(lambda: agent.committed == version):
        raise RuntimeError(f"version {version} does not come to serve even on a sound disk")
    agent.cut()


def everything(folder: Path, images: int, seed: int) -> Tally:
    """Every prefix of an update and of a first install, and every operation failing in every way."""
    total = Tally()
    with quiet():
        for first in (False, True):
            update = record(folder / f"recorded-{first}", first=first)
            count = len(update.operations)
            parts = [replay(update, folder, list(range(count + 1)), images, seed)]
            for code in ERRORS:
                parts += [stumble(update, folder, list(range(count)), code, times) for times in (1, 4)]
            for part in parts:
                total.write_prefixes += part.write_prefixes
                total.images += part.images
                total.failed_operations += part.failed_operations
                total.unusable += part.unusable
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4, help="torn disks per prefix")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        tally = everything(folder, options.images, options.seed)
    finally:
        shutil.rmtree(folder)
    counts = f"write_prefixes {tally.write_prefixes}, images {tally.images}"
    print(f"{counts}, failed_operations {tally.failed_operations}, unusable {len(tally.unusable)}")
    print(*tally.unusable[:40], sep="\n")
    return 1 if tally.unusable else 0


if __name__ == "__main__":
    sys.exit(main())
