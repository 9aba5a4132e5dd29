"""The measuring module measures what it says."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks import measure
from tests.benchmarks.measure import MeasureError, Sample, Span, as_retried

values = st.lists(st.floats(0, 1e6), min_size=1, max_size=60)


@given(values=values, share=st.floats(0.01, 1))
def test_a_percentile_is_the_smallest_value_that_the_share_does_not_exceed(values: list[float], share: float) -> None:
    found = measure.percentile(values, share)
    assert found in values
    assert sum(v <= found for v in values) >= share * len(values) - 1e-9
    assert all(sum(v <= other for v in values) < share * len(values) for other in values if other < found)


def test_known_percentiles() -> None:
    hundred = list(range(1, 101))
    assert [measure.percentile(hundred, q) for q in (0.5, 0.99, 1.0)] == [50, 99, 100]
    with pytest.raises(MeasureError, match="no values"):
        measure.percentile([], 0.5)


def test_a_request_counts_in_a_window_if_it_was_under_way_there() -> None:
    window = [Span(10, 11)]
    inside = [Sample(9.5, 1.0, True), Sample(10.5, 0.1, True), Sample(10.9, 5.0, True), Sample(9.0, 5.0, True)]
    outside = [Sample(9.0, 0.5, True), Sample(11.0, 0.1, True)]
    assert measure.in_flight([*inside, *outside], window) == inside


def test_a_request_in_two_windows_counts_once() -> None:
    assert len(measure.in_flight([Sample(0, 10, True)], [Span(1, 2), Span(3, 4)])) == 1


def test_the_longest_gap_is_the_time_without_a_right_answer_that_touches_a_window() -> None:
    samples = [Sample(0, 1, True), Sample(1, 1, True), Sample(2, 1, False), Sample(4, 1, True), Sample(10, 1, True)]
    assert measure.longest_gap(samples, [Span(2.5, 2.6)]) == 3
    assert measure.longest_gap(samples, [Span(1.2, 1.3), Span(4.9, 5.1)]) == 6
    assert measure.longest_gap(samples, [Span(20, 21)]) == 0


def test_a_refused_request_lasts_until_an_answer_to_one_that_was_asked_for_after_it() -> None:
    refused, answered = Sample(2, 0.1, False), Sample(3, 0.5, True)
    late = Sample(1, 5, True)
    assert as_retried([answered, refused, late]) == [late, refused._replace(latency=1.5), answered]
    assert as_retried([Sample(9, 10, False)])[0].latency == math.inf


def test_control_windows_are_as_long_as_their_swaps_and_end_before_they_were_asked_for() -> None:
    swaps = [Span(10.0, 10.5), Span(20.0, 20.2)]
    found = measure.controls(swaps, [9.5, 19.9], gap=0.1)
    assert [span.length for span in found] == pytest.approx([0.5, 0.2])
    assert [span.end for span in found] == pytest.approx([9.4, 19.8])


def test_a_control_window_that_would_touch_the_swap_before_it_is_refused() -> None:
    with pytest.raises(MeasureError, match="leave more time"):
        measure.controls([Span(10, 11), Span(11.5, 13)], [9, 11.4])


def test_a_swap_lasts_from_the_fork_of_the_candidate_to_the_exit_of_the_old_worker() -> None:
    lives = [Span(0, 10.4), Span(10, 20.3), Span(20, math.inf)]
    assert measure.swap_spans(lives) == [Span(10, 10.4), Span(20, 20.3)]


def test_the_open_loop_keeps_its_rate_though_answers_are_slow_and_counts_from_the_due_moment() -> None:
    async def run() -> list[Sample]:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.5, stop.set)

        async def slow(number: int) -> bool:
            await asyncio.sleep(0.2)
            return number != 3

        return await measure.open_loop(slow, 100, stop)

    samples = asyncio.run(run())
    assert 40 <= len(samples) <= 60
    assert min(s.latency for s in samples) >= 0.2
    assert [s.ok for s in samples].count(False) == 1


def test_a_stalled_generator_shows_in_the_latencies() -> None:
    async def run() -> list[Sample]:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.4, stop.set)

        async def stalls_everyone(number: int) -> bool:
            if number == 5:
                time.sleep(0.2)  # noqa: ASYNC251 - the stall is the point
            return True

        return await measure.open_loop(stalls_everyone, 100, stop)

    samples = asyncio.run(run())
    assert sum(s.latency > 0.05 for s in samples) >= 10


def test_the_closed_loop_never_has_more_requests_under_way_than_lanes() -> None:
    under_way = 0
    highest = 0

    async def send(number: int) -> bool:
        nonlocal under_way, highest
        under_way += 1
        highest = max(highest, under_way)
        await asyncio.sleep(0.005)
        under_way -= 1
        return True

    samples = asyncio.run(measure.closed_loop(send, 0.2, 3))
    assert highest == 3
    assert len(samples) > 30


def test_memory_is_the_proportional_share_of_every_process_given() -> None:
    assert measure.parse_pss("Rss:  900 kB\nPss:  123 kB\nPss_Anon: 7 kB\n") == 123
    assert measure.parse_pss("") == 0
    assert measure.pss_mb([os.getpid()]) > 5
    assert measure.pss_mb([2**22 + 1]) == 0


def test_processes_that_map_the_same_library_are_counted() -> None:
    libraries = [line.split("/")[-1] for line in measure._maps(os.getpid()).splitlines() if "_psutil_linux" in line]
    assert libraries
    assert measure.others_mapping(libraries[0], []) >= 1
    assert measure.others_mapping("no-such-library", []) == 0


def test_processor_time_includes_children_that_have_ended() -> None:
    before = measure.cpu_s([os.getpid()])
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert measure.cpu_s([os.getpid()]) - before >= 0.28


def test_the_tree_of_a_process_has_its_children_and_is_empty_when_it_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert child.pid in measure.tree(os.getpid())
    child.communicate(b"\n")
    assert measure.tree(child.pid) == []


def test_a_peak_in_the_background_is_seen() -> None:
    level = 1.0

    with measure.Peak(lambda: level, every_s=0.005) as peak:
        level = 9.0
        time.sleep(0.1)
        level = 2.0
    assert (peak.first, peak.highest, peak.growth) == (1.0, 9.0, 8.0)


def test_forks_and_exits_are_seen_from_outside() -> None:
    with measure.ChildWatch(os.getpid()) as watch:
        known = len(watch.lives())
        start = time.monotonic()
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.2)"], check=True)
        end = time.monotonic()
        time.sleep(0.05)
        life = watch.lives()[known:][0]
    assert start - 0.01 <= life.start <= start + 0.1
    assert life.end == pytest.approx(end, abs=0.05)


def test_host_facts_name_the_processor_the_cores_and_the_versions() -> None:
    facts = measure.host_facts()
    assert {"cpu", "cores", "memory_gb", "kernel", "python", "load_1min", "paho-mqtt"} <= facts.keys()
