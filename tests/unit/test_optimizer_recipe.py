"""Recipes: those that come with Lepta, those of users, and what is wrong with a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.contract.manifest import Shadow, Watch
from controller.artifacts import read_report
from optimizer.errors import RefusedError
from optimizer.recipe import builtin, find, parse, plain


def test_every_builtin_recipe_can_be_read_and_says_what_it_is_for() -> None:
    assert {"default", "ptq", "quick"} <= set(builtin())
    for name in builtin():
        assert find(name).description


def test_ptq_trains_nothing_and_default_prunes() -> None:
    assert find("ptq").prune is None
    assert find("ptq").quantize.qat == "never"
    assert find("default").for_profile("x86-cpu").budgets[0] < 1


def test_a_profile_may_have_its_own_budgets_and_numerics(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        "[prune]\nbudgets = [0.5]\n[profiles.rpi4]\nbudgets = [0.1]\n[profiles.rpi4.quantize]\nqat = 'never'\n"
    )
    recipe = find(str(path))
    assert recipe.for_profile("x86-cpu").budgets == (0.5,)
    own = recipe.for_profile("rpi4")
    assert own.budgets == (0.1,)
    assert own.quantize is not None
    assert own.quantize.qat == "never"


def test_a_recipe_says_how_devices_watch_the_version_and_the_manifest_takes_it_from_the_report() -> None:
    recipe = parse("[watch]\nanswers = 50\n[shadow]\nrequests = 9\n", "mine")
    report = read_report({"artifacts": [], "settings": plain(recipe)})
    assert (report.settings.watch, report.settings.shadow) == (Watch(answers=50), Shadow(requests=9))
    older = read_report({"artifacts": [], "settings": {"prune": None}})
    assert (older.settings.watch, older.settings.shadow) == (Watch(), Shadow())


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[prune", "not TOML"),
        ("[prun]\nbudget = 0.5", "unknown key prun; allowed here: description, distill, prune"),
        ("[prune]\nbudgets = [0.5, 2]", "prune.budgets"),
        ("[prune.after]\nepochs = -1", "key prune.after.epochs"),
        ("[quantize]\nscheme = 'int4'", "'int8'"),
        ("[profiles.rpi4]\nbudget = 0.5", "profiles"),
        ("seeds = 0", "key seeds"),
    ],
)
def test_a_bad_recipe_is_refused_with_the_key_and_what_is_allowed(text: str, part: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parse(text, "mine.toml")
    assert str(caught.value).startswith("mine.toml")
    assert part in str(caught.value)


def test_an_unknown_name_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"no recipe is called 'fast'; there are .*default"):
        find("fast")
    with pytest.raises(RefusedError, match="cannot read the recipe"):
        find(str(tmp_path / "none.toml"))
