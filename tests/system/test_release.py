"""The release key on another machine, a rotation, and the bundle that other tools check: real processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.contract.signing import PrivateKey, write_secret
from controller.bundle import FILES, SIGNATURE, check_bundle, sign_bundle
from controller.client.http import ApiError
from controller.commands.root import run
from tests import builders
from tests.fake_controller import until
from tests.system.world import World

MODEL = "digits"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A controller that knows the release key's public half only."""
    key = PrivateKey.generate()
    write_secret(tmp_path / "offline.key", key.pem())
    data = tmp_path / "controller"
    data.mkdir(mode=0o700)
    (data / "release.pub").write_text(key.public.pem(), encoding="ascii")
    with World(tmp_path) as world:
        world.add_agent("edge-1")
        monkeypatch.setenv("LEPTA_DATA", str(world.data))
        yield world


def test_a_version_rolls_out_only_once_it_was_signed_where_the_key_is(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = world.bring(MODEL, builders.classifier(1))
    assert not world.client.release_keys().signs_here
    with pytest.raises(ApiError, match="waits for the release key's signature"):
        world.client.release(MODEL, version)
    paper, stranger = tmp_path / "paper.json", tmp_path / "stranger.key"
    assert run(["release", "pending", "--out", str(paper)]) == 0
    unsigned = paper.read_bytes()
    assert run(["release", "key", str(stranger)]) == 0
    assert run(["release", "sign", str(paper), "--key", str(stranger)]) == 0
    assert run(["release", "push", str(paper)]) != 0
    assert "not a release key here" in capsys.readouterr().err
    paper.write_bytes(unsigned)
    _sign_and_push(paper, tmp_path / "offline.key", "--expires", "30")
    assert run(["rollout", "start", MODEL]) == 0
    assert run(["release", "pending"]) == 0
    assert "nothing waits" in capsys.readouterr().out


def test_a_version_signed_for_other_devices_is_placed_on_none_of_the_rest(world: World, tmp_path: Path) -> None:
    version = world.bring(MODEL, builders.classifier(1))
    paper = tmp_path / "paper.json"
    assert run(["release", "pending", "--out", str(paper)]) == 0
    _sign_and_push(paper, tmp_path / "offline.key", "--group", "site=south")
    rollout = world.client.start_rollout(world.client.release(MODEL, version).id)
    assert [d.reason for d in world.client.rollout(rollout.id).devices] == ["the version is signed for site=south"]


def test_after_a_rotation_the_fleet_takes_what_the_new_key_signed(world: World, tmp_path: Path) -> None:
    fresh, root_key, trusted = tmp_path / "fresh.key", tmp_path / "root.key", tmp_path / "keys.json"
    assert run(["release", "key", str(fresh)]) == 0
    assert run(["release", "key", str(root_key)]) == 0
    assert run(["release", "keys", "--out", str(trusted)]) == 0
    following = ["release", "root", str(trusted), "--root-key", str(root_key.with_suffix(".pub"))]
    following += ["--release-key", str(fresh.with_suffix(".pub")), "--out", str(tmp_path / "root.json")]
    assert run([*following, "--sign", str(root_key)]) != 0  # Today's root key did not say so.
    assert run([*following, "--sign", str(root_key), "--sign", str(tmp_path / "offline.key")]) == 0
    assert run(["release", "trust", str(tmp_path / "root.json")]) == 0
    world.bring(MODEL, builders.classifier(1))
    paper = tmp_path / "paper.json"
    assert run(["release", "pending", "--out", str(paper)]) == 0
    _sign_and_push(paper, fresh)
    assert run(["rollout", "start", MODEL]) == 0
    assert world.client.release_keys().version == 1


def test_below_a_floor_nothing_is_installed_and_what_serves_goes_on(world: World, tmp_path: Path) -> None:
    versions = [world.bring(MODEL, builders.classifier(number)) for number in (1, 2)]
    paper = tmp_path / "paper.json"
    assert run(["release", "pending", "--out", str(paper)]) == 0
    _sign_and_push(paper, tmp_path / "offline.key")
    world.roll_out(MODEL, versions[1])
    assert run(["release", "floor", MODEL, str(versions[1])]) == 0
    assert run(["rollout", "start", MODEL, "--version", str(versions[0])]) != 0
    until(lambda: [m.cause for m in world.client.device("edge-1").models if m.state == "refused"] == ["sequence"], "no")
    assert world.serves("edge-1", MODEL)


@pytest.mark.model_signing
def test_the_model_signing_tool_verifies_an_artifact_and_refuses_a_changed_one(world: World, tmp_path: Path) -> None:
    world.bring(MODEL, builders.classifier(1))
    paper, folder = tmp_path / "paper.json", tmp_path / "artifact"
    assert run(["release", "pending", "--out", str(paper)]) == 0
    _sign_and_push(paper, tmp_path / "offline.key")
    assert run(["release", "bundle", MODEL, "--out", str(folder)]) == 0
    public = world.data / "release.pub"
    verified = _verify(folder, public)
    assert verified.returncode == 0, verified.stderr
    model = folder / FILES["model"]
    model.write_bytes(builders.changed_byte(model.read_bytes()))
    assert _verify(folder, public).returncode != 0


def test_a_bundle_is_good_for_its_files_and_its_key_only() -> None:
    content = builders.classifier(1)
    manifest = builders.manifest_for(content, builders.golden_for(content))
    other = builders.manifest_for(builders.classifier(2), builders.golden_for(content))
    key = PrivateKey.generate()
    bundle = sign_bundle(manifest, key)
    check_bundle(bundle, manifest, key.public)
    for described, signer in ((other, key), (manifest, PrivateKey.generate())):
        with pytest.raises(ValueError, match=r"other files|changed"):
            check_bundle(bundle, described, signer.public)


def _sign_and_push(paper: Path, key: Path, *terms: str) -> None:
    assert run(["release", "sign", str(paper), "--key", str(key), *terms]) == 0
    assert run(["release", "push", str(paper)]) == 0


def _verify(folder: Path, public: Path) -> subprocess.CompletedProcess[str]:
    tool = os.environ.get("LEPTA_MODEL_SIGNING", "model_signing")
    command = [tool, "verify", "key", str(folder), "--signature", str(folder / SIGNATURE), "--public_key", str(public)]
    return subprocess.run(command, check=False, capture_output=True, text=True)
