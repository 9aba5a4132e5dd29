"""Guarantees of the agent's disk: whole or not there, resumed exactly, quota kept, pointers never half written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.blobs import BlobError, Blobs
from agent.chunks import ChunkError, Missing, ranges
from agent.contract.manifest import FileRef
from agent.contract.messages import CHUNK_BYTES, DesiredModel
from agent.disk import Disk, RealDisk
from agent.pointers import Pointer, PointerError, PointerFile, Pointers
from tests.disks import CrashError, FailingDisk

BIG = 1 << 30


@pytest.fixture(params=["real", "double"])
def disk(request: pytest.FixtureRequest) -> Disk:
    """The double passes the same tests as the real one."""
    return RealDisk() if request.param == "real" else FailingDisk(1000)


def content_of(chunks: int, seed: int = 1) -> tuple[bytes, str]:
    content = random.Random(seed).randbytes(chunks * CHUNK_BYTES - 77)
    return content, hashlib.sha256(content).hexdigest()


def store(blobs: Blobs, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    here = blobs.begin(digest, len(content), set())
    for number, marked in enumerate(here):
        if not marked:
            blobs.write(digest, number, content[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES])
    blobs.seal(digest, len(content))
    return digest


def test_a_stored_blob_is_read_back_and_named_by_its_digest(tmp_path: Path, disk: Disk) -> None:
    blobs = Blobs(tmp_path, disk, BIG)
    digest = store(blobs, b"model")
    assert blobs.read(digest) == b"model"
    assert blobs.holds(digest, 5)
    assert not blobs.holds(digest, 6)
    assert blobs.held() == [digest]


@pytest.mark.parametrize("survives", range(15))
def test_a_crash_at_any_operation_leaves_a_blob_that_is_resumed_or_whole(tmp_path: Path, survives: int) -> None:
    content, digest = content_of(4)
    with contextlib.suppress(CrashError):
        store(Blobs(tmp_path, FailingDisk(survives), BIG), content)
    blobs = Blobs(tmp_path, RealDisk(), BIG)
    # Two writes make the partial blob; every chunk takes two; it is flushed, gets its name, and that is flushed.
    assert blobs.holds(digest) == (survives > 11)
    if not blobs.holds(digest):
        marked = blobs.begin(digest, len(content), set()).count(1)
        assert marked == min(4, max(0, (survives - 2) // 2))
        store(blobs, content)
    assert blobs.read(digest) == content
    assert not list((tmp_path / "partial").iterdir())


def test_wrong_bytes_never_get_a_name_and_nothing_of_them_stays(tmp_path: Path, disk: Disk) -> None:
    blobs = Blobs(tmp_path, disk, BIG)
    digest = hashlib.sha256(b"right").hexdigest()
    blobs.begin(digest, 5, set())
    blobs.write(digest, 0, b"wrong")
    with pytest.raises(BlobError, match="another SHA-256"):
        blobs.seal(digest, 5)
    assert not blobs.holds(digest)
    assert not list((tmp_path / "partial").iterdir())


def test_of_a_partial_blob_only_the_chunks_that_the_disk_lost_are_missing_again(tmp_path: Path, disk: Disk) -> None:
    content, digest = content_of(4)
    blobs = Blobs(tmp_path, disk, BIG)
    blobs.begin(digest, len(content), set())
    for number in range(4):
        blobs.write(digest, number, content[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES])
    blobs.secure(digest)
    with (tmp_path / "partial" / f"{digest}.part").open("r+b") as part:  # As a power cut leaves it: marks, no bytes.
        part.seek(CHUNK_BYTES)
        part.write(bytes(CHUNK_BYTES))
        part.truncate(3 * CHUNK_BYTES + 5)
    with pytest.raises(BlobError, match="the disk lost 2 chunks"):
        blobs.seal(digest, len(content))
    again = Blobs(tmp_path, disk, BIG)
    assert again.begin(digest, len(content), set()) == bytearray([1, 0, 1, 0])
    assert store(again, content) == digest


def test_blobs_on_their_way_count_with_the_bytes_that_are_still_to_come(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, FailingDisk(100, free=1000), BIG, reserve=100)
    blobs.begin("f" * 64, 600, set())
    with pytest.raises(BlobError, match="no room for 400 bytes"):
        blobs.begin("e" * 64, 400, {"f" * 64})
    blobs.drop("f" * 64)
    blobs.begin("e" * 64, 400, set())


def test_a_blob_that_cannot_be_removed_stays_and_nothing_fails(tmp_path: Path) -> None:
    digest = store(Blobs(tmp_path, RealDisk(), BIG), b"model")
    Blobs(tmp_path, FailingDisk(0, OSError(errno.EIO, "Input/output error")), BIG).drop(digest)
    assert Blobs(tmp_path, RealDisk(), BIG).holds(digest)


def test_a_byte_changed_on_disk_is_refused_and_the_blob_dropped(tmp_path: Path, disk: Disk) -> None:
    blobs = Blobs(tmp_path, disk, BIG)
    digest = store(blobs, b"model")
    blobs.path(digest).write_bytes(b"mode1")
    with pytest.raises(BlobError, match="changed on disk"):
        blobs.read(digest)
    assert not blobs.holds(digest)


def test_over_quota_the_blob_unused_for_longest_leaves_first_and_pinned_ones_stay(tmp_path: Path, disk: Disk) -> None:
    blobs = Blobs(tmp_path, disk, quota=400_000)
    digests = [store(blobs, bytes([n]) * 100_000) for n in range(3)]
    for age, digest in enumerate(reversed(digests)):
        os.utime(blobs.path(digest), (1000 - age, 1000 - age))
    blobs.touch(digests[1])
    blobs.begin("f" * 64, 150_000, {digests[0]})
    assert set(blobs.held()) == {digests[0], digests[1]}
    with pytest.raises(BlobError, match="no room"):
        blobs.begin("e" * 64, 300_000, {*digests, "f" * 64})


def test_where_there_is_room_nobody_looks_at_all_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = Blobs(tmp_path, RealDisk(), quota=4_000_000)
    store(blobs, b"first")
    looked: list[int] = []
    used = blobs.used

    def looks() -> int:
        looked.append(1)
        return used()

    monkeypatch.setattr(blobs, "used", looks)
    digests = [store(blobs, bytes([n]) * 20_000) for n in range(30)]
    assert not looked
    for digest in digests:  # What leaves by itself makes room again, once it is looked for.
        blobs.drop(digest)
    for n in range(100, 130):
        store(blobs, bytes([n]) * 50_000)
    assert 1 <= len(looked) <= 4
    assert len(blobs.held()) == 31


def test_a_blob_that_is_resumed_counts_with_what_is_still_to_come(tmp_path: Path) -> None:
    Blobs(tmp_path, RealDisk(), BIG).begin("f" * 64, 900_000, set())
    blobs = Blobs(tmp_path, RealDisk(), quota=1_000_000)
    blobs.begin("e" * 64, 10_000, {"f" * 64})  # Here all was added up, and of the other nothing had come.
    blobs.begin("f" * 64, 900_000, {"e" * 64})
    with pytest.raises(BlobError, match="no room"):
        blobs.begin("d" * 64, 300_000, {"e" * 64, "f" * 64})


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, FailingDisk(100, free=1000), BIG)
    with pytest.raises(BlobError, match="no room for 5000 bytes"):
        blobs.begin("f" * 64, 5000, set())
    assert not list((tmp_path / "partial").iterdir())


def pointers(generation: int) -> Pointers:
    wanted = DesiredModel(model="m", version=generation, artifact="ab" * 32, manifest="cd" * 32, profile="p")
    serving = Pointer(wanted=wanted, files={"model": FileRef("ab" * 32, 1)}, accuracy=0.5)
    return Pointers(generation=generation).with_model("m", serving=serving)


def test_pointers_come_back_as_they_were_saved(tmp_path: Path, disk: Disk) -> None:
    file = PointerFile(tmp_path, disk)
    assert file.load() == Pointers()
    file.save(pointers(7))
    assert PointerFile(tmp_path, disk).load() == pointers(7)
    assert pointers(7).pinned() == {"ab" * 32, "cd" * 32}


def test_a_save_that_fails_leaves_the_old_pointers_loadable(tmp_path: Path) -> None:
    PointerFile(tmp_path, RealDisk()).save(pointers(1))
    full = FailingDisk(0, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        PointerFile(tmp_path, full).save(pointers(2))
    (tmp_path / "state.json.new").write_bytes(b'{"generation": 2, "mod')  # As a power cut leaves it.
    assert PointerFile(tmp_path, RealDisk()).load() == pointers(1)


def test_a_damaged_state_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(PointerError, match=r"state\.json cannot be read .* move it away"):
        PointerFile(tmp_path, RealDisk()).load()


@given(st.lists(st.booleans(), min_size=1, max_size=600))
def test_the_ranges_asked_for_are_exactly_the_missing_chunks(here: list[bool]) -> None:
    found = ranges(bytearray(here))
    asked = [n for first, last in found for n in range(first, last + 1)]
    missing = [n for n, marked in enumerate(here) if not marked]
    assert asked == missing[: len(asked)]
    assert len(asked) == len(missing) or len(found) == 256


def test_missing_chunks_are_asked_for_again_after_silence_and_given_up_after_so_many_asks() -> None:
    missing = Missing(3 * CHUNK_BYTES, BIG, silence=1.0, asks=3)
    missing.known(3 * CHUNK_BYTES, bytearray(3))
    assert missing.ask(0.0) == ((0, 2),)
    assert missing.ask(0.9) is None
    missing.came(1, CHUNK_BYTES, 0.95)
    assert missing.ask(1.5) is None
    assert missing.ask(2.0) == ((0, 0), (2, 2))
    for later in range(1, 5):
        missing.ask(2.0 + 10 * later)
    assert _given_up(missing)
    missing.pause()
    assert not _given_up(missing)
    assert missing.ask(100.0) == ((0, 0), (2, 2))


def _given_up(missing: Missing) -> bool:
    return missing.given_up


@pytest.mark.parametrize(
    ("number", "size", "length"), [(0, 7, 7), (0, 100, 99), (5, 100, 100), (0, BIG * 2, CHUNK_BYTES)]
)
def test_a_chunk_that_cannot_belong_to_the_blob_is_refused(number: int, size: int, length: int) -> None:
    missing = Missing(100 if size < BIG else None, BIG, 1.0, 3)
    with pytest.raises(ChunkError):
        missing.check(number, size, length)
