"""A broker that lies to an agent: what is not said by its controller, to it, in this session, changes nothing."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.devices import rogue


def test_an_agent_obeys_nothing_that_is_forged_changed_or_replayed(tmp_path: Path) -> None:
    attempt = rogue.run(tmp_path, rounds=4)
    assert attempt.accepted == ()
    assert attempt.sent >= 100
    # Older generations and repeated ids are dropped in silence: the rest is counted.
    assert attempt.refused >= attempt.sent * 0.8
