"""Guarantees of the agent's small parts: settings, facts, lines, outbox, frames, latencies, the loop."""

from __future__ import annotations

import hashlib
import socket
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import VERSION, facts, frames, settings
from agent.contract.manifest import FileRef
from agent.contract.messages import Infer, Work
from agent.contract.tensors import Tensor
from agent.latencies import Latencies
from agent.lines import Line, Waiting
from agent.load import Sampler, ServiceTime
from agent.loop import Loop
from agent.outbox import Letter, Outbox

DIGEST = hashlib.sha256(b"").hexdigest()


def test_the_agent_names_the_version_of_the_distribution() -> None:
    assert version("lepta") == VERSION


# -- settings


def test_every_key_of_a_configuration_is_read(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        'controller = "http://c"\nfetch = "http"\nname = "n"\n[facts]\ncpus = 2\n[labels]\nroom = "7"\n'
        "[simulate]\nextra_ms_per_row = 3\n[limits]\nqueue = 5\n"
    )
    read = settings.read(path)
    assert (read.fetch, read.facts, read.labels, read.limits.queue) == ("http", {"cpus": 2}, {"room": "7"}, 5)
    assert read.simulate.extra_ms_per_row == 3.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour = 1", "unknown key 'colour'; allowed: controller, name"),
        ("[limits]\nqueues = 1", "unknown key 'limits.queues'; allowed: queue, "),
        ('fetch = "ftp"', "key 'fetch'"),
        ('[limits]\nqueue = "many"', "key 'limits.queue'"),
        ("= 1", "not TOML"),
    ],
)
def test_a_wrong_configuration_names_file_key_and_what_is_allowed(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(settings.SettingsError) as caught:
        settings.read(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_configuration_is_said(tmp_path: Path) -> None:
    with pytest.raises(settings.SettingsError, match="cannot be read"):
        settings.read(tmp_path / "none.toml")


# -- facts and load


def test_facts_are_measured_and_an_override_wins_and_is_named(tmp_path: Path) -> None:
    here = facts.gather(tmp_path, overrides={"accelerators": ["fpga"]}, labels={"a": "b"})
    assert here.cpus >= 1
    assert here.memory_mb > 100
    assert here.disk_mb > 0
    assert here.machine
    assert (here.accelerators, here.overridden, here.labels) == (("fpga",), ("accelerators",), {"a": "b"})


@pytest.mark.parametrize("overrides", [{"colour": "red"}, {"cpus": "many"}])
def test_an_override_that_is_no_fact_is_refused(tmp_path: Path, overrides: dict[str, object]) -> None:
    with pytest.raises(facts.FactsError):
        facts.gather(tmp_path, overrides=overrides)


def test_a_forced_runtime_is_the_only_one() -> None:
    assert set(facts.runtimes("tflite-runtime")) <= {"tflite-runtime"}


def test_rate_and_service_time_follow_what_was_computed() -> None:
    service, latencies = ServiceTime(), Latencies()
    service.sample("m", DIGEST, 0.0, latencies)
    for _ in range(100):
        service.add(rows=2, service_ms=8.0)
    sample = service.sample("m", DIGEST, 10.0, latencies)
    assert sample.rate == 20.0
    assert abs(sample.service_ms - 4.0) < 1e-9
    assert service.sample("m", DIGEST, 11.0, latencies).rate == 0.0


def test_a_sample_of_the_machine_stays_within_its_bounds() -> None:
    load = Sampler(cpu=lambda: 7.0).sample(3, (), 2)
    assert load.cpu == 1.0
    assert 0 < load.memory <= 1
    assert (load.queue, load.refused) == (3, 2)


# -- what waits


def waiting(name: str, expires: float = 9.0, shard: bool = False) -> Waiting:
    if shard:
        return Waiting(Work(job=name, shard=0, attempt=1, ttl_ms=1, model="m", artifact=DIGEST), 0.0, expires)
    return Waiting(Infer(request=name, model="m", artifact=DIGEST, ttl_ms=1), 0.0, expires)


def test_the_inputs_of_what_waits_are_named_so_that_they_stay_on_disk() -> None:
    line = Line(10, 10)
    inputs = FileRef(DIGEST, 5)
    line.offer(Waiting(Work(job="j", shard=0, attempt=1, ttl_ms=1, model="m", artifact=DIGEST, blob=inputs), 0.0, 9.0))
    line.offer(waiting("a"))
    assert line.blobs() == {DIGEST}
    line.clear()
    assert line.blobs() == set()


def test_requests_come_before_shards_in_their_order_and_expired_ones_never() -> None:
    line = Line(10, 10)
    items = [waiting("s", shard=True), waiting("a"), waiting("late", expires=1.0), waiting("b")]
    for item in items:
        assert line.offer(item)
    assert [line.take(2.0, shards=True) for _ in range(4)] == [items[1], items[3], items[0], None]
    assert line.expired == 1


def test_a_full_line_takes_no_more_but_takes_back_what_a_dead_worker_held() -> None:
    line = Line(2, 1)
    first, second, third = waiting("1"), waiting("2"), waiting("3")
    assert line.offer(first)
    assert line.offer(second)
    assert not line.offer(third)
    assert line.take(0.0, shards=False) is first
    assert line.offer(third)
    line.give_back([first])
    assert [line.take(0.0, shards=False) for _ in range(3)] == [first, second, third]


def test_a_dropped_shard_is_not_handed_out() -> None:
    line = Line(1, 2)
    line.offer(waiting("a", shard=True))
    line.offer(waiting("b", shard=True))
    line.drop_shard(("a", 0, 1))
    left = waiting("c", shard=True)
    line.offer(left)
    line.drop_shard(("b", 0, 1))
    assert line.take(0.0, shards=True) is left
    assert len(line) == 0


def letter(payload: bytes, kept: bool) -> Letter:
    return Letter("t", payload, 1, False, kept)


@given(st.lists(st.tuples(st.binary(max_size=20), st.booleans()), max_size=40))
def test_the_outbox_stays_within_its_bounds_whatever_is_put_in(put: list[tuple[bytes, bool]]) -> None:
    box = Outbox(letters=5, size=60)
    for payload, kept in put:
        box.put(letter(payload, kept))
        assert len(box) <= 5
    left = list(iter(box.take, None))
    assert sum(len(item.payload) for item in left) <= 60
    assert box.dropped == len(put) - len(left)


def test_a_full_outbox_drops_the_oldest_unkept_letter_first() -> None:
    box = Outbox(letters=3, size=1000)
    for payload, kept in (
        (b"r1", True),
        (b"load1", False),
        (b"load2", False),
        (b"r2", True),
        (b"r3", True),
        (b"r4", True),
    ):
        box.put(letter(payload, kept))
    assert [item.payload for item in iter(box.take, None)] == [b"r2", b"r3", b"r4"]


def test_without_a_broker_only_what_is_kept_stays() -> None:
    box = Outbox(10, 1000)
    box.put(letter(b"load", kept=False))
    box.put(letter(b"result", kept=True))
    box.keep_only_kept()
    assert len(box) == 1
    assert box.take() == letter(b"result", kept=True)


# -- frames


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5), st.integers(1, 7))
def test_frames_come_out_whole_however_the_bytes_are_cut(parts: list[bytes], step: int) -> None:
    sent = [frames.Compute(id=n, inputs=(Tensor("x", "uint8", (1, len(p)), p),)) for n, p in enumerate(parts)]
    stream = b"".join(map(frames.encode, sent))
    buffer = frames.Buffer()
    got = [c for at in range(0, len(stream), step) for c in buffer.feed(stream[at : at + step])]
    assert [frames.decode_to_worker(content) for content in got] == sent


