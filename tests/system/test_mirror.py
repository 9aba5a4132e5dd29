"""Mirrors that the controller tells of, from the command line to the devices: who is asked, and who gets the token."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.contract.messages import CHUNK_BYTES
from controller.commands.root import run
from tests import builders
from tests.file_server import FileServer
from tests.system.world import World

MODEL = "digits"
CONTENT = builders.slow(60)
BLOBS = {builders.file_ref(content).digest: content for content in (CONTENT, *builders.golden_for(CONTENT))}


def fetched(world: World) -> tuple[str, int]:
    """How version 1 came to the only device."""
    world.add_agent("edge-1")
    world.roll_out(MODEL, world.bring(MODEL, CONTENT))
    [swap] = world.client.device("edge-1").swaps
    return swap.way, swap.fetched_bytes


def test_a_mirror_named_at_lepta_up_brings_everything_but_manifests_and_gets_no_token(tmp_path: Path) -> None:
    with (
        FileServer(BLOBS) as mirror,
        World(tmp_path, ("--broker", "embedded", "--mirror", f"{mirror.url}/fleet")) as world,
    ):
        way, count = fetched(world)
        assert (way, mirror.sent) == ("http", sum(map(len, BLOBS.values())))
        assert count - mirror.sent < CHUNK_BYTES
        assert {(asked.path.rpartition("/")[0], asked.token) for asked in mirror.asked} == {("/fleet", None)}


def test_a_relative_mirror_is_the_controller_which_knows_its_devices_by_their_tokens(tmp_path: Path) -> None:
    """Its files are given to nobody without one."""
    with World(tmp_path, ("--broker", "embedded", "--mirror", "api/v1/files")) as world:
        way, count = fetched(world)
        assert way == "http"
        assert count > sum(map(len, BLOBS.values()))
        assert "is left for" not in (tmp_path / "edge-1.log").read_text()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ftp://x/y", "is no address below which files lie"),
        ("http://user:word@x", "every device would be told"),
        ("http://x/y?z=1", "is no address below which files lie"),
    ],
)
def test_a_mirror_that_no_device_could_use_is_named_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str, words: str
) -> None:
    assert run(["up", "--data", str(tmp_path / "data"), "--mirror", address]) != 0
    assert words in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
