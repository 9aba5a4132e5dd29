"""A job's results on the disk, and the file that the reducer makes of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from agent.contract.tensors import Tensor, TensorSpec
from controller import records
from controller.errors import UserError
from controller.job_reduction import Reduction
from controller.job_results import Entry, Results
from controller.reducers.face import About, Array, Reducer
from controller.reducers.registry import make, names
from controller.shards import split

SPEC = TensorSpec("scores", "float32", (3,))
ROWS, SIZE = 10, 4
JOB = records.Job(id="job-1", model="m", version=1, input="", reduce="mine", rows=ROWS, created_at=0.0)
LABELS = np.arange(ROWS) % 3
ABOUT = About(ROWS, (SPEC,), LABELS, np.array([f"row {n}" for n in range(ROWS)]))


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Results]:
    """Shards 2 and 0 of three are accepted, in this order."""
    kept = Results(tmp_path / "jobs", "job-1")
    scores = np.eye(3, dtype=np.float32)[LABELS] * 0.7 + 0.1
    for shard in (split(ROWS, SIZE)[2], split(ROWS, SIZE)[0]):
        values = scores[shard.first : shard.last]
        offset, length = kept.add((Tensor("scores", "float32", values.shape, values.tobytes()),))
        place = (f"agent-{shard.number}", "1" * 64, "litert", 0.25, offset, length)
        kept.remember(Entry(shard.number, shard.first, shard.last, 0, *place))
    kept.file.flush()
    yield kept
    kept.close()


def written(results: Results, reducer: Reducer[Any], folder: Path, kind: str = "npz") -> tuple[Path, dict[str, float]]:
    reduction = Reduction(JOB, reducer, results, folder / "scratch", 10**6)
    reduction.catch_up(1)
    assert reduction.taken == 1
    path, reduced = reduction.write(kind, split(ROWS, SIZE))
    return path, reduced.metrics


def test_an_npz_has_a_row_for_each_row_and_names_who_computed_it(results: Results, tmp_path: Path) -> None:
    path, metrics = written(results, make("score", ABOUT, {"top_k": 2}), tmp_path)
    assert metrics["accuracy"] == 1.0
    with np.load(path) as table:
        assert table["id"].tolist() == [f"row {n}" for n in range(ROWS)]
        assert table["label"].tolist() == [0, 1, 2, 0, -1, -1, -1, -1, 2, 0]
        assert table["device"].tolist() == [0] * 4 + [-1] * 4 + [1] * 2
        assert table["devices"].tolist() == ["agent-0", "agent-2"]
        assert table["top_label"].shape == table["top_probability"].shape == (ROWS, 2)
        assert table["probability"][0] == pytest.approx(0.8)
        assert table["latency_ms"][0] == 0.25
        assert table["confusion"].tolist() == [[3, 0, 0], [0, 1, 0], [0, 0, 2]]


def test_the_same_results_make_the_same_bytes(results: Results, tmp_path: Path) -> None:
    reducer = make("score", ABOUT, {})
    first, second = (written(results, reducer, tmp_path / name)[0].read_bytes() for name in ("one", "two"))
    assert first == second


def test_a_parquet_file_says_the_same_with_names_in_the_rows(results: Results, tmp_path: Path) -> None:
    path, _ = written(results, make("score", ABOUT, {"top_k": 2}), tmp_path, "parquet")
    table = parquet.read_table(path)
    assert table["device"].to_pylist() == ["agent-0"] * 4 + [None] * 4 + ["agent-2"] * 2
    assert table["label"].to_pylist()[:4] == [0, 1, 2, 0]
    assert table["id"].to_pylist()[9] == "row 9"
    assert len(table["output:scores"].to_pylist()[0]) == 3
    assert table.schema.metadata[b"lepta.confusion"] == b"[[3, 0, 0], [0, 1, 0], [0, 0, 2]]"


def test_what_gives_no_rows_gives_arrays(results: Results, tmp_path: Path) -> None:
    path, metrics = written(results, make("stats", ABOUT, {}), tmp_path)
    assert metrics["rows_computed"] == 6
    with np.load(path) as table:
        assert table["mean"].shape == (3,)


THEIRS = """
import numpy as np
from controller.reducers.face import NoColumns, Reduced

class Longest:
    replicas = 1
    def __init__(self, about, settings):
        if settings.get("bad"):
            raise ValueError("bad is not allowed")
        self.breaks = settings.get("breaks", False)
    def empty(self):
        return 0.0
    def add(self, state, rows):
        if self.breaks:
            raise RuntimeError("oh dear")
        return max(state, float(np.linalg.norm(rows.outputs["scores"], axis=1).max()))
    def merge(self, one, other):
        return max(one, other)
    def finish(self, state):
        return NoColumns(Reduced({"longest": state}))
"""


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[None]:
    """A distribution that offers a reducer."""
    site = tmp_path / "site"
    info = site / "theirs-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "theirs_reducer.py").write_text(THEIRS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[lepta.reducers]\nlongest = theirs_reducer:Longest\nabsent = theirs_absent:Nothing\n"
    )
    sys.path.insert(0, str(site))
    yield
    sys.path.remove(str(site))
    sys.modules.pop("theirs_reducer", None)


@pytest.mark.usefixtures("installed")
def test_a_reducer_of_another_distribution_is_found_by_its_name(results: Results, tmp_path: Path) -> None:
    assert "longest" in names()
    _, metrics = written(results, make("longest", ABOUT, {}), tmp_path)
    want: Array = np.array([0.8, 0.1, 0.1])
    assert metrics["longest"] == pytest.approx(float(np.linalg.norm(want)))


@pytest.mark.usefixtures("installed")
def test_what_is_wrong_with_a_foreign_reducer_is_told_in_its_name(results: Results, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="longest does not take these settings: bad is not allowed"):
        make("longest", ABOUT, {"bad": True})
    with pytest.raises(UserError, match="the reducer mine broke: RuntimeError: oh dear"):
        written(results, make("longest", ABOUT, {"breaks": True}), tmp_path)
    with pytest.raises(Exception, match="the reducer absent of theirs_absent:Nothing cannot be loaded"):
        make("absent", ABOUT, {})
