"""Profiles: what is read from TOML, what is refused, and which profile fits which device."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_profiles.profile import (
    Facts,
    Fits,
    Profile,
    ProfileError,
    RuntimeSettings,
    builtin,
    choose,
    find,
    load,
    match,
    parse,
)

LITERT = ("ai-edge-litert",)
PC = Facts(machine="x86_64", memory_mb=8000, runtimes=LITERT)
PI = Facts(machine="aarch64", board="Raspberry Pi 4 Model B Rev 1.4", memory_mb=3800, runtimes=LITERT)
FPGA = Facts(machine="x86_64", memory_mb=8000, accelerators=("fpga",), runtimes=LITERT)

words = st.sampled_from(["alpha", "beta", "gamma", "alphabeta"])
some = st.lists(words, max_size=3, unique=True).map(tuple)
facts = st.builds(
    Facts,
    machine=words,
    system=words,
    board=st.one_of(words, st.just("")),
    memory_mb=st.integers(0, 100),
    accelerators=some,
    runtimes=st.sampled_from([(), LITERT, ("tflite-runtime",), ("ai-edge-litert", "tflite-runtime")]),
)
fits = st.builds(
    Fits,
    machines=some,
    systems=some,
    accelerators=some,
    boards=some,
    min_memory_mb=st.integers(0, 100),
    runtimes=st.sampled_from([(), LITERT, ("tflite-runtime",)]),
)
profiles = st.builds(Profile, name=words, fits=fits, runtime=st.builds(RuntimeSettings, runtimes=st.just(LITERT)))


def only(kept: str, profile: Profile) -> Profile:
    """`profile` with every condition dropped but one; what runtimes it needs is part of each."""
    conditions = {kept: getattr(profile.fits, kept), "runtimes": profile.fits.runtimes}
    return msgspec.structs.replace(profile, fits=Fits(**conditions))


@given(profiles, facts)
def test_a_profile_fits_exactly_when_each_of_its_conditions_does(profile: Profile, device: Facts) -> None:
    fields = Fits.__struct_fields__
    assert match(profile, device).fits == all(match(only(field, profile), device).fits for field in fields)


@given(profiles, facts)
def test_every_condition_yields_one_reason_and_a_misfit_names_why(profile: Profile, device: Facts) -> None:
    result = match(profile, device)
    assert len(result.reasons) == 6
    assert result.fits == all(reason.startswith("ok: ") for reason in result.reasons)


@given(st.lists(profiles, max_size=4), facts)
def test_the_chosen_profile_fits_and_does_not_depend_on_the_order(offered: list[Profile], device: Facts) -> None:
    chosen = choose(offered, device)
    assert (chosen is None) == (not any(match(profile, device).fits for profile in offered))
    assert chosen is None or match(chosen, device).fits
    again = choose(reversed(offered), device)
    assert (again is None) == (chosen is None)
    assert chosen is None or again is None or again.name == chosen.name


@pytest.mark.parametrize(("device", "name"), [(PC, "x86-cpu"), (PI, "rpi4"), (FPGA, "fpga-proxy")])
def test_each_builtin_profile_is_chosen_for_its_device(device: Facts, name: str) -> None:
    chosen = choose(builtin().values(), device)
    assert chosen is not None
    assert chosen.name == name


def test_no_profile_is_chosen_for_a_device_without_a_runtime() -> None:
    bare = Facts(machine="x86_64", memory_mb=8000)
    assert choose(builtin().values(), bare) is None
    assert "no: runtime none, wanted ai-edge-litert or tflite-runtime" in match(builtin()["x86-cpu"], bare).reasons


def test_the_fpga_profile_asks_for_power_of_two_scales_and_names_its_operators() -> None:
    profile = builtin()["fpga-proxy"]
    assert profile.numerics.weights == "power-of-two"
    assert "CONV_2D" in profile.operators


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('name = "a"\nspeed = 3', ["unknown key speed", "allowed here: name, description, fits"]),
        ('name = "a"\n[fits]\nmachine = ["x86_64"]', ["unknown key fits.machine", "machines, systems"]),
        (
            'name = "a"\n[numerics]\nweights = "int4"',
            ["key numerics.weights", "'per-channel' | 'per-tensor' | 'power-of-two'"],
        ),
        ('name = "a"\n[gate]\naccuracy_loss = 2.0', ["key gate.accuracy_loss", ">= 0 and <= 1"]),
        ('name = "a"\n[runtime]\nthreads = 0', ["key runtime.threads", "a whole number >= 1"]),
        ('name = "a"\n[runtime]\nruntimes = []', ["key runtime.runtimes", "at least 1"]),
        ('name = "a"\n[runtime]\nruntimes = ["onnx"]', ["key runtime.runtimes", "'ai-edge-litert' | 'tflite-runtime'"]),
        ('name = "a"\n[fits]\nboards = "Pi"', ["key fits.boards", "a list of text"]),
        ('name = "a"\noperators = ["CONV2D"]', ["key operators", "'CONV2D'", "CONV_2D"]),
        ('name = "A b"', ["key name", "text that matches"]),
        ("[fits]", ["key name", "missing"]),
        ('name = "a"\nfits = 3', ["key fits", "a table with machines"]),
        ("name = ", ["not TOML"]),
    ],
)
def test_a_bad_profile_is_refused_naming_file_key_and_what_is_allowed(text: str, parts: list[str]) -> None:
    with pytest.raises(ProfileError) as caught:
        parse(text, "here.toml")
    for part in ["here.toml", *parts]:
        assert part in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"none\.toml"):
        load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match=r"binary\.toml"):
        load(tmp_path / "binary.toml")


def test_a_profile_is_found_by_name_or_by_file_and_an_unknown_one_lists_what_there_is(tmp_path: Path) -> None:
    assert find("rpi4") == builtin()["rpi4"]
    own = tmp_path / "own.toml"
    own.write_text('name = "own"\n')
    assert find(str(own)).name == "own"
    with pytest.raises(ProfileError, match="fpga-proxy, rpi4, x86-cpu"):
        find("toaster")
