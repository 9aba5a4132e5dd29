"""Jobs as the loop sees them: what a lost device means for those that computed with it. The bus is a double."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import pytest

from agent.contract.messages import Stamper
from agent.contract.signing import PrivateKey
from controller import records, work
from controller.bus import Bus
from controller.catalog import Catalog
from controller.job_inputs.source import Layout, Source, Stored
from controller.job_prior import Prior
from controller.jobs import Jobs
from controller.outbox import Outbox
from controller.recorder import Silence
from controller.store import Store
from controller.tick import Tick
from tests.unit.test_devices import World, artifact, serving

SPEC: dict[str, object] = {"shape": [4], "dtype": "float32", "transforms": []}


def jobs_of(world: World, folder: Path, policy: work.Policy) -> Jobs:
    return Jobs(
        folder / "jobs",
        Catalog(folder / "files", cast(Store, None)),  # Nothing here is large enough for it.
        world.devices,
        Outbox(cast(Bus, world.bus), Stamper("boot"), PrivateKey.generate()),
        Silence(),
        policy=policy,
        most_open=1,
        stall_s=60.0,
        scratch_bytes=1 << 20,
        watchers=1,
        new_id=lambda kind: f"{kind}-1",
        deliver=lambda _event: None,
    )


def rows_of(folder: Path, count: int) -> Source:
    (folder / "rows").write_bytes(np.zeros((count, 4), np.float32).tobytes())
    return Source(Layout(count, {"x": Stored("", 0, "<f4", (4,), "float32")}), folder / "rows", folder)


def built_with(scores: dict[str, object]) -> records.Artifact:
    report = {"inputs": [{"name": "x", **SPEC}], "outputs": [{"name": "scores", **scores}]}
    return msgspec.structs.replace(artifact(1), report=report)


def wanted(shard_rows: int) -> records.Job:
    return records.Job(
        id="", model="digits", version=1, input="", reduce="score", shard_rows=shard_rows, created_at=0.0
    )


def test_a_job_whose_last_shard_is_given_up_with_its_lost_device_ends(tmp_path: Path) -> None:
    world = World("a")
    world.hello("a", models=(serving(1),))
    jobs = jobs_of(world, tmp_path, work.Policy(max_attempts=1))
    begun = jobs.start(Tick(100.0, 0.0), [built_with(SPEC)], rows_of(tmp_path, 3), wanted(shard_rows=3), Prior())
    jobs.tick(Tick(100.2, 0.0))
    assert jobs.outstanding("a") == 1
    lost = Tick(101.0, 0.0)
    world.devices.everybody_lost(lost)
    told = jobs.progress(begun)
    assert (told.quarantined, told.makespan_s) == (1, 1.0)
    jobs.clear()


WIDE: dict[str, object] = {"shape": [1000], "dtype": "int8", "scale": 1 / 256, "zero_point": -128}
"""112 rows of it fit a message as they are stored, 28 as float32."""


@pytest.mark.parametrize(("stored", "rows"), [(True, 100), (False, 28)])
def test_shards_are_larger_where_every_device_answers_as_the_model_stores_numbers(
    tmp_path: Path, stored: bool, rows: int
) -> None:
    world = World("a")
    world.hello("a", models=(serving(1),))
    world.devices.require("a").stored = stored
    jobs = jobs_of(world, tmp_path, work.Policy())
    begun = jobs.start(Tick(100.0, 0.0), [built_with(WIDE)], rows_of(tmp_path, 300), wanted(shard_rows=100), Prior())
    assert begun.shard_rows == rows
    jobs.tick(Tick(100.2, 0.0))
    assert jobs.outstanding("a") >= 1
    jobs.clear()


def test_a_device_whose_answers_would_not_fit_a_message_gets_none_of_such_shards(tmp_path: Path) -> None:
    world = World("a")
    world.hello("a", models=(serving(1),))
    world.devices.require("a").stored = True
    jobs = jobs_of(world, tmp_path, work.Policy())
    jobs.start(Tick(100.0, 0.0), [built_with(WIDE)], rows_of(tmp_path, 3000), wanted(shard_rows=100), Prior())
    world.enrol("old")
    world.hello("old", models=(serving(1),))
    jobs.tick(Tick(100.2, 0.0))
    assert jobs.outstanding("a") >= 1
    assert jobs.outstanding("old") == 0
    jobs.clear()
