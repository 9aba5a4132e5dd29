"""One job over many devices, decided without a clock: a small simulated fleet drives the rules."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.shards import replicated, settled, shard_size, split
from controller.work import (
    Accept,
    Action,
    Answered,
    DeviceGone,
    DeviceReady,
    DeviceShare,
    Finish,
    Job,
    Lease,
    Policy,
    Quarantine,
    Refuse,
    Ticked,
)

TICK_S = 0.2


@dataclass
class Device:
    row_s: float
    dies_at: float = float("inf")
    returns_at: float = float("inf")
    free_at: float = 0.0
    poisoned: frozenset[int] = frozenset()


@dataclass
class Outcome:
    accepted: list[Accept] = field(default_factory=list)
    quarantined: list[Quarantine] = field(default_factory=list)
    refused: list[Refuse] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)
    makespan: float = 0.0


def simulate(job: Job, devices: dict[str, Device], duplicate_rate: float = 0.0, seed: int = 0) -> Outcome:
    """Run a job to its end on simulated devices: they compute one shard after another and may die and return."""
    draw = random.Random(seed)
    outcome = Outcome()
    answers: list[tuple[float, int, Answered]] = []
    up: set[str] = set()
    now, count = 0.0, 0

    def take(actions: list[Action]) -> None:
        nonlocal count
        for action in actions:
            match action:
                case Lease(name, shard, attempt, _):
                    outcome.leases.append(action)
                    device = devices[name]
                    begin = max(now, device.free_at)
                    busy = device.row_s * shard.rows
                    device.free_at = begin + busy
                    error = "bad rows" if shard.number in device.poisoned else ""
                    for _ in range(2 if draw.random() < duplicate_rate else 1):
                        count += 1
                        answer = Answered(name, shard.number, attempt, busy, error)
                        heapq.heappush(answers, (device.free_at, count, answer))
                case Accept():
                    outcome.accepted.append(action)
                case Quarantine():
                    outcome.quarantined.append(action)
                case Refuse():
                    outcome.refused.append(action)
                case Finish():
                    outcome.makespan = now

    while not job.finished:
        for name, device in devices.items():
            alive = now < device.dies_at or now >= device.returns_at
            if alive and name not in up:
                up.add(name)
                device.free_at = now
                take(job.handle(DeviceReady(name, 0.001), now))
            if not alive and name in up:
                up.discard(name)
                take(job.handle(DeviceGone(name), now))
        while answers and answers[0][0] <= now:
            at, _, answer = heapq.heappop(answers)
            device = devices[answer.device]
            if at < device.dies_at or at >= device.returns_at:
                take(job.handle(answer, now))
        take(job.handle(Ticked(), now))
        if not job.finished:
            take(job.assign(now))
        now += TICK_S
        assert now < 3600, "the job does not end"
    return outcome


def test_every_row_is_in_exactly_one_shard() -> None:
    shards = split(10, 3)
    assert [(s.first, s.last) for s in shards] == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert split(0, 3) == []
    with pytest.raises(ValueError, match="cannot split"):
        split(10, 0)


@given(
    rows=st.integers(1, 10**6),
    speeds=st.lists(st.floats(1e-6, 10), min_size=1, max_size=50),
    most=st.integers(1, 10**5),
)
def test_a_shard_takes_its_time_on_the_fastest_device_and_not_too_long_on_the_slowest(
    rows: int, speeds: list[float], most: int
) -> None:
    size = shard_size(rows, speeds, most, 0.25, 1.0)
    assert 1 <= size <= most
    if size > 1:
        assert (size - 0.5) * max(speeds) <= 1.0 + 1e-9
        assert (size - 0.5) * min(speeds) <= 0.25 + 1e-9
        if size < most and size < rows // (8 * len(speeds)):
            assert (size + 0.5) * max(speeds) >= 1.0 - 1e-9 or (size + 0.5) * min(speeds) >= 0.25 - 1e-9


@given(size=st.integers(1, 5000), cuts=st.sets(st.integers(1, 5000), max_size=5), most=st.integers(1, 6000))
def test_the_cut_of_an_earlier_job_is_kept_where_it_is_near_and_fits(size: int, cuts: set[int], most: int) -> None:
    size = min(size, most)
    kept = settled(size, cuts, most)
    assert kept == size or (kept in cuts and size / 3 <= kept <= min(2 * size, most))
    if size in cuts:
        assert kept == size


fleets = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.builds(
        Device,
        row_s=st.floats(0.0005, 0.02),
        dies_at=st.one_of(st.just(float("inf")), st.floats(0, 5)),
    ),
    min_size=1,
)


@settings(max_examples=200, deadline=None)
@given(
    fleet=fleets,
    rows=st.integers(1, 2000),
    size=st.integers(1, 200),
    duplicates=st.floats(0, 0.5),
    seed=st.integers(0, 99),
)
def test_each_shard_is_accepted_exactly_once_whatever_dies_or_repeats(
    fleet: dict[str, Device], rows: int, size: int, duplicates: float, seed: int
) -> None:
    fleet["survivor"] = Device(row_s=0.002)
    shards = split(rows, size)
    outcome = simulate(Job(shards, Policy()), fleet, duplicates, seed)
    assert sorted(a.shard.number for a in outcome.accepted) == [s.number for s in shards]
    assert not outcome.quarantined


def test_a_slow_device_gets_a_small_share_and_does_not_hold_up_the_end() -> None:
    fleet = {"fast1": Device(0.001), "fast2": Device(0.001), "slow": Device(0.005)}
    job = Job(split(20_000, 100), Policy())
    outcome = simulate(job, fleet)
    ideal = 20_000 / (2 / 0.001 + 1 / 0.005)
    assert outcome.makespan <= 1.25 * ideal
    assert job.devices["slow"].shards < job.devices["fast1"].shards / 3


def test_a_killed_device_costs_only_what_it_held() -> None:
    fleet = {"a": Device(0.001), "b": Device(0.001, dies_at=3.0)}
    job = Job(split(20_000, 100), Policy())
    outcome = simulate(job, fleet)
    ideal = 3.0 + (20_000 - 2 * 3000) * 0.001
    assert outcome.makespan <= 1.2 * ideal
    assert 1 <= job.counters.moved <= Policy().max_credit


def test_a_device_that_returns_gets_work_again_and_its_old_answers_count_for_nothing() -> None:
    job = Job(split(10, 5), Policy())
    job.handle(DeviceReady("a", 0.001), 0.0)
    leases = [a for a in job.assign(0.0) if isinstance(a, Lease)]
    job.handle(DeviceGone("a"), 1.0)
    job.handle(DeviceReady("a", 0.001), 2.0)
    again = [a for a in job.assign(2.0) if isinstance(a, Lease)]
    assert {x.attempt for x in again} == {2}
    [late] = job.handle(Answered("a", leases[0].shard.number, leases[0].attempt, 0.1), 2.1)
    assert isinstance(late, Refuse)
    assert job.accepted == 0


def test_a_lease_that_runs_out_is_given_to_another_device() -> None:
    policy = Policy(lease_s=1.0)
    job = Job(split(10, 10), policy)
    job.handle(DeviceReady("a", 0.001), 0.0)
    assert len(job.assign(0.0)) == 1
    job.handle(DeviceReady("b", 0.001), 0.5)
    job.handle(Ticked(), 1.5)
    assert job.counters.moved == 1
    [lease] = job.assign(1.5)
    assert isinstance(lease, Lease)
    assert lease.attempt == 2


def test_a_poison_shard_is_quarantined_and_the_rest_completes() -> None:
    bad = frozenset({3})
    fleet = {"a": Device(0.001, poisoned=bad), "b": Device(0.001, poisoned=bad)}
    outcome = simulate(Job(split(1000, 100), Policy()), fleet)
    assert [q.shard.number for q in outcome.quarantined] == [3]
    assert len(outcome.accepted) == 9


def test_a_single_device_tries_a_failing_shard_a_bounded_number_of_times() -> None:
    outcome = simulate(Job(split(300, 100), Policy()), {"a": Device(0.001, poisoned=frozenset({1}))})
    assert [q.shard.number for q in outcome.quarantined] == [1]
    assert sum(lease.shard.number == 1 for lease in outcome.leases) == Policy().max_attempts


def test_a_fault_of_the_input_is_not_tried_again() -> None:
    job = Job(split(10, 10), Policy())
    job.handle(DeviceReady("a", 0.001), 0.0)
    job.assign(0.0)
    actions = job.handle(Answered("a", 0, 1, 0.0, "wrong shape", user_fault=True), 0.1)
    assert [type(a) for a in actions] == [Quarantine, Finish]


def test_attempt_numbers_go_on_after_a_restart() -> None:
    job = Job(split(10, 10), Policy(), attempts={0: 4})
    job.handle(DeviceReady("a", 0.001), 0.0)
    [lease] = job.assign(0.0)
    assert isinstance(lease, Lease)
    assert lease.attempt == 5
    [refused] = job.handle(Answered("a", 0, 4, 0.1), 0.2)
    assert isinstance(refused, Refuse)


def test_the_same_events_give_the_same_actions() -> None:
    def run() -> Outcome:
        fleet = {"a": Device(0.001), "b": Device(0.003, dies_at=1.0, returns_at=2.0)}
        return simulate(Job(split(3000, 50), Policy()), fleet, 0.1, seed=7)

    assert run() == run()


def test_an_idle_device_takes_over_from_one_that_has_stopped_answering() -> None:
    job = Job(split(32, 16), Policy())
    for name in ("a", "dead"):
        job.handle(DeviceReady(name, 0.0001), 0.0)
    leases = [a for a in job.assign(0.0) if isinstance(a, Lease)]
    assert {lease.device for lease in leases} == {"a", "dead"}
    for lease in leases:
        if lease.device == "a":
            job.handle(Answered("a", lease.shard.number, lease.attempt, 0.002), 0.1)
    assert job.assign(1.0) == []
    copies = [a for a in job.assign(3.0) if isinstance(a, Lease)]
    assert {copy.device for copy in copies} == {"a"}
    assert all(copy.speculative for copy in copies)


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 500), size=st.integers(1, 100), dies=st.floats(0, 5), seed=st.integers(0, 99))
def test_replicas_of_the_same_rows_are_computed_by_different_devices(
    rows: int, size: int, dies: float, seed: int
) -> None:
    fleet = {"a": Device(0.002), "b": Device(0.01), "c": Device(0.001), "d": Device(0.001, dies_at=dies)}
    once = split(rows, size)
    outcome = simulate(Job(replicated(once, 3), Policy(), apart=len(once)), fleet, 0.1, seed)
    by_rows: dict[int, list[str]] = {}
    for accept in outcome.accepted:
        by_rows.setdefault(accept.shard.first, []).append(accept.device)
    assert sorted(by_rows) == [shard.first for shard in once]
    assert all(len(devices) == len(set(devices)) == 3 for devices in by_rows.values())


def test_a_replica_for_which_no_other_device_comes_is_computed_by_one_that_has_another_after_a_while() -> None:
    once = split(10, 10)
    outcome = simulate(Job(replicated(once, 2), Policy(apart_s=3.0), apart=1), {"a": Device(0.001)})
    assert [a.device for a in outcome.accepted] == ["a", "a"]
    assert 3.0 <= outcome.makespan < 4.0


def test_who_answered_before_a_restart_gets_no_other_replica_after_it() -> None:
    once = split(20, 10)
    open_ = [shard for shard in replicated(once, 2) if shard.number != 0]
    job = Job(open_, Policy(), {0: 1}, apart=2, accepted_by={0: "a"}, devices={"a": DeviceShare(0.001, ready=False)})
    outcome = simulate(job, {"a": Device(0.001), "b": Device(0.001)})
    assert {a.shard.number: a.device for a in outcome.accepted}[2] == "b"


def test_a_job_fills_only_its_part_of_a_devices_queue_and_nothing_where_it_has_none() -> None:
    def waiting(part: float) -> int:
        job = Job(split(1000, 10), Policy())
        job.handle(DeviceReady("a", 0.005), 0.0)
        return len(job.assign(0.0, {"a": part}))

    assert (waiting(1.0), waiting(0.5), waiting(0.0)) == (12, 6, 0)


def leases(actions: list[Action]) -> list[Lease]:
    return [action for action in actions if isinstance(action, Lease)]


def test_a_shard_that_devices_turn_down_is_not_poison_and_waits_until_they_have_rested() -> None:
    job = Job(split(10, 10), Policy(rest_s=5.0))
    for name in ("a", "b"):
        job.handle(DeviceReady(name, 0.001), 0.0)
    for now in (0.0, 1.0):
        [lease] = leases(job.assign(now))
        full = Answered(lease.device, 0, lease.attempt, 0.0, "the queue of this device is full", turned_down=True)
        assert job.handle(full, now) == []
    assert job.assign(4.9) == []
    [lease] = leases(job.assign(5.0))
    assert job.handle(Answered(lease.device, 0, lease.attempt, 0.1), 5.1)[1:] == [Finish()]
    assert not job.quarantined


def test_a_shard_that_is_turned_down_for_ever_is_given_up() -> None:
    job = Job(split(10, 10), Policy(rest_s=0.0, max_attempts=3))
    job.handle(DeviceReady("a", 0.001), 0.0)
    for _ in range(3):
        [lease] = leases(job.assign(0.0))
        actions = job.handle(Answered("a", 0, lease.attempt, 0.0, "full", turned_down=True), 0.0)
    assert [type(action) for action in actions] == [Quarantine, Finish]
    assert "given up after 3 attempts; last: full" in job.quarantined[0]


def test_the_copy_of_a_straggler_counts_although_the_last_attempt_failed_elsewhere() -> None:
    job = Job(split(10, 10), Policy(max_attempts=2))
    job.handle(DeviceReady("slow", 1.0), 0.0)
    [first] = leases(job.assign(0.0))
    job.handle(DeviceReady("fast", 0.001), 0.1)
    [copy] = leases(job.assign(0.1))
    assert (copy.device, copy.speculative) == ("fast", True)
    assert job.handle(Answered("slow", 0, first.attempt, 0.1, "out of memory"), 0.2) == []
    assert [type(a) for a in job.handle(Answered("fast", 0, copy.attempt, 0.1), 0.3)] == [Accept, Finish]


def test_at_the_tail_a_slow_devices_shards_are_copied_and_the_first_answer_counts() -> None:
    job = Job(split(100, 100), Policy())
    job.handle(DeviceReady("slow", 0.01), 0.0)
    assert [lease.device for lease in leases(job.assign(0.0))] == ["slow"]
    job.handle(DeviceReady("fast", 0.001), 0.1)
    copies = leases(job.assign(0.1))
    assert [(copy.device, copy.speculative) for copy in copies] == [("fast", True)]
    [accepted, _] = job.handle(Answered("fast", copies[0].shard.number, copies[0].attempt, 0.1), 0.7)
    assert isinstance(accepted, Accept)
    [late] = job.handle(Answered("slow", copies[0].shard.number, 1, 1.0), 2.0)
    assert isinstance(late, Refuse)
    assert "accepted already" in late.reason


def test_a_poison_shard_is_quarantined_by_the_second_device_that_fails_it() -> None:
    fleet = {name: Device(0.001, poisoned=frozenset({3})) for name in "abc"}
    outcome = simulate(Job(split(1000, 100), Policy()), fleet)
    tried = [lease.device for lease in outcome.leases if lease.shard.number == 3]
    assert len(tried) == len(set(tried)) == Policy().max_failing_devices
    assert outcome.quarantined[0].reason == "bad rows"
