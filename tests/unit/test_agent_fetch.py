"""What of a blob is made durable, and when: an artifact always, a shard's inputs only if somebody wants them so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.blobs import BlobError, Blobs
from agent.chunks import Ranges
from agent.contract.messages import CHUNK_BYTES
from agent.disk import RealDisk
from agent.fetch import Fetcher, Outcome
from agent.loop import Loop
from agent.settings import Limits
from agent.sources import Sources
from agent.ways import Choice

CONTENT = bytes(range(256)) * (2 * CHUNK_BYTES // 256)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class NotingDisk(RealDisk):
    """Notes the names of what was made durable."""

    def __init__(self) -> None:
        self.synced: list[str] = []

    def sync(self, path: Path) -> None:
        self.synced.append(path.name)
        super().sync(path)


class Source:
    """Sends what is asked for, from memory."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def begin(self, digest: str, public: bool) -> None: ...

    def ask(self, digest: str, size: int | None, ranges: Ranges) -> None:
        for first, last in ranges:
            for number in range(first, last + 1):
                self._device.loop.call_soon(lambda number=number: self._device.came(digest, number))  # type: ignore[misc]

    def end(self, digest: str) -> None: ...


class Device:
    """A fetcher on a folder, with a source that sends `content` for whatever digest is asked for."""

    def __init__(self, folder: Path) -> None:
        self.loop, self.disk, self.content = Loop(), NotingDisk(), CONTENT
        self.blobs = Blobs(folder, self.disk, 1 << 30)
        sources = Sources(Choice, lambda _way: Source(self))
        self.fetcher = Fetcher(self.loop, self.blobs, sources, Limits(), lambda: ())
        self.fetcher.link_up()

    def came(self, digest: str, number: int) -> None:
        piece = self.content[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        self.fetcher.chunk(digest, number, len(self.content), piece)

    def want(self, *publics: bool) -> list[Outcome]:
        """Wanted by several at once; what each was told."""
        told: list[Outcome] = []
        for public in publics:
            self.fetcher.want(DIGEST, len(CONTENT), told.append, public=public)
        for _ in range(100):
            if len(told) == len(publics):
                return told
            self.loop.run_once(0.05)
        raise AssertionError(f"{len(told)} of {len(publics)} were told")


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path)
    yield device
    device.fetcher.stop()
    device.loop.close()


def test_an_artifact_is_durable_before_anybody_is_told(device: Device) -> None:
    (outcome,) = device.want(True)
    assert (outcome.error, outcome.arrived) == ("", len(CONTENT))
    assert device.disk.synced == [f"{DIGEST}.part", "blobs"]


def test_the_inputs_of_a_shard_are_not_and_their_bytes_are_there(device: Device) -> None:
    (outcome,) = device.want(False)
    assert (outcome.error, device.disk.synced) == ("", [])
    assert device.blobs.read(DIGEST) == CONTENT


@pytest.mark.parametrize("publics", [(False, True), (True, False)])
def test_if_one_of_two_wants_it_durable_it_is(device: Device, publics: tuple[bool, ...]) -> None:
    device.want(*publics)
    assert device.disk.synced == [f"{DIGEST}.part", "blobs"]


def test_what_came_for_a_shard_is_made_durable_once_it_is_wanted_so(device: Device) -> None:
    device.want(False)
    (outcome,) = device.want(True)
    assert outcome.held
    assert device.disk.synced == [DIGEST, "blobs"]


def test_wrong_bytes_for_a_shard_get_a_name_and_are_told_by_whoever_uses_them(device: Device) -> None:
    device.content = bytes(len(CONTENT))
    assert device.want(False)[0].error == ""
    with pytest.raises(BlobError, match="were changed on disk"):
        device.blobs.read(DIGEST)
    assert not device.blobs.holds(DIGEST)
