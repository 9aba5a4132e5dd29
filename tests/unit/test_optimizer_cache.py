"""What passes made is found again by all that went in, appears whole, and stays within its quota."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from optimizer.cache import Cache, key_of
from optimizer.errors import RefusedError
from optimizer.passes import Kind, Progress
from optimizer.runner import Runner
from optimizer.steps import Finished, Work


class Copying:
    """The port of steps: every pass writes what its input holds, in capitals."""

    def __init__(self) -> None:
        self.runs = 0

    def warm(self, *kinds: Kind) -> None:
        assert kinds

    def run(self, work: Work, progress: Progress) -> Finished:
        self.runs += 1
        (work.out / "model.tflite").write_text(work.inputs["source"].read_text().upper())
        return Finished({"runs": self.runs}, 1.0, 50.0)


def runner(steps: Copying, folder: Path, limit: int = 1 << 20) -> Runner:
    (folder / "work").mkdir(exist_ok=True)
    return Runner(steps, folder / "work", Cache(folder / "cache", limit), lambda *_: None)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_text("weights")
    return path


def test_the_same_pass_is_done_once_also_by_another_run(source: Path, tmp_path: Path) -> None:
    steps = Copying()
    first = runner(steps, tmp_path).do("quantize", {"source": source}, {"scheme": "int8"})
    again = runner(steps, tmp_path).do("quantize", {"source": source}, {"scheme": "int8"})
    assert steps.runs == 1
    assert (first.remembered, again.remembered) == (False, True)
    assert (again.folder / "model.tflite").read_text() == "WEIGHTS"
    assert again.manifest == first.manifest == {"runs": 1}
    assert (again.wall_s, first.wall_s) == (0.0, 1.0)


def test_other_settings_another_input_and_another_pass_are_done_anew(source: Path, tmp_path: Path) -> None:
    steps = Copying()
    made = runner(steps, tmp_path)
    made.do("quantize", {"source": source}, {"scheme": "int8"})
    made.do("quantize", {"source": source}, {"scheme": "float16"})
    made.do("power-of-two", {"source": source}, {"scheme": "int8"})
    source.write_text("others")
    found = made.do("quantize", {"source": source}, {"scheme": "int8"})
    assert steps.runs == 4
    assert (found.folder / "model.tflite").read_text() == "OTHERS"


def test_measurements_are_made_anew_by_every_run_and_every_time(source: Path, tmp_path: Path) -> None:
    steps = Copying()
    made = runner(steps, tmp_path)
    for _ in range(2):
        made.do("evaluate", {"source": source}, {})
    assert steps.runs == 2
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=2500)
    for at, key in enumerate(("a", "b")):
        made = cache.new()
        (made / "file").write_bytes(bytes(1000))
        os.utime(cache.keep(key, made, {}), (at, at))
    assert cache.find("a")
    made = cache.new()
    (made / "file").write_bytes(bytes(1000))
    cache.keep("c", made, {})
    assert [cache.find(key) is not None for key in "abc"] == [True, False, True]


def test_what_a_killed_process_left_behind_is_removed_and_is_never_a_result(tmp_path: Path) -> None:
    abandoned = tmp_path / ".new-99999999-x"
    abandoned.mkdir()
    (abandoned / "file").write_text("half")
    cache = Cache(tmp_path, 1000)
    assert not abandoned.exists()
    mine = cache.new()
    Cache(tmp_path, 1000)
    assert mine.exists()


def test_a_damaged_result_is_no_result(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    cache.keep("a", cache.new(), {"x": 1})
    (tmp_path / "a" / "manifest.json").write_text("{")
    assert cache.find("a") is None


def test_a_key_holds_all_that_decides(tmp_path: Path) -> None:
    same = [key_of("prune", 1, {"a": "1", "b": "2"}, {"x": 1, "y": 2}, {"t": "1"}) for _ in range(2)]
    others = [
        key_of("prune", 2, {"a": "1", "b": "2"}, {"x": 1, "y": 2}, {"t": "1"}),
        key_of("prune", 1, {"a": "2", "b": "1"}, {"x": 1, "y": 2}, {"t": "1"}),
        key_of("prune", 1, {"a": "1", "b": "2"}, {"x": 1, "y": 3}, {"t": "1"}),
        key_of("prune", 1, {"a": "1", "b": "2"}, {"x": 1, "y": 2}, {"t": "2"}),
    ]
    assert len({*same, *others}) == 5
    assert key_of("p", 1, {"b": "2", "a": "1"}, {}, {}) == key_of("p", 1, {"a": "1", "b": "2"}, {}, {})


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RefusedError, match="cannot be used as a cache"):
        Cache(tmp_path / "file" / "cache", 1)


def test_a_result_counts_as_used_when_it_is_found(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    cache.keep("a", cache.new(), {})
    os.utime(tmp_path / "a", (1, 1))
    cache.find("a")
    assert time.time() - (tmp_path / "a").stat().st_mtime < 60
