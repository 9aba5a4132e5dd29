"""Jobs as the loop sees them: what a lost device means for those that computed with it. The bus is a double."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import msgspec
import numpy as np

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

SPEC = {"shape": [4], "dtype": "float32", "transforms": []}


def test_a_job_whose_last_shard_is_given_up_with_its_lost_device_ends(tmp_path: Path) -> None:
    world = World("a")
    world.hello("a", models=(serving(1),))
    jobs = Jobs(
        tmp_path / "jobs",
        Catalog(tmp_path / "files", cast(Store, None)),  # Nothing here is large enough for it.
        world.devices,
        Outbox(cast(Bus, world.bus), Stamper("boot"), PrivateKey.generate()),
        Silence(),
        policy=work.Policy(max_attempts=1),
        most_open=1,
        stall_s=60.0,
        scratch_bytes=1 << 20,
        watchers=1,
        new_id=lambda kind: f"{kind}-1",
        deliver=lambda _event: None,
    )
    (tmp_path / "rows").write_bytes(np.zeros((3, 4), np.float32).tobytes())
    data = Source(Layout(3, {"x": Stored("", 0, "<f4", (4,), "float32")}), tmp_path / "rows", tmp_path)
    built = msgspec.structs.replace(
        artifact(1), report={"inputs": [{"name": "x", **SPEC}], "outputs": [{"name": "scores", **SPEC}]}
    )
    wanted = records.Job(id="", model="digits", version=1, input="", reduce="score", shard_rows=3, created_at=0.0)
    begun = jobs.start(Tick(100.0, 0.0), [built], data, wanted, Prior())
    jobs.tick(Tick(100.2, 0.0))
    assert jobs.outstanding("a") == 1
    lost = Tick(101.0, 0.0)
    world.devices.everybody_lost(lost)
    told = jobs.progress(begun)
    assert (told.quarantined, told.makespan_s) == (1, 1.0)
    jobs.clear()
