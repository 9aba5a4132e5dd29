"""A controller on one host, agents on another: they join, serve, and outlive cut cables, dead brokers and moves."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec
import numpy as np
import psutil
import pytest

from agent.contract.golden import Array
from agent.runtime import load, predict
from agent.service.presence import Shown
from controller import replies
from controller.client import locate
from controller.client.rest import Client
from controller.errors import LeptaError
from tests import builders
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.program import Program
from tests.namespaces import V4, V6, Host, two_hosts
from tests.system.test_fleet import until

pytestmark = [pytest.mark.root, pytest.mark.debian, pytest.mark.slow]

T = TypeVar("T")
_NAME, _PORT = "ctl.test", 8000
_CUT_S = 30.0
_BACK_S = 60.0


class Site(Fleet):
    """`lepta up --lan` on host `here`, agents on host `there`."""

    def __init__(self, folder: Path, here: Host, there: Host) -> None:
        super().__init__(folder)
        self.here, self.there = here, there

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.there.knows(ctl_test=f"{V4}.1")
        self.start()
        return self

    def start(self) -> None:
        known = ["--lan", "--name", _NAME, "--name", f"{V4}.1", "--name", f"{V6}:1"]
        arguments = ["up", *known, "--data", str(self.data), "--port", str(_PORT)]
        self.controller = Program("controller.cli", arguments, self.folder / "up.log", self.here.prefix)
        self.controller.until(self._is_ready, "the controller's start")

    def ask(self, question: Callable[[Client], T]) -> T:
        def asked() -> T:
            with Client(locate.in_folder(self.data)) as client:
                return question(client)

        return self.here.do(asked)

    def join(self, name: str, url: str, config: str = "") -> Program:
        """An agent that joins by `url` and runs; returns when the controller has heard of it."""
        home = self.folder / name
        home.mkdir()
        (home / "agent.toml").write_text(config)
        claim = self.ask(lambda client: client.claim())
        (home / "claim").write_text(claim.token)
        told = ["--token-file", str(home / "claim"), "--ca-fingerprint", claim.ca_fingerprint, "--name", name]
        where = ["--data", str(home / "data"), "--config", str(home / "agent.toml")]
        program = Program(
            "agent.cli", ["join", url, *told, *where, "--run"], self.folder / f"{name}.log", self.there.prefix
        )
        self.agents[name] = program
        program.until(lambda: self._is_online(name), f"{name} coming online")
        return program

    def deploy(self, model: str, content: bytes) -> None:
        def now(client: Client) -> None:
            self.client = client
            self.roll_out(model, self.push(model, content))

        self.ask(now)

    def answers(self, model: str, x: dict[str, Array]) -> bool:
        """Whether a request is answered now."""
        try:
            return bool(self.ask(lambda client: client.infer(model, x)).outputs)
        except LeptaError:
            return False

    def shown(self, name: str) -> Shown:
        return msgspec.json.decode((self.folder / name / "data" / "status.json").read_bytes(), type=Shown)

    def _is_ready(self) -> bool:
        try:
            return self.ask(lambda client: client.ready())
        except LeptaError:
            return False

    def _is_online(self, name: str) -> bool:
        return any(device.name == name and device.online for device in self.ask(lambda client: client.devices()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for program in [*self.agents.values(), self.controller]:
            program.stop()


@pytest.fixture(scope="module")
def content() -> bytes:
    return builders.slow()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> Iterator[Site]:
    """The agent `pi` joined by the controller's name and serves the model `slow`, 20 ms a row."""
    with two_hosts() as (here, there), Site(tmp_path_factory.mktemp("site"), here, there) as site:
        site.join("pi", f"https://{_NAME}:{_PORT}", "[simulate]\nextra_ms_per_row = 20.0\n")
        site.deploy("slow", content)
        yield site


@pytest.fixture
def x(content: bytes) -> dict[str, Array]:
    return builders.random_inputs(load(content, runtimes=builders.RUNTIMES), 1)


def test_another_host_answers_and_listens_on_nothing(site: Site, x: dict[str, Array]) -> None:
    assert site.answers("slow", x)
    assert site.there.listening() == []


def test_a_cut_cable_costs_no_row_and_no_process(site: Site, content: bytes, tmp_path: Path) -> None:
    pids = set(site.agents["pi"].pids)
    model = load(content, runtimes=builders.RUNTIMES)
    inputs = builders.random_inputs(model, 400)
    job = _start_job(site, inputs, tmp_path)
    until(lambda: site.ask(lambda client: client.job(job)).accepted >= 4, "some shards")
    site.there.cable(plugged=False)
    time.sleep(_CUT_S)
    assert set(site.agents["pi"].pids) == pids, "the agent, its fork parent and its worker go on"
    before = site.ask(lambda client: client.job(job))
    assert before.state == "running"
    assert [model.state for model in site.shown("pi").models] == ["serving"]
    site.there.cable(plugged=True)
    until(lambda: site.ask(lambda client: client.job(job)).state == "done", "the end of the job", _BACK_S)
    ended = site.ask(lambda client: client.job(job))
    assert (ended.state, ended.lost, ended.accepted) == ("done", 0, ended.shards)
    [want] = predict(model, inputs).values()
    assert np.array_equal(_result(site, job, tmp_path), want)
    assert set(site.agents["pi"].pids) == pids


def test_a_killed_broker_is_back_by_itself_and_so_are_the_devices(site: Site, x: dict[str, Array]) -> None:
    [broker] = [p for p in psutil.Process(site.controller.process.pid).children() if p.name() == "mosquitto"]
    os.kill(broker.pid, signal.SIGKILL)
    until(lambda: site.answers("slow", x), "an answer by the new broker", _BACK_S)


def test_addresses_of_both_kinds_do_for_joining(site: Site) -> None:
    for name, host in (("four", f"{V4}.1"), ("six", f"[{V6}:1]")):
        site.join(name, f"https://{host}:{_PORT}")
        site.agents.pop(name).stop()


def test_agents_follow_a_controller_that_moved_by_its_name(site: Site, x: dict[str, Array]) -> None:
    pid = site.agents["pi"].process.pid
    site.controller.stop()
    site.here.no_address(1)
    site.here.address(9)
    site.there.knows(ctl_test=f"{V4}.9")
    site.start()
    until(lambda: site.answers("slow", x), "an answer from the new address", _BACK_S)
    assert site.agents["pi"].process.pid == pid
    assert site.agents["pi"].process.poll() is None


def _start_job(site: Site, inputs: dict[str, Array], folder: Path) -> str:
    [x] = inputs.values()
    np.save(folder / "x.npy", x)

    def start(client: Client) -> replies.Job:
        return client.start_job("slow", client.put_file(folder / "x.npy").digest, shard_rows=10)

    return site.ask(start).id


def _result(site: Site, job: str, folder: Path) -> Array:
    path = folder / "result.npz"
    site.ask(lambda client: client.job_result(job, path))
    with np.load(io.BytesIO(path.read_bytes())) as table:
        [name] = [name for name in table.files if name.startswith("output:")]
        found: Array = table[name]
        return found
