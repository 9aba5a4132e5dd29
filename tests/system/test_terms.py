"""What a version asks of its devices, said where it is deployed or rolled out; and a deployment signed elsewhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.contract import manifest
from agent.contract.manifest import Manifest, Shadow, Watch
from agent.contract.signing import PrivateKey, PublicKey, open_sealed, write_secret
from agent.runtime import load, predict
from controller.commands.root import run
from tests import builders, model_files
from tests.fake_controller import until
from tests.system.world import World

MODEL = "digits"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[World]:
    """With one device. With the parameter `offline` the controller knows the release key's public half only."""
    if getattr(request, "param", "") == "offline":
        key = PrivateKey.generate()
        write_secret(tmp_path / "offline.key", key.pem())
        (tmp_path / "controller").mkdir(mode=0o700)
        (tmp_path / "controller" / "release.pub").write_text(key.public.pem(), encoding="ascii")
    with World(tmp_path) as world:
        world.add_agent("edge-1")
        monkeypatch.setenv("LEPTA_DATA", str(world.data))
        yield world


def manifest_of(world: World, model: str) -> Manifest:
    """What the release key signed for the model's only version."""
    with sqlite3.connect(world.data / "lepta.db") as store:
        [(digest,)] = store.execute("SELECT manifest FROM artifacts WHERE model = ?", (model,))
    store.close()
    path = world.folder / "manifest"
    world.client.get_file(digest, path)
    keys = [PublicKey.from_pem(pem) for pem in world.client.release_keys().release_keys]
    return manifest.decode(open_sealed(path.read_bytes(), manifest.PAYLOAD_TYPE, keys))


def float_model(folder: Path) -> list[str]:
    """`lepta deploy`'s arguments for a model that is right on all its data."""
    content = model_files.float_tflite()
    rows = np.random.default_rng(4).uniform(-2, 2, (800, 32)).astype(np.float32)
    scores = predict(load(content, runtimes=builders.RUNTIMES), {"x": rows})["scores"]
    best = np.sort(scores, axis=1)
    kept = np.argsort(best[:, -2] - best[:, -1])[:400]
    (folder / "digits.tflite").write_bytes(content)
    np.savez(folder / "data.npz", x=rows[kept], y=scores[kept].argmax(axis=1))
    return [str(folder / "digits.tflite"), "--data", str(folder / "data.npz")]


def test_a_version_that_is_rolled_out_with_terms_is_signed_anew_and_its_devices_keep_to_them(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.bring(MODEL, builders.classifier(1))
    before = manifest_of(world, MODEL)
    assert run(["rollout", "start", MODEL, "--group", "site=south", "--runtime", "ai-edge-litert=2.0"]) != 0
    assert "the version is signed for site=south" in capsys.readouterr().err
    assert run(["rollout", "start", MODEL, "--device", "edge-1", "--expires", "30", "--watch", "answers=9"]) == 0
    after = manifest_of(world, MODEL)
    assert after.sequence == before.sequence + 2
    assert (after.target.devices, after.runtime_minimum["ai-edge-litert"]) == (("edge-1",), "2.0")
    assert after.expires_at > 0
    assert after.watch == before.watch, "the watch is of the rollout"
    [wanted] = _state(world)["desired"]
    assert wanted["watch"]["answers"] == 9
    assert world.serves("edge-1", MODEL)


def test_what_serves_already_is_swapped_for_itself_under_new_terms_or_stays_as_it_was(world: World) -> None:
    version = world.bring(MODEL, builders.classifier(1))
    world.roll_out(MODEL, version)
    before = _serving(world)
    assert run(["rollout", "start", MODEL, "--expires", "30"]) == 0
    renewed = _serving(world)
    assert renewed != before
    assert run(["rollout", "start", MODEL, "--expires", "0"]) != 0
    until(lambda: _state(world)["desired"][0]["manifest"] == renewed, "the device is told to go on as before")
    assert _serving(world) == renewed
    assert world.serves("edge-1", MODEL)


def test_a_version_rolled_out_after_its_time_is_refused_by_the_device(world: World) -> None:
    world.bring(MODEL, builders.classifier(1))
    assert run(["rollout", "start", MODEL, "--expires", "0"]) != 0
    until(lambda: [m.cause for m in world.client.device("edge-1").models] in ([], ["expired"]), "refused and withdrawn")


def test_terms_that_cannot_be_used_are_named_before_anything_is_signed(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.bring(MODEL, builders.classifier(1))
    before = manifest_of(world, MODEL)
    answer = world.http.post("/api/v1/releases", json={"model": MODEL, "version": 1, "terms": {"watch": {"a": 1}}})
    assert answer.status_code == 422
    assert "unknown key watch.a" in answer.json()["error"]
    assert run(["rollout", "start", MODEL, "--watch", "answers=0"]) != 0
    assert "--watch: key answers" in capsys.readouterr().err
    assert manifest_of(world, MODEL) == before


@pytest.mark.slow
def test_what_is_said_at_deploy_is_signed_with_the_version(world: World, tmp_path: Path) -> None:
    terms = ["--device", "edge-1", "--watch", "answers=7", "--shadow", "requests=5", "--expires", "2"]
    assert run(["deploy", *float_model(tmp_path), *terms]) == 0
    signed = manifest_of(world, MODEL)
    assert (signed.target.devices, signed.watch, signed.shadow) == (("edge-1",), Watch(answers=7), Shadow(requests=5))
    assert signed.expires_at > signed.issued_at
    assert world.serves("edge-1", MODEL)


@pytest.mark.slow
@pytest.mark.parametrize("world", ["offline"], indirect=True)
def test_a_deployment_whose_key_is_elsewhere_says_what_to_do_and_after_that_it_is_deployed(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["deploy", *float_model(tmp_path), "--watch", "answers=7"]) != 0
    told = capsys.readouterr().err
    assert "built, but not rolled out: digits version 1 for x86-cpu waits for the release key's signature" in told
    for command in ("pending --out FILE", "sign FILE --key KEY", "push FILE"):
        assert f"lepta release {command}" in told
    assert "lepta rollout start digits" in told
    assert run(["rollout", "start", MODEL, "--expires", "3"]) != 0
    assert "this controller does not hold it" in capsys.readouterr().err
    paper = tmp_path / "paper.json"
    assert run(["release", "pending", "--out", str(paper)]) == 0
    key = ["--key", str(tmp_path / "offline.key"), "--group", "site=south", "--watch", "p95_ms=50"]
    assert run(["release", "sign", str(paper), *key]) == 0
    assert run(["release", "push", str(paper)]) == 0
    assert "next: lepta rollout start digits --version 1" in capsys.readouterr().out
    world.client.label_device("edge-1", {"site": "south"})
    assert run(["rollout", "start", MODEL, "--version", "1"]) == 0
    assert world.serves("edge-1", MODEL)
    assert manifest_of(world, MODEL).watch == Watch(answers=7, p95_ms=50.0)


def _state(world: World) -> dict[str, Any]:
    """The device's own."""
    path = world.folder / "edge-1" / "data" / "state.json"
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])


def _serving(world: World) -> str:
    """The manifest of what serves there."""
    return str(_state(world)["models"][MODEL]["serving"]["wanted"]["manifest"])
