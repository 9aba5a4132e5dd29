"""The Python API: what may be given, what is refused with a hint, and what a result tells."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import optimizer
from agent.contract.children import environment
from firmware_profiles.profile import find as find_profile
from optimizer import given
from optimizer.api import PAGE, Result
from optimizer.folder import REPORT
from optimizer.page import page
from optimizer.recipe import find, plain
from optimizer.report import to_json
from tests.reports import FILE, bare, full

X, Y = np.zeros((6, 4), np.float32), np.arange(6)


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'tensorflow', 'keras', 'jinja2', 'msgspec'}"
    check = f"import sys, optimizer; assert not {heavy} & set(sys.modules); optimizer.optimize; "
    check += "assert not {'numpy', 'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, env=environment(), timeout=60)


def test_everything_that_is_promised_is_there() -> None:
    for name in optimizer.__all__:
        assert getattr(optimizer, name) is not None
        assert name in dir(optimizer)
    with pytest.raises(AttributeError, match="optimise"):
        getattr(optimizer, "optimise")  # noqa: B009 - mypy knows that it is not there


def test_every_refusal_is_an_error_of_the_optimizer() -> None:
    for kind in (optimizer.RefusedError, optimizer.StepError, optimizer.CancelledError):
        assert issubclass(kind, optimizer.OptimizerError)


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (X, {"x": X}),
        ((X, Y), {"x": X, "labels": Y}),
        ((X.tolist(), Y.tolist()), {"x": X, "labels": Y}),
        ({"train/x": X, "test/labels": Y}, {"train/x": X, "test/labels": Y}),
        ({"file": X}, {"file": X}),
    ],
)
def test_arrays_become_a_file_with_the_same_arrays(data: Any, names: dict[str, Any], tmp_path: Path) -> None:
    with np.load(given.data_file(data, tmp_path), allow_pickle=False) as found:
        assert set(found) == set(names)
        for name, array in names.items():
            assert np.array_equal(found[name], array)


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ((X, Y, X), "tuple of 3"),
        ({}, "no arrays"),
        ({3: X}, "no name of an array"),
        ({"../x": X}, "no name of an array"),
        ({"x": np.array([object()])}, "give arrays of numbers"),
        ({"x": ["a", "b"]}, "give arrays of numbers"),
        ({"x": [[1, 2], [3]]}, "no array of numbers"),
        (None, "give arrays of numbers"),
        (3, "give arrays of numbers"),
    ],
)
def test_data_that_is_none_is_refused_with_a_hint(data: Any, hint: str, tmp_path: Path) -> None:
    with pytest.raises(optimizer.RefusedError, match=hint):
        given.data_file(data, tmp_path)


@pytest.mark.parametrize(("model", "hint"), [(3, "model is int"), (None, "NoneType"), (X, "model of Keras 3")])
def test_what_is_no_model_is_refused_with_a_hint(model: Any, hint: str, tmp_path: Path) -> None:
    with pytest.raises(optimizer.RefusedError, match=hint):
        given.model_file(model, tmp_path)


def test_a_recipe_is_a_name_a_path_text_or_an_object(tmp_path: Path) -> None:
    assert given.recipe_name("default", tmp_path) == ""
    assert given.recipe_name("ptq", tmp_path) == "ptq"
    assert given.recipe_name("mine.toml", tmp_path) == str(Path("mine.toml").absolute())
    assert given.recipe_name(Path("mine.toml"), tmp_path) == str(Path("mine.toml").absolute())
    text = given.recipe_name('[quantize]\nscheme = "float16"\n', tmp_path)
    assert find(text).quantize.scheme == "float16"
    quick = find("quick")
    assert find(given.recipe_name(quick, tmp_path)) == quick


@pytest.mark.parametrize(
    ("recipe", "hint"),
    [("[quantise]\n", "quantise"), ("a = ", "not TOML"), (3, "recipe is int"), ("seeds = 0", "seeds")],
)
def test_a_recipe_that_is_none_is_refused_with_a_hint(recipe: Any, hint: str, tmp_path: Path) -> None:
    with pytest.raises(optimizer.RefusedError, match=hint):
        given.recipe_name(recipe, tmp_path)


def test_profiles_are_names_paths_or_objects_and_one_may_stand_alone(tmp_path: Path) -> None:
    rpi4 = find_profile("rpi4")
    assert given.profile_names("rpi4", tmp_path) == ["rpi4"]
    made = given.profile_names([rpi4, "x86-cpu", Path("mine.toml")], tmp_path)
    assert find_profile(made[0]) == rpi4
    assert made[1:] == ["x86-cpu", str(Path("mine.toml").absolute())]
    given_alone = given.profile_names(rpi4, tmp_path)
    assert find_profile(given_alone[0]) == rpi4
    wrong: Any = [3]
    with pytest.raises(optimizer.RefusedError, match="a profile is int"):
        given.profile_names(wrong, tmp_path)


def test_preprocessing_is_an_object_or_a_mapping(tmp_path: Path) -> None:
    how = optimizer.Preprocessing(height=8, width=8)
    assert given.preprocessing_of(how) == plain(how)
    assert given.preprocessing_of({"height": 8, "width": 8}) == {"height": 8, "width": 8}
    assert given.preprocessing_of(None) is None
    with pytest.raises(optimizer.RefusedError, match="tall"):
        given.preprocessing_of({"tall": 8})
    with pytest.raises(optimizer.RefusedError, match="width"):
        given.preprocessing_of({"height": 8})


@pytest.mark.parametrize(
    ("changed", "hint"),
    [
        ({"name": "No Name"}, "No Name"),
        ({"profiles": ()}, "profiles"),
        ({"profiles": ("nothing-like-it",)}, "nothing-like-it"),
        ({"recipe": "no-such-recipe"}, "no-such-recipe"),
        ({"seed": -1}, "seed"),
        ({"model": "/nowhere/model.keras"}, "model.keras"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_work_and_leaves_nothing(
    changed: dict[str, Any], hint: str, tmp_path: Path
) -> None:
    request = {"model": tmp_path / "m.keras", "data": X, "out": tmp_path / "out", **changed}
    (tmp_path / "m.keras").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(optimizer.OptimizerError, match=hint):
        optimizer.optimize(**request)
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    (out / REPORT).write_bytes(to_json(full()))
    (out / PAGE).write_text(page(full()))
    (out / FILE.file).write_bytes(b"tflite")
    return out


def test_a_result_reads_what_a_run_left(folder: Path) -> None:
    result = Result(folder)
    assert result.report == full()
    built = result.artifacts["x86-cpu"]
    assert built.path.read_bytes() == b"tflite"
    assert (built.bytes, built.parameters, built.macs) == (31_208, 23_301, 1_471_088)
    assert (built.accuracy, built.accuracy_before, built.latency_ms) == (0.9899, 0.9924, 0.0421)
    assert "GELU" in result.rejected["fpga-proxy"][0]
    assert repr(built) == "<x86-cpu: pruned to 25 %, int8, 31.2 kB, x.tflite>"
    assert repr(result).startswith("<Result: 2 artifacts, 1 rejected")


def test_a_result_prints_a_short_table(folder: Path) -> None:
    lines = str(Result(folder)).splitlines()
    assert len(lines) == 4
    assert lines[0].split() == ["profile", "made", "parameters", "size", "latency", "accuracy"]
    assert "93,322 -> 23,301" in lines[1]
    assert "373 kB -> 31.2 kB" in lines[1]
    assert "99.24 % -> 98.99 %" in lines[1]
    assert lines[3].startswith("fpga-proxy  rejected: operators GELU")
    (folder / REPORT).write_bytes(to_json(bare()))
    assert str(Result(folder)) == "x86-cpu  rejected: SQNR of 9.0 dB, at least 15.0 dB"


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(folder: Path) -> None:
    shown = Result(folder)._repr_html_()
    assert shown.startswith('<iframe sandbox=""')
    assert shown.count("<") == 2
    assert "&lt;h1&gt;digits" in shown


def test_a_result_is_saved_whole_and_its_own_folder_goes_with_it(folder: Path, tmp_path: Path) -> None:
    result = Result(folder, kept=False)
    saved = result.save(tmp_path / "deep" / "saved")
    assert {path.name for path in saved.iterdir()} == {REPORT, PAGE, FILE.file}
    del result
    assert not folder.exists()
    assert msgspec.json.decode((saved / REPORT).read_bytes())["model"] == "digits"


def test_the_guides_recipes_and_calls_are_those_that_there_are(tmp_path: Path) -> None:
    guide = Path(__file__).parents[2].joinpath("docs/guides/optimize.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w+)\n(.*?)```", guide, re.DOTALL)
    (recipe,) = (text for kind, text in blocks if kind == "toml")
    assert optimizer.parse_recipe(recipe, "guide").prune is not None
    asked = " ".join(text for kind, text in blocks if kind == "python")
    for name in re.findall(r"optimizer\.(\w+)", asked):
        assert name in optimizer.__all__, name
    for name in re.findall(r"built\.(\w+)", asked):
        assert hasattr(optimizer.Built, name) or name == "path", name
