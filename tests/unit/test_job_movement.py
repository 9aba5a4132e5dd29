"""What a job moves: bytes are counted once, packing gives back what went in, and rows go to who holds them."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.chunks import ChunkError, unpacked
from agent.contract import packing
from agent.contract.messages import CHUNK_BYTES, Chunk
from agent.contract.packing import PackingError
from agent.enroll import Identity
from agent.fetching import packings_of
from agent.link import Broker
from agent.settings import AgentSettings
from controller.holders import Holders
from controller.job_bytes import Legs, Moved
from controller.job_prior import Prior
from controller.shards import split
from controller.work import Job, Policy
from tests.unit.test_work import Device, simulate

DEVICES = st.sampled_from(["a", "b", "c"])


@given(st.binary(max_size=5000))
def test_what_is_packed_comes_out_as_it_went_in(content: bytes) -> None:
    assert packing.unpack("zlib", packing.pack(content), len(content)) == content


@given(st.binary(min_size=1, max_size=2000), st.integers(-3, 3000))
def test_more_or_less_than_was_announced_is_refused(content: bytes, size: int) -> None:
    if size == len(content):
        return
    with pytest.raises(PackingError):
        packing.unpack("zlib", packing.pack(content), size)


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_unpacks_to_no_more_than_a_chunk(data: bytes) -> None:
    with pytest.raises(ChunkError):
        unpacked(Chunk(size=3 * CHUNK_BYTES, data=data, packing="zlib"), 1)
    bomb = Chunk(size=10, data=zlib.compress(bytes(10_000_000)), packing="zlib")
    with pytest.raises(ChunkError, match="announced"):
        unpacked(bomb, 0)
    with pytest.raises(ChunkError):
        unpacked(bomb, 7)


def test_packing_pays_where_a_sample_becomes_half_as_long() -> None:
    assert packing.pays(bytes(100_000))
    assert not packing.pays(bytes(100))
    assert not packing.pays(hashlib.shake_256(b"noise").digest(100_000))


@pytest.mark.parametrize(
    ("host", "told", "packs"),
    [("127.0.0.1", "auto", False), ("10.0.0.7", "auto", True), ("10.0.0.7", "never", False), ("::1", "always", True)],
)
def test_inputs_come_packed_where_a_line_lies_between(host: str, told: str, packs: bool) -> None:
    identity = Identity(agent="a", broker=Broker(host, 1883), controller_key="", release_key="", device_token="")
    settings = AgentSettings(packing=told)  # type: ignore[arg-type]
    assert packings_of(settings, identity) == (("zlib",) if packs else ())


def test_bytes_that_a_device_held_are_saved_and_those_that_left_are_moved() -> None:
    legs = Legs()
    legs.began("first", "a", "blob")
    assert legs.sent("a", "blob", 600, 200) == ("first", Moved(moved=200, saved_by_packing=400))
    assert legs.sent("a", "other", 1, 1) is None
    assert legs.used("first", "a", "blob", 600, 600) == Moved()
    legs.began("second", "a", "blob")
    assert legs.used("second", "a", "blob", 600, 0) == Moved(saved_by_cache=600)
    legs.began("third", "b", "blob")
    assert legs.used("third", "b", "blob", 600, 600) == Moved(moved=600), "it came by HTTP"


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["began", "sent", "used", "ended"]), st.sampled_from("xy"), DEVICES, st.integers(0, 10)
        )
    )
)
def test_whatever_happens_no_byte_is_counted_that_did_not_leave(steps: list[tuple[str, str, str, int]]) -> None:
    legs, left, counted = Legs(), 0, 0
    for step, job, device, count in steps:
        match step:
            case "began":
                legs.began(job, device, "blob")
            case "sent":
                found = legs.sent(device, "blob", count, count)
                left, counted = left + count, counted + (found[1].moved if found else 0)
            case "used":
                saved = legs.used(job, device, "blob", 10, 0)
                assert saved.moved == 0
                assert 0 <= saved.saved_by_cache <= 10
            case "ended":
                legs.ended(job)
    assert counted <= left


@given(near=st.dictionaries(st.integers(0, 30), st.sets(DEVICES, min_size=1), max_size=20))
def test_a_device_is_offered_each_shard_that_it_holds_once_and_no_other(near: dict[int, set[str]]) -> None:
    holders = Holders(near)
    for device in "abc":
        offered = []
        while (number := holders.take(device, lambda *_: True)) is not None:
            offered.append(number)
        assert offered == sorted((n for n, devices in near.items() if device in devices), reverse=True)


@settings(deadline=None)
@given(
    holder=st.lists(st.sampled_from([None, "a", "b", "gone"]), min_size=1, max_size=80),
    speeds=st.dictionaries(st.sampled_from(["a", "b"]), st.floats(0.001, 0.02), min_size=1),
)
def test_who_holds_rows_changes_only_who_computes_them(holder: list[str | None], speeds: dict[str, float]) -> None:
    shards = split(10 * len(holder), 10)
    near = {number: [device] for number, device in enumerate(holder) if device}
    outcome = simulate(Job(shards, Policy(), near=near), {name: Device(row_s) for name, row_s in speeds.items()})
    assert sorted(accept.shard.number for accept in outcome.accepted) == list(range(len(holder)))
    assert not outcome.quarantined


def test_devices_of_like_speed_compute_what_they_hold() -> None:
    shards = split(4000, 10)
    near = {shard.number: ["a" if shard.number % 3 else "b"] for shard in shards}
    outcome = simulate(Job(shards, Policy(), near=near), {"a": Device(0.005), "b": Device(0.01)})
    moved = [accept for accept in outcome.accepted if accept.device not in near[accept.shard.number]]
    assert len(moved) <= 0.03 * len(shards)


def test_a_job_is_near_to_devices_only_where_the_cut_is_the_same() -> None:
    prior = Prior(cuts={10: {0: ["a"], 20: ["a", "b"]}})
    assert prior.near(split(40, 10), 10) == {0: ["a"], 2: ["a", "b"]}
    assert prior.near(split(40, 20), 20) == {}
