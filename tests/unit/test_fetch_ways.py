"""Blobs come the best way, only missing bytes come again, and no token leaves for anybody but the controller."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import settings as agent_settings
from agent import ways
from agent.chunks import Budget, Ranges, first_of
from agent.contract.messages import CHUNK_BYTES
from agent.disk import RealDisk
from agent.fetching import choice_of
from agent.settings import AgentSettings, Limits
from agent.ways import Choice, Turn
from firmware_profiles.profile import Fetch, Profile
from tests.agent_here import LIMITS, TOKEN, AgentHere, World, quiet
from tests.file_server import FileServer

CHUNKS = 8
QUICK: Limits = msgspec.structs.replace(LIMITS, slow_s=0.3, chunk_silence=0.05)


@pytest.fixture
def world() -> World:
    world = World()
    world.desire(world.release(1, CHUNKS))
    return world


@pytest.fixture
def server(world: World) -> Iterator[FileServer]:
    with quiet(), FileServer(world.blobs) as server:
        yield server


def fetched(world: World, folder: Path, controller: str = "", limits: Limits = QUICK, **settings: str) -> AgentHere:
    told = msgspec.structs.replace(AgentSettings(limits=limits), **settings)
    agent = AgentHere(folder, RealDisk(), world, settings=told, controller=controller)
    came = agent.until(lambda: agent.committed == 1, 10.0)
    agent.cut()
    assert came
    return agent


def all_bytes(world: World) -> int:
    return sum(map(len, world.blobs.values()))


def record(agent: AgentHere) -> tuple[str, int]:
    found = next(report.swap for report in reversed(agent.broker.reported) if report.swap is not None)
    return found.way, found.fetched_bytes


def test_without_a_word_everything_comes_by_mqtt_once(world: World, server: FileServer, tmp_path: Path) -> None:
    agent = fetched(world, tmp_path, controller=server.url)
    assert record(agent) == ("mqtt", all_bytes(world))
    assert (world.sent, server.asked) == (all_bytes(world), [])


def test_by_http_a_cut_costs_only_the_missing_bytes(world: World, server: FileServer, tmp_path: Path) -> None:
    server.cut_at = 3 * CHUNK_BYTES + 500
    agent = fetched(world, tmp_path, controller=server.url, fetch="http")
    assert record(agent) == ("http", all_bytes(world))
    assert all_bytes(world) < server.sent <= all_bytes(world) + CHUNK_BYTES
    assert (world.sent, {asked.token for asked in server.asked}) == (0, {f"Bearer {TOKEN}"})


def test_large_blobs_come_by_http_and_small_ones_by_mqtt(world: World, server: FileServer, tmp_path: Path) -> None:
    world.desire(world.release(1, 10))
    large = max(world.blobs.values(), key=len)
    fetched(world, tmp_path, controller=server.url, limits=msgspec.structs.replace(QUICK, http_mb=1))
    assert server.sent == len(large) > 1 << 20
    assert 0 < world.sent < CHUNK_BYTES


def test_a_mirror_gets_no_token_and_brings_all_but_the_manifest(
    world: World, server: FileServer, tmp_path: Path
) -> None:
    fetched(world, tmp_path, mirror=f"{server.url}/lepta/")
    assert {asked.token for asked in server.asked} == {None}
    assert {asked.path.rpartition("/")[0] for asked in server.asked} == {"/lepta"}
    assert server.sent > (CHUNKS - 1) * CHUNK_BYTES
    assert server.sent + world.sent == all_bytes(world)


def test_a_mirror_that_the_controller_told_of_is_asked_without_a_token_also_after_a_restart(
    world: World, server: FileServer, tmp_path: Path
) -> None:
    world.mirrors = (f"{server.url}/lepta",)
    world.desire(*world.wanted)
    server.blobs = {}
    fetched(world, tmp_path)
    told = len(server.asked)
    assert told > 0
    server.blobs, world.mirrors = dict(world.blobs), ()
    world.desired = b""  # Nobody tells it again.
    for path in (tmp_path / "blobs").iterdir():
        path.unlink()
    world.sent = 0
    fetched(world, tmp_path)
    assert {asked.token for asked in server.asked} == {None}
    assert server.sent + world.sent == all_bytes(world)
    assert len(server.asked) > told


def test_other_mirrors_need_no_new_generation(world: World, server: FileServer, tmp_path: Path) -> None:
    agent = AgentHere(tmp_path, RealDisk(), world)
    assert agent.until(lambda: agent.committed == 1)
    world.mirrors = (server.url,)
    world.say()
    agent.broker.say_desired()
    assert agent.until(lambda: f'"mirrors":["{server.url}"]' in (tmp_path / "state.json").read_text())
    assert agent.broker.reported[-1].generation == world.generation
    agent.cut()


def test_one_mirror_after_the_other_is_asked_before_the_broker(
    world: World, server: FileServer, tmp_path: Path
) -> None:
    with FileServer({}) as empty:
        world.mirrors = (empty.url, server.url)
        world.desire(*world.wanted)
        fetched(world, tmp_path)
        assert empty.asked
    assert server.sent + world.sent == all_bytes(world)
    assert server.sent > (CHUNKS - 1) * CHUNK_BYTES


def test_a_relative_mirror_lies_at_the_controller_and_only_there_the_token_goes(
    world: World, server: FileServer, tmp_path: Path
) -> None:
    with FileServer(world.blobs) as elsewhere:
        server.blobs = {}
        world.mirrors = ("mirrored/", elsewhere.url)
        world.desire(*world.wanted)
        fetched(world, tmp_path, controller=server.url)
        assert {(asked.path.rpartition("/")[0], asked.token) for asked in server.asked} == {
            ("/mirrored", f"Bearer {TOKEN}")
        }
        assert {asked.token for asked in elsewhere.asked} == {None}
        assert elsewhere.sent + world.sent == all_bytes(world)


@pytest.mark.parametrize(
    "wrong",
    [{"redirect": "http://127.0.0.1:9"}, {"status": 404}, {"status": 503}, {"tag": "ab" * 32}, {"shift": 7}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_mirror_that_misbehaves_is_left_for_the_broker(
    world: World, server: FileServer, tmp_path: Path, wrong: dict[str, object]
) -> None:
    for name, value in wrong.items():
        setattr(server, name, value)
    fetched(world, tmp_path, mirror=server.url)
    assert (server.sent < CHUNK_BYTES * CHUNKS, world.sent) == (True, all_bytes(world))


def test_a_mirror_without_range_or_that_breaks_off_serves_too(world: World, server: FileServer, tmp_path: Path) -> None:
    server.status, server.cut_at = 200, 2 * CHUNK_BYTES
    fetched(world, tmp_path, mirror=server.url)
    assert world.sent < CHUNK_BYTES


def test_wrong_bytes_of_a_mirror_are_never_stored_and_the_swap_ends_with_the_right_ones(
    world: World, server: FileServer, tmp_path: Path
) -> None:
    server.blobs = {digest: bytes(len(content)) for digest, content in world.blobs.items()}
    fetched(world, tmp_path, mirror=server.url)
    assert world.sent == all_bytes(world)


def test_a_slow_source_is_left_and_what_it_brought_is_kept(world: World, server: FileServer, tmp_path: Path) -> None:
    server.pause = 0.1
    slow = msgspec.structs.replace(QUICK, slow_kb_s=400.0, slow_s=3.2)
    fetched(world, tmp_path, limits=slow, mirror=server.url)
    assert CHUNK_BYTES < server.sent < CHUNKS * CHUNK_BYTES
    assert all_bytes(world) - 2 * CHUNK_BYTES < world.sent < all_bytes(world)


def test_without_its_broker_answering_the_controllers_http_address_is_tried(
    world: World, server: FileServer, tmp_path: Path
) -> None:
    server.blobs = dict(world.blobs)
    world.blobs.clear()
    agent = fetched(world, tmp_path, controller=server.url)
    assert record(agent) == ("http", sum(map(len, server.blobs.values())))


def test_a_redirect_of_the_controller_is_not_followed(world: World, server: FileServer, tmp_path: Path) -> None:
    with FileServer(world.blobs) as elsewhere:
        server.redirect = elsewhere.url
        fetched(world, tmp_path, controller=server.url, fetch="http")
        assert elsewhere.asked == []
    assert world.sent == all_bytes(world)


@pytest.mark.parametrize("fetch", ["mqtt", "http"])
def test_after_a_reboot_in_the_middle_only_the_missing_bytes_come(
    world: World, server: FileServer, tmp_path: Path, fetch: str
) -> None:
    told = AgentSettings(limits=msgspec.structs.replace(QUICK, fetch_kb_s=200), fetch=fetch)  # type: ignore[arg-type]
    first = AgentHere(tmp_path, RealDisk(), world, settings=told, controller=server.url)
    assert first.until(lambda: world.sent + server.sent > 3 * CHUNK_BYTES)
    first.cut()
    agent = fetched(world, tmp_path, controller=server.url, fetch=fetch)
    assert record(agent)[1] < all_bytes(world) - 2 * CHUNK_BYTES
    assert world.sent + server.sent <= all_bytes(world) + CHUNK_BYTES


def test_the_bandwidth_cap_holds(world: World, tmp_path: Path) -> None:
    capped = AgentSettings(limits=msgspec.structs.replace(QUICK, fetch_kb_s=100))
    agent = AgentHere(tmp_path, RealDisk(), world, settings=capped)
    assert not agent.until(lambda: agent.committed == 1, 5.0)  # It takes nine.
    agent.cut()
    assert CHUNK_BYTES < world.sent <= 100 * 1024 * 5 + 2 * CHUNK_BYTES


# -- deciding


def test_the_order_of_ways_follows_what_the_device_was_told() -> None:
    here = Choice(controller=True)
    assert ways.order(Choice(), 5) == ("mqtt",)
    assert ways.order(here, 5) == ("mqtt", "http")
    assert ways.order(msgspec.structs.replace(here, fetch="http"), 5) == ("http", "mqtt")
    assert ways.order(msgspec.structs.replace(here, http_mb=1), 1 << 20) == ("http", "mqtt")
    assert ways.order(msgspec.structs.replace(here, http_mb=1), 1000) == ("mqtt", "http")
    mirrored = msgspec.structs.replace(here, mirrors=("http://a/", "http://b/"))
    assert ways.order(mirrored, 5) == ("http://a/", "http://b/", "mqtt", "http")
    assert ways.order(mirrored, None) == ways.order(mirrored, 5, public=False) == ("mqtt", "http")


def test_a_devices_own_mirror_comes_before_those_it_is_told_of_and_relative_ones_belong_to_the_controller() -> None:
    told = ["https://a.example/x", "files/", "/y", "ftp://b.example", "http://["]
    assert ways.mirrors("http://own", told, "https://here:8000") == (
        "http://own/",
        "https://a.example/x/",
        "https://here:8000/files/",
        "https://here:8000/y/",
    )
    assert ways.mirrors("", ["files/"], "") == ()


def test_an_origin_is_scheme_host_and_port() -> None:
    assert ways.origin("http://here/a") == ways.origin("http://HERE:80") != ways.origin("https://here")
    assert ways.origin("http://here:x") is ways.origin("//here") is None


def test_a_class_of_devices_fetches_as_its_profile_says_unless_a_device_was_told_otherwise() -> None:
    class_ = Profile(name="large", fetch=Fetch(way="http", http_mb=8))
    silent = AgentSettings()
    own = AgentSettings(fetch="mqtt", limits=Limits(http_mb=0))
    for settings, class_of, expected in (
        (silent, None, ("mqtt", 0)),
        (silent, class_, ("http", 8)),
        (own, class_, ("mqtt", 0)),
    ):
        choice = choice_of(settings, class_of, controller=True)
        assert (choice.fetch, choice.http_mb) == expected


def test_the_last_way_is_left_only_when_it_says_that_it_will_never_work() -> None:
    turn, choice = Turn(ways=("mqtt",), since=0.0), Choice()
    assert ways.looked(turn, choice, 0, 1000.0).ways == ("mqtt",)
    for _ in range(20):
        turn = ways.failed(turn, choice, 0, for_good=False)
    assert turn.ways == ("mqtt",)
    assert ways.failed(turn, choice, 0, for_good=True).ways == ()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=5), st.integers(0, 60))
def test_of_ranges_exactly_the_first_chunks_are_taken(spans: list[tuple[int, int]], count: int) -> None:
    wanted: Ranges = tuple((100 * n + first, 100 * n + first + more) for n, (first, more) in enumerate(spans))
    flat = [number for first, last in wanted for number in range(first, last + 1)]
    assert [n for first, last in first_of(wanted, count) for n in range(first, last + 1)] == flat[:count]


@given(st.lists(st.floats(0, 5), max_size=30), st.integers(1, 1000))
def test_never_more_is_asked_for_than_the_budget_allows(waits: list[float], rate_kb: int) -> None:
    budget, now, asked = Budget(rate_kb * 1024, 0.0), 0.0, 0
    for wait in waits:
        now += wait
        if count := budget.chunks(now):
            budget.spend(((1, count),))
            asked += count
    assert asked * CHUNK_BYTES <= now * rate_kb * 1024 + CHUNK_BYTES


def test_a_mirror_that_is_no_url_is_named(tmp_path: Path) -> None:
    with pytest.raises(agent_settings.SettingsError, match=r"agent\.toml: key 'mirror'"):
        agent_settings.parse({"mirror": "ftp://x"}, "agent.toml")
