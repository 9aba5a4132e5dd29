"""When a candidate may stand behind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from agent import priority

CAPABLE = "Name:\tx\nCapEff:\t000001ffffffffff\n"
POOR = "Name:\tx\nCapEff:\t0000000000000000\n"


@pytest.mark.parametrize(
    ("status", "limit", "can"),
    [(CAPABLE, 0, True), (POOR, 0, False), (POOR, 20, True), (POOR, 19, False), ("", 0, False)],
)
def test_only_who_can_come_back_stands_behind(status: str, limit: int, can: bool) -> None:
    assert priority.can_return(status, limit) is can


def test_a_process_that_stood_behind_runs_like_before() -> None:
    me = os.getpid()
    before = os.sched_getscheduler(me)
    if priority.may_step_back():
        priority.step_back()
        assert os.sched_getscheduler(me) == os.SCHED_IDLE
        priority.step_forward(me)
    assert os.sched_getscheduler(me) == before


def test_who_gives_way_shares_a_processor_within_one_native_call() -> None:
    """Against a rival on the same processor, which would else wait for the end of the call's time slice."""
    script = """
        import hashlib, os, resource, signal, subprocess, sys
        from agent import priority

        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        rival = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        priority.arm()
        if sys.argv[1] == "gives way":
            priority.give_way()
        for _ in range(100):  # Until the rival is there too.
            hashlib.sha256(bytes(1_000_000)).digest()
        hashlib.sha256(bytes(60_000_000)).digest()
        after = resource.getrusage(resource.RUSAGE_SELF)
        priority.insist()
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        rival.kill()
        rival.wait()
        print((after.ru_nvcsw + after.ru_nivcsw) / after.ru_utime)
    """

    def switches_a_second(how: str) -> float:
        asked = [sys.executable, "-c", textwrap.dedent(script), how]
        return float(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)

    assert switches_a_second("gives way") > 2 * switches_a_second("insists")
