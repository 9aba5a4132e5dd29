"""What `lepta recipe`, `lepta run` and `lepta deploy` show and send of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib

from controller.commands import root
from controller.commands.made import bought_line
from controller.commands.optimize import cache_folder
from controller.progress import detail_of
from controller.replies import Artifact
from tests.rest_double import RestDouble, served

PRUNED = Artifact(
    profile="rpi4",
    made="pruned to 25 %, int8",
    bytes=31_200,
    bytes_before=376_000,
    parameters=23_310,
    parameters_before=93_322,
    macs=1_440_000,
    macs_before=5_917_312,
    accuracy_float=0.9924,
    accuracy_int8=0.9899,
)


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RestDouble]:
    double = RestDouble()
    with served(double, tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield double


def test_one_line_says_what_was_bought() -> None:
    assert bought_line(PRUNED) == (
        "pruned to 25 %, int8: 93,322 parameters became 23,310, 376.0 kB became 31.2 kB (12.1x), "
        "5.9 M MACs became 1.4 M, accuracy 99.24 % -> 98.99 %"
    )
    assert bought_line(Artifact(profile="rpi4", bytes=1)) == ""


@pytest.mark.parametrize(
    ("left_s", "told"),
    [
        (None, "epoch 3"),
        (0.4, "epoch 3"),
        (7.4, "epoch 3, about 7 s left"),
        (88.0, "epoch 3, about 90 s left"),
        (400.0, "epoch 3, about 7 min left"),
    ],
)
def test_the_time_that_is_left_is_told_roughly(left_s: float | None, told: str) -> None:
    assert detail_of("epoch 3", left_s) == told


def test_every_recipe_that_is_listed_can_be_shown_and_is_toml(capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["recipe", "ls"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert {"default", "ptq", "quick"} <= set(names)
    for name in names:
        assert root.run(["recipe", "show", name]) == 0
        assert tomllib.loads(capsys.readouterr().out)["description"]


def test_an_unknown_recipe_is_refused_before_anything_is_sent(
    controller: RestDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.keras").write_bytes(b"model")
    files = [str(tmp_path / "m.keras"), "--data", str(tmp_path / "m.keras")]
    assert root.run(["deploy", *files, "--recipe", "fastest"]) == 1
    assert root.run(["deploy", *files, "--recipe", str(tmp_path / "nowhere.toml")]) == 1
    assert not controller.deployed
    assert "no recipe is called 'fastest'" in capsys.readouterr().err


def test_deploy_sends_folders_packed_and_a_recipe_as_text(controller: RestDouble, tmp_path: Path) -> None:
    (tmp_path / "saved" / "variables").mkdir(parents=True)
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"model")
    (tmp_path / "own.toml").write_text("[quantize]\nqat = 'never'\n")
    files = [str(tmp_path / "saved"), "--data", str(tmp_path / "saved")]
    options = ["--recipe", str(tmp_path / "own.toml"), "--no-compare", "--trust"]
    assert root.run(["deploy", *files, *options]) == 0
    sent = controller.deployed
    assert (sent["recipe"], sent["compare"], sent["trust"]) == ("[quantize]\nqat = 'never'\n", "false", "true")
    assert sent["model"].startswith(b"PK")
    assert b"saved_model.pb" in sent["data"]


def test_a_run_is_watched_to_its_end(controller: RestDouble, capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["run", "show", "run-1", "--watch"]) == 0
    out = capsys.readouterr().out
    assert "prune for x86-cpu" in out
    assert "run run-1: digits version 1, done" in out


def test_a_report_is_a_table_json_or_a_page(
    controller: RestDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert root.run(["run", "report", "run-1"]) == 0
    assert "x86-cpu" in capsys.readouterr().out
    assert root.run(["run", "report", "run-1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["artifacts"][0]["profile"] == "x86-cpu"
    assert root.run(["run", "report", "run-1", "--html", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text() == "<!doctype html>"


def test_passes_are_remembered_in_the_users_cache_folder() -> None:
    assert cache_folder({"XDG_CACHE_HOME": "/var/cache/me"}) == Path("/var/cache/me/lepta/optimizer")
    assert cache_folder({"XDG_CACHE_HOME": "relative"}) == Path.home() / ".cache/lepta/optimizer"
    assert cache_folder({}) == Path.home() / ".cache/lepta/optimizer"
