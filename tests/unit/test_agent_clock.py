"""The clock of a device that may not know the time: it never goes below what certainly has passed."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import agent
from agent.clock import FILE, RELEASED, Clock

YEAR = 365 * 86400.0
AGENT = Path(agent.__file__).parent


class Times:
    """Both clocks of a machine, moved by hand."""

    def __init__(self, wall: float) -> None:
        self.wall = wall
        self.monotonic = 1000.0

    def clock(self, folder: Path | None = None, until: float = 0.0) -> Clock:
        return Clock(folder, until=until, wall=lambda: self.wall, monotonic=lambda: self.monotonic)

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def test_in_1970_the_clock_is_wrong_and_time_goes_on_from_the_floor() -> None:
    times = Times(wall=12.0)
    clock = times.clock()
    assert (clock.wrong, clock.now()) == (True, RELEASED)
    times.passes(60.0)
    assert clock.now() == RELEASED + 60.0


def test_a_clock_that_is_set_right_is_believed() -> None:
    times = Times(wall=12.0)
    clock = times.clock()
    times.wall = RELEASED + YEAR
    assert (clock.wrong, clock.now()) == (False, RELEASED + YEAR)


def test_a_clock_that_drifts_or_is_set_back_by_hours_is_believed_and_one_that_falls_back_by_years_is_not() -> None:
    times = Times(wall=RELEASED + YEAR)
    clock = times.clock()
    clock.note()
    times.monotonic += 0.000_001
    assert not clock.wrong
    times.wall -= 6 * 3600.0
    assert not clock.wrong
    times.wall = 12.0
    assert clock.wrong


def test_the_floor_outlives_a_restart_and_is_private(tmp_path: Path) -> None:
    times = Times(wall=RELEASED + YEAR)
    clock = times.clock(tmp_path)
    clock.note()
    clock.save()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    later = Times(wall=0.0).clock(tmp_path)
    assert (later.wrong, later.now()) == (True, RELEASED + YEAR)


def test_the_disk_is_written_once_an_hour_at_most(tmp_path: Path) -> None:
    times = Times(wall=RELEASED + YEAR)
    clock = times.clock(tmp_path)
    for _ in range(59):
        times.passes(60.0)
        clock.note()
    assert not (tmp_path / FILE).exists()
    times.passes(60.0)
    clock.note()
    assert float((tmp_path / FILE).read_text()) == times.wall


def test_a_clock_that_runs_ahead_lifts_the_floor_no_further_than_the_certificate_and_a_renewal_heals_it() -> None:
    end = RELEASED + YEAR
    times = Times(wall=end + 50 * YEAR)
    clock = times.clock(until=end)
    clock.note()
    times.wall = RELEASED + 10.0
    assert clock.now() == times.wall
    times.wall = end - 5.0
    clock.note()
    times.wall = RELEASED + 20.0
    assert clock.wrong
    clock.certified(RELEASED + 15.0, end + YEAR)
    assert (clock.wrong, clock.now()) == (False, RELEASED + 20.0)


def test_a_damaged_or_unwritable_file_costs_only_the_floor(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("yesterday")
    clock = Times(wall=0.0).clock(tmp_path)
    assert clock.now() == RELEASED
    Times(wall=RELEASED + 1).clock(tmp_path / "nowhere").save()


@given(st.lists(st.tuples(st.floats(-YEAR, YEAR), st.floats(0, 3600), st.booleans()), max_size=20))
def test_now_never_goes_below_what_was_noted(steps: list[tuple[float, float, bool]]) -> None:
    times = Times(wall=RELEASED)
    clock = times.clock()
    seen = RELEASED
    for jump, passed, noted in steps:
        times.wall += jump
        times.passes(passed)
        if noted:
            clock.note()
            seen = max(seen, times.wall)
        assert clock.now() >= seen - 1e-3


def test_nothing_but_this_clock_and_what_is_shown_to_people_asks_the_machine_for_the_time() -> None:
    askers = {path.relative_to(AGENT) for path in AGENT.rglob("*.py") if "time.time()" in path.read_text()}
    assert {path for path in askers if path.parts[0] != "service"} == {Path("clock.py")}
