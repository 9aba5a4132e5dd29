"""The catalog on a real disk: whole files or none, found by their digest, gone when nobody uses them."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.contract.children import environment
from controller import reads, writes
from controller.catalog import Catalog, CatalogError
from controller.errors import NotFound, TooLarge
from controller.records import File
from controller.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "lepta.db")
    yield opened
    opened.close()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(tmp_path: Path, store: Store, clock: Clock) -> Catalog:
    return Catalog(tmp_path / "files", store, now=clock)


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _everything(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "files").rglob("*") if path.is_file()]


def test_a_file_is_found_by_the_digest_of_its_bytes(catalog: Catalog, store: Store) -> None:
    content = bytes(range(256)) * 10_000
    file = asyncio.run(catalog.put(_pieces(content[:10], content[10:2_000_000], content[2_000_000:]), 10**7))
    assert (file.digest, file.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert catalog.read(file.digest, verify=True) == content
    assert catalog.path(file.digest).read_bytes() == content
    assert store.read_now(reads.get(File, file.digest)).size == len(content)


def test_the_same_bytes_twice_are_one_file(catalog: Catalog, tmp_path: Path) -> None:
    async def scene() -> None:
        await asyncio.gather(*(catalog.put_bytes(b"same") for _ in range(8)))

    asyncio.run(scene())
    assert len(_everything(tmp_path)) == 1


def test_an_empty_file_is_a_file(catalog: Catalog) -> None:
    file = asyncio.run(catalog.put(_pieces(), 10))
    assert catalog.read(file.digest, verify=True) == b""


def test_a_file_over_the_limit_is_refused_while_it_comes_and_leaves_nothing(catalog: Catalog, tmp_path: Path) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(1024 * 1024)

    with pytest.raises(TooLarge, match="allowed 3,000,000 bytes"):
        asyncio.run(catalog.put(endless(), 3_000_000))
    assert taken == 3
    assert _everything(tmp_path) == []


def test_a_sender_that_breaks_off_leaves_nothing(catalog: Catalog, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(2 * 1024 * 1024)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(catalog.put(broken(), 10**9))
    assert _everything(tmp_path) == []


def test_a_file_from_disk_is_copied(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "source.keras").write_bytes(b"model")
    file = asyncio.run(catalog.put_file(tmp_path / "source.keras", 100))
    assert catalog.read(file.digest) == b"model"
    with pytest.raises(NotFound, match=r"nothing\.keras"):
        asyncio.run(catalog.put_file(tmp_path / "nothing.keras", 100))


def test_what_changed_on_the_disk_is_noticed(catalog: Catalog) -> None:
    file = asyncio.run(catalog.put_bytes(b"weights"))
    catalog.path(file.digest).write_bytes(b"weighty")
    with pytest.raises(CatalogError, match="damaged"):
        catalog.read(file.digest, verify=True)


@pytest.mark.parametrize("digest", ["0" * 64, "nonsense", "../../lepta.db", ""])
def test_unknown_digests_and_paths_are_not_found(catalog: Catalog, digest: str) -> None:
    assert catalog.locate(digest) is None
    with pytest.raises(NotFound):
        catalog.read(digest)


def test_only_old_files_that_nobody_uses_are_swept(catalog: Catalog, store: Store, clock: Clock) -> None:
    async def scene() -> tuple[int, list[bool]]:
        used, unused = await catalog.put_bytes(b"used"), await catalog.put_bytes(b"unused")
        clock.now = 200.0
        young = await catalog.put_bytes(b"young")
        await store.commit([writes.use_files("version:digits:1", [used.digest])])
        gone = await catalog.sweep(before=150.0)
        return gone, [catalog.locate(file.digest) is not None for file in (used, unused, young)]

    assert asyncio.run(scene()) == (1, [True, False, True])


def test_a_file_that_is_put_again_counts_as_new(catalog: Catalog, clock: Clock) -> None:
    async def scene() -> int:
        await catalog.put_bytes(b"again")
        clock.now = 200.0
        await catalog.put_bytes(b"again")
        return await catalog.sweep(before=150.0)

    assert asyncio.run(scene()) == 0


def test_bytes_kept_for_their_way_are_found_and_swept_by_age(catalog: Catalog, store: Store) -> None:
    file = catalog.keep(b"tensors")
    assert catalog.read(file.digest, verify=True) == b"tensors"
    assert store.read_now(reads.find(File, file.digest)) is None
    modified = catalog.path(file.digest).stat().st_mtime
    assert asyncio.run(catalog.sweep(before=modified)) == 0
    assert asyncio.run(catalog.sweep(before=modified + 1)) == 1
    assert catalog.locate(file.digest) is None


def test_what_waits_in_memory_is_sent_in_pieces_and_makes_no_file(tmp_path: Path, store: Store, clock: Clock) -> None:
    catalog = Catalog(tmp_path / "files", store, passing_bytes=10, now=clock)
    file = catalog.keep(b"tensors")
    assert (catalog.size(file.digest), catalog.piece(file.digest, 2, 3)) == (7, b"nso")
    assert catalog.is_passing(file.digest)
    clock.now = 200.0
    assert asyncio.run(catalog.sweep(before=clock.now)) == 1
    assert catalog.size(file.digest) is None
    assert _everything(tmp_path) == []


def test_what_is_too_much_for_memory_goes_to_files_unless_it_was_used(tmp_path: Path, store: Store) -> None:
    catalog = Catalog(tmp_path / "files", store, passing_bytes=10)
    first, second = catalog.keep(b"first"), catalog.keep(b"other")
    catalog.used(second.digest)
    third = catalog.keep(b"third")
    assert catalog.size(second.digest) is None
    fourth = catalog.keep(b"fourth")
    assert [catalog.piece(file.digest, 0, 9) for file in (first, third, fourth)] == [b"first", b"third", b"fourth"]
    assert {path.name for path in _everything(tmp_path)} == {first.digest, third.digest}


def test_a_disk_that_takes_no_file_of_what_waits_is_named_and_what_waits_stays(tmp_path: Path, store: Store) -> None:
    catalog = Catalog(tmp_path / "files", store, passing_bytes=10)
    file = catalog.keep(b"tensors")
    (tmp_path / "files" / "passing").rmdir()
    with pytest.raises(CatalogError, match="cannot be used"):
        catalog.path(file.digest)
    assert catalog.piece(file.digest, 0, 9) == b"tensors"


def test_what_several_devices_compute_stays_until_all_of_them_have_answered(tmp_path: Path, store: Store) -> None:
    catalog = Catalog(tmp_path / "files", store, passing_bytes=10)
    file = catalog.keep(b"replica")
    assert catalog.keep(b"replica") == file
    catalog.used(file.digest)
    catalog.keep(b"first")
    assert catalog.piece(file.digest, 0, 9) == b"replica"
    assert {path.name for path in _everything(tmp_path)} == {file.digest}


def test_what_is_only_passing_is_told_from_what_everybody_may_have(catalog: Catalog) -> None:
    file = catalog.keep(b"tensors")
    assert catalog.is_passing(file.digest)
    asyncio.run(catalog.put_bytes(b"tensors"))
    assert not catalog.is_passing(file.digest)
    assert not catalog.is_passing("c" * 64)
    assert not catalog.is_passing("../lepta.db")


_SCRIPT = """
import asyncio, sys
from pathlib import Path
from controller.catalog import Catalog
from controller.errors import LeptaError
from controller.store import Store
data = Path(sys.argv[1])
store = Store(data / "lepta.db")
async def scene():
    catalog = Catalog(data / "files", store)
    try:
        print((await catalog.put_bytes(b"weights")).digest)
    except LeptaError as error:
        print(error.message, "|", error.hint)
asyncio.run(scene())
store.close()
"""


def _run(tmp_path: Path, faults: str) -> subprocess.CompletedProcess[str]:
    variables = environment({"LEPTA_FAULTS": faults})
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path)]
    return subprocess.run(command, env=variables, timeout=60, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("point", ["catalog.write", "catalog.before_rename"])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, point: str) -> None:
    ended = _run(tmp_path, f"{point}=ENOSPC")
    assert ended.returncode == 0, ended.stderr
    assert "no space left" in ended.stdout
    assert "free some space" in ended.stdout
    assert _everything(tmp_path) == []


@pytest.mark.parametrize("point", ["catalog.write", "catalog.before_rename", "catalog.after_rename"])
def test_a_kill_at_any_point_leaves_no_half_file_and_the_next_try_works(tmp_path: Path, point: str) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    assert _run(tmp_path, f"{point}=kill").returncode == -9
    final = [path for path in _everything(tmp_path) if path.parent.name != "incoming"]
    assert all(path.read_bytes() == b"weights" for path in final)
    assert _run(tmp_path, "").stdout.strip() == digest
    assert [path.name for path in _everything(tmp_path)] == [digest]
