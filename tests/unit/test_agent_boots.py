"""A version with which the whole agent goes down again and again is given up at a start, without a controller."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agent import boots
from agent.boots import BootCount
from agent.contract.messages import DesiredModel
from agent.disk import RealDisk
from agent.keeper import Keeper
from agent.loop import Loop
from agent.pointers import ModelPointers, Pointer, PointerFile, Pointers
from agent.settings import Limits
from tests.disks import CountingDisk

MOST = 3


def wanted(version: int) -> DesiredModel:
    return DesiredModel(model="m", version=version, artifact="ab" * 32, manifest=f"{version:064x}", profile="p")


def pointers(steady: bool = False, previous: bool = True) -> Pointers:
    fresh = Pointer(wanted=wanted(2), files={}, steady=steady)
    model = ModelPointers(serving=fresh, previous=Pointer(wanted=wanted(1), files={}) if previous else None)
    return Pointers(models={"m": model})


def after(starts: int, given: Pointers) -> ModelPointers:
    for _ in range(starts):
        given = boots.started(given, MOST)
    return given.of("m")


def serving(model: ModelPointers) -> int:
    assert model.serving is not None
    return model.serving.wanted.version


def test_after_so_many_starts_that_ended_early_the_previous_version_serves_and_the_new_one_is_refused_with_why() -> (
    None
):
    assert serving(after(MOST, pointers())) == 2
    given_up = after(MOST + 1, pointers())
    assert serving(given_up) == 1
    assert (given_up.refused, given_up.refused_state, given_up.previous) == (wanted(2), "failed", None)
    assert "went down 3 times" in given_up.refused_reason
    assert serving(after(MOST + 9, pointers())) == 1


def test_a_version_that_has_proved_itself_or_has_no_previous_one_goes_on_serving() -> None:
    assert serving(after(99, pointers(steady=True))) == 2
    assert serving(after(99, pointers(previous=False))) == 2


def test_an_orderly_end_or_long_service_blames_nobody() -> None:
    given = pointers()
    for _ in range(20):
        given = boots.stopped(boots.started(given, MOST))
    assert serving(given.of("m")) == 2
    proved = boots.steady(boots.started(pointers(), MOST), {"m": wanted(2)})
    assert serving(after(99, proved)) == 2
    other = boots.steady(pointers(), {"m": wanted(1)})
    assert serving(after(MOST + 1, other)) == 1


def test_a_candidate_with_which_the_agent_goes_down_is_not_tried_for_ever_and_what_serves_serves_on() -> None:
    given = pointers(steady=True)
    for _ in range(MOST + 1):
        assert given.of("m").refused is None
        given = boots.started(boots.trying(given, wanted(3)), MOST)
    model = given.of("m")
    assert (serving(model), model.refused, model.candidate) == (2, wanted(3), None)


def test_a_candidate_that_ends_and_leaves_the_agent_alive_may_come_again() -> None:
    given = pointers(steady=True)
    for _ in range(20):
        given = boots.started(boots.tried(boots.trying(given, wanted(3)), wanted(3)), MOST)
    assert given.of("m").refused is None


def test_starts_of_a_proved_version_cost_no_write(tmp_path: Path) -> None:
    PointerFile(tmp_path, RealDisk()).save(pointers(steady=True))
    disk = CountingDisk()
    for _ in range(3):
        life(tmp_path, disk)
    assert disk.operations == 0


def test_a_version_is_proved_once_it_has_served_for_so_long_in_one_life(tmp_path: Path) -> None:
    PointerFile(tmp_path, RealDisk()).save(pointers())
    clock = [0.0]
    loop = Loop(lambda: clock[0])
    keeper = Keeper(loop, PointerFile(tmp_path, RealDisk()))
    count = BootCount(loop, keeper, Limits(steady=60.0))
    count.start()
    for second in range(0, 75, 5):
        clock[0] = float(second)
        loop.run_once(0.0)
        assert not _steady(keeper.current) or second >= 60
    while not _steady(keeper.current):
        loop.run_once(0.1)
    count.stop()
    loop.close()


def test_a_disk_that_takes_no_count_keeps_nobody_from_starting(tmp_path: Path) -> None:
    PointerFile(tmp_path, RealDisk()).save(pointers())

    def full(_: int) -> None:
        raise OSError("No space left on device")

    life(tmp_path, CountingDisk(full))
    assert PointerFile(tmp_path, RealDisk()).load() == pointers()


def _steady(given: Pointers) -> bool:
    serving = given.of("m").serving
    return serving is not None and serving.steady


def life(folder: Path, disk: CountingDisk) -> None:
    """One start of an agent and its end, as far as they count."""
    loop = Loop()
    count = BootCount(loop, Keeper(loop, PointerFile(folder, disk)), Limits())
    count.start()
    count.stop()
    loop.close()


@pytest.mark.parametrize("lives", [1, 3])
def test_the_count_survives_a_kill(tmp_path: Path, lives: int) -> None:
    file = PointerFile(tmp_path, RealDisk())
    file.save(pointers())
    for _ in range(lives):
        loop = Loop()
        BootCount(loop, Keeper(loop, file), Limits()).start()
        loop.close()
    found = file.load().of("m").serving
    assert found == msgspec.structs.replace(pointers().models["m"].serving, starts=lives)  # type: ignore[type-var]
