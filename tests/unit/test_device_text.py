"""What `lepta device show` says of a swap: everything that was measured, and nothing that was not."""

from __future__ import annotations

import msgspec

from agent.contract.messages import ShadowResult, WatchResult
from controller.commands import device_text
from controller.replies import TimedSwap
from tests.contract import samples


def _told(**changes: object) -> dict[str, str]:
    swap = msgspec.convert(msgspec.to_builtins(samples._SWAP), TimedSwap)
    return dict(device_text.swap_details(msgspec.structs.replace(swap, **changes)))


def test_a_full_record_is_told_line_by_line() -> None:
    watch = WatchResult(answers=20, faults=3, crashes=1, seconds=0.5, p95_before_ms=1.0, p95_ms=2.5, drift=0.25)
    shadow = ShadowResult(compared=40, agreed=39, seconds=2.0)
    told = _told(watch=watch, shadow=shadow, memory_peak_mb=31.5, alone=True, who="user", reason="too slow")
    assert told["watch"] == "20 answers in 0.5 s, 3 faults, 1 crashes, p95 2.50 ms a row (before 1.00 ms), " + (
        "25.00 % moved to other classes"
    )
    assert told["shadow"] == "39 of 40 live answers agreed, in 2.0 s"
    assert (
        told["memory"]
        == "31.5 MB by all workers of the model at their probes; too little for two: the old worker left first"
    )
    assert told["cause"] == "too slow (at fault: user)"
    assert told["fetched"] == "105.0 kB in 0.50 s, by http"
    assert "serving version 96.00 %" in told["probe"]
    assert "1 failed" in told["during"]


def test_what_was_not_measured_is_left_out() -> None:
    bare = TimedSwap(model="m", to_version=1, to_artifact="a" * 64, outcome="committed")
    assert [name for name, _ in device_text.swap_details(bare)] == ["fetched"]