@pytest.mark.parametrize("stream", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_an_impossible_length_is_a_broken_pipe(stream: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.Buffer().feed(stream)


def test_a_frame_of_the_other_direction_is_refused() -> None:
    with pytest.raises(frames.FrameError):
        frames.decode_from_worker(msgspec.msgpack.encode(frames.Measure(id=1, runs=1)))


# -- latencies


def test_a_window_counts_only_what_was_answered_inside_it() -> None:
    latencies = Latencies(most=100)
    for n in range(150):
        latencies.add(float(n), float(n), failed=n % 50 == 0)
    window = latencies.window(60.0, 110.0)
    assert (window.requests, window.failed, window.p50_ms, window.p99_ms) == (50, 1, 85.0, 109.0)
    assert latencies.window(0.0, 50.0).requests == 0
    assert latencies.window(200.0, 300.0).p50_ms is None


@pytest.mark.parametrize("most", [50, 100, 1000])
def test_a_samples_p95_is_of_the_requests_answered_since_the_one_before(most: int) -> None:
    service, latencies = ServiceTime(), Latencies(most)
    latencies.add(0.5, 9999.0, failed=False)
    assert service.sample("m", DIGEST, 1.0, latencies).p95_ms is None  # Nobody knows since when.
    for n in range(100):
        latencies.add(1.0 + n / 100, float(n), failed=False)
    assert service.sample("m", DIGEST, 2.0, latencies).p95_ms == (97.0 if most == 50 else 95.0)
    assert service.sample("m", DIGEST, 3.0, latencies).p95_ms is None


# -- loop


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_timers_fire_in_order_and_a_cancelled_one_never() -> None:
    clock, fired = Clock(), list[str]()
    loop = Loop(clock)
    loop.call_later(2.0, lambda: fired.append("second"))
    loop.call_later(1.0, lambda: fired.append("first"))
    loop.call_later(1.5, lambda: fired.append("never")).cancel()
    loop.run_once(0.0)
    assert fired == []
    clock.now = 5.0
    loop.run_once(0.0)
    assert fired == ["first", "second"]
    loop.close()


def test_slow_work_comes_back_on_the_loop_with_its_value_or_its_error() -> None:
    loop, got = Loop(), list[object]()
    loop.in_thread(lambda: 7, got.append)
    loop.in_thread(lambda: int("x"), got.append)
    while len(got) < 2:
        loop.run_once(1.0)
    assert 7 in got
    assert any(isinstance(value, ValueError) for value in got)
    loop.close()


def test_a_socket_forgotten_in_the_same_turn_is_not_called_back() -> None:
    loop, called = Loop(), list[str]()
    a, a_far = socket.socketpair()
    b, b_far = socket.socketpair()

    def only_one(name: str, other: socket.socket, own: socket.socket) -> None:
        called.append(name)
        own.recv(10)
        loop.forget(other)

    loop.watch(a, lambda: only_one("a", b, a))
    loop.watch(b, lambda: only_one("b", a, b))
    a_far.send(b"1")
    b_far.send(b"1")
    loop.run_once(1.0)
    assert len(called) == 1
    loop.close()
    for sock in (a, a_far, b, b_far):
        sock.close()
