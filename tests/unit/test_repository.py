"""How versions stand with a fleet, from what devices are to run and what they say."""

from __future__ import annotations

from typing import Any

import pytest

from agent.contract.messages import DesiredModel, ModelState
from controller import records, repository
from controller.known import Known
from controller.repository import Built
from firmware_profiles.profile import Facts

DIGEST = "1" * 64
FACTS = Facts(machine="x86_64", system="linux", cpus=1, memory_mb=1)
SAME: dict[str, Any] = {"model": "m", "artifact": DIGEST, "manifest": DIGEST, "profile": "x86-cpu"}


def device(
    name: str = "a",
    *,
    wants: int = 0,
    says: tuple[tuple[int, str], ...] = (),
    online: bool = True,
    drain: bool = False,
    state: Any = "approved",
) -> Known:
    desired = (DesiredModel(version=wants, **SAME),) if wants else ()
    reported = tuple(ModelState(version=v, state=s, reason="why", **SAME) for v, s in says)  # type: ignore[arg-type]
    record = records.Device(
        name=name,
        public_key="",
        device_token_hash="",
        facts=FACTS,
        enrolled_at=0.0,
        desired=desired,
        reported=reported,
        drain=drain,
        state=state,
    )
    return Known(record, online=online)


def states(*devices: Known, versions: int = 2) -> list[tuple[str, str]]:
    built = [Built(version) for version in range(1, versions + 1)]
    return [(s.state, s.reason) for s in repository.standings("m", built, devices)]


NONE = ("UNAVAILABLE", "no device is to run it")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], [NONE, NONE]),
        ([device(wants=1, says=((1, "serving"),))], [("READY", ""), NONE]),
        ([device(wants=1)], [("LOADING", "a: not told yet"), NONE]),
        # While it is swapped both are told as they are.
        ([device(wants=2, says=((1, "serving"), (2, "probing")))], [("READY", ""), ("LOADING", "a: probing")]),
        ([device(wants=2, says=((2, "watching"),))], [NONE, ("READY", "")]),
        ([device(says=((1, "serving"),))], [("UNLOADING", "no device is to run it"), NONE]),
        ([device(wants=1, says=((1, "serving"), (2, "refused")))], [("READY", ""), ("UNAVAILABLE", "a: refused: why")]),
        ([device(wants=1, says=((1, "serving"),), online=False)], [("UNAVAILABLE", "a: offline"), NONE]),
        ([device(wants=1, says=((1, "serving"),), drain=True)], [("UNAVAILABLE", "a: draining"), NONE]),
        ([device(wants=1, says=((1, "serving"),), state="pending")], [NONE, NONE]),
        (
            [device(wants=1, online=False), device("b", wants=1, says=((1, "fetching"),))],
            [("LOADING", "a: offline; b: fetching"), NONE],
        ),
    ],
)
def test_a_version_is_ready_only_where_it_answers(found: list[Known], expected: list[tuple[str, str]]) -> None:
    assert states(*found) == expected


def test_what_is_in_a_versions_way_is_told() -> None:
    [told] = repository.standings("m", [Built(1, "no artifact was built for it")], [device()])
    assert (told.state, told.reason) == ("UNAVAILABLE", "no artifact was built for it")


def test_who_lacks_a_version_and_who_still_has_a_model() -> None:
    fleet = [
        device("a", wants=2, says=((1, "serving"),)),
        device("b", wants=2, says=((2, "serving"),)),
        device("c", says=((2, "serving"),)),
        device("d", says=((2, "serving"),), online=False),
    ]
    assert repository.absent("m", 2, fleet) == ["a: not told yet"]
    assert repository.left("m", fleet) == (["c"], ["d"])
    assert repository.serving("m", fleet) == {1, 2}
