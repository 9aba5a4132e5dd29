"""`lepta-agent` as a service of a real systemd, on a machine of its own: from the join to the last file removed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent.runtime import load, predict
from agent.service.unit import NAME
from controller.client.rest import ApiError
from tests import builders
from tests.machine import Machine, booted
from tests.system.lan import LanWorld
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.debian, pytest.mark.slow]

PROGRAM = str(Path(sys.executable).parent / "lepta-agent")
DROP_IN = f"/etc/systemd/system/{NAME}.d/test.conf"
OURS = ("/var/lib/lepta", "/var/lib/private/lepta", "/etc/lepta", f"/etc/systemd/system/{NAME}",
        f"/etc/systemd/system/multi-user.target.wants/{NAME}")  # fmt: skip
WATCHDOG_S, START_S = 6, 3
"""Shorter than in the real unit, so that the tests need not wait as long."""


class Service:
    """The agent on the other machine."""

    def __init__(self, machine: Machine, world: LanWorld) -> None:
        self.machine, self.world = machine, world

    def agent(self, *arguments: str, given: str = "") -> str:
        """Output of a `lepta-agent` command that must succeed there."""
        return self.machine.do(PROGRAM, *arguments, given=given)

    def shown(self, name: str) -> str:
        """A property of the unit."""
        return self.machine.do("systemctl", "show", NAME, "--property", name, "--value").strip()

    def processes(self) -> list[psutil.Process]:
        """Of the agent: the supervisor first."""
        [supervisor] = [p for p in self.machine.leader.children() if PROGRAM in p.cmdline()]
        return [supervisor, *supervisor.children(recursive=True)]

    def change(self, line: str) -> None:
        """Set a line of the unit's [Service] section."""
        file = self.machine.path(DROP_IN)
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"[Service]\n{line}\n")
        self.machine.do("systemctl", "daemon-reload")

    def connected(self) -> bool:
        return self.shown("StatusText").startswith("connected")

    def answers(self, content: bytes, version: int) -> bool:
        """Does it answer with this version, and exactly?"""
        model = load(content, runtimes=builders.RUNTIMES)
        x = builders.random_inputs(model, 2)
        try:
            answer = self.world.client.infer("toy", x)
        except ApiError:
            return False
        [want], [got] = predict(model, x).values(), answer.outputs.values()
        return answer.version == version and np.array_equal(got, want)

    def remove(self) -> None:
        self.agent("uninstall")
        self.agent("wipe", "--yes")
        self.machine.path(DROP_IN).unlink(missing_ok=True)

    def left(self) -> list[str]:
        return [path for path in OURS if self.machine.path(path).exists() or self.machine.path(path).is_symlink()]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("systemd")
    with booted(folder) as machine, LanWorld(folder / "world") as world:
        yield Service(machine, world)


@pytest.fixture(scope="module")
def joined(service: Service) -> Service:
    """By the line that `lepta device add` shows; it serves version 1 of the model `toy`."""
    world = service.world
    claim = world.client.claim()
    where = [world.client.place.url, "--ca-fingerprint", claim.ca_fingerprint, "--name", "pi"]
    service.agent("join", *where, "--token", "-", "--install", given=f"{claim.token}\n")
    assert until(service.connected), service.agent("logs")
    world.roll_out("toy", world.push("toy", builders.classifier(1)))
    return service


def test_it_serves_as_an_account_of_its_own_without_any_privilege(joined: Service) -> None:
    assert joined.answers(builders.classifier(1), 1)
    assert joined.shown("ActiveState") == "active"
    assert until(lambda: joined.shown("StatusText") == "connected; toy 1 serving")
    processes = joined.processes()
    assert len(processes) >= 3, "supervisor, fork parent, worker"
    for process in processes:
        assert all(61184 <= uid <= 65519 for uid in process.uids()), "a dynamic user"
        status = Path(f"/proc/{process.pid}/status").read_text()
        for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"):
            assert line in status


def test_a_new_version_is_swapped_in_under_the_same_process(joined: Service) -> None:
    [before, *_] = joined.processes()
    version = joined.world.push("toy", builders.classifier(2))
    joined.world.roll_out("toy", version)
    swap = joined.world.client.device("pi").swaps[0]
    assert (swap.outcome, swap.to_version) == ("committed", version)
    assert joined.answers(builders.classifier(2), version)
    assert joined.processes()[0] == before


def test_systemd_restarts_an_agent_that_hangs_and_it_serves_what_it_served(joined: Service) -> None:
    joined.change(f"WatchdogSec={WATCHDOG_S}\nRestartSec=500ms")
    joined.machine.do("systemctl", "restart", NAME)
    assert until(joined.connected)
    assert joined.shown("NRestarts") == "0"
    [hung, *_] = joined.processes()
    served = joined.world.client.device("pi").models[0].version
    hung.send_signal(signal.SIGSTOP)
    assert until(lambda: joined.shown("NRestarts") == "1" and joined.connected(), 3 * WATCHDOG_S + 10.0)
    assert "Watchdog timeout" in joined.agent("logs")
    assert until(lambda: joined.answers(builders.classifier(served), served))
    assert not hung.is_running()


def test_its_commands_find_nothing_wrong(joined: Service) -> None:
    assert until(joined.connected)
    assert " 0 failed" in joined.agent("doctor")
    assert "active, enabled" in joined.agent("status")
    assert joined.agent("logs", "-n", "5").count("\n") >= 5


def test_uninstall_and_wipe_leave_nothing_on_the_machine(joined: Service) -> None:
    joined.remove()
    assert joined.left() == []
    assert joined.machine.run(PROGRAM, "status").returncode == 3


def test_an_image_joins_by_itself_and_systemd_waits_until_it_is_approved(service: Service) -> None:
    """Comes after the removal of the device above."""
    world = service.world
    claim = world.client.claim(approve=False)
    token = "/etc/claim-for-all"
    service.machine.path(token).write_text(claim.token)
    known = ["--controller", world.client.place.url, "--ca-fingerprint", claim.ca_fingerprint]
    service.agent("install", "--no-start", *known, "--token-file", token)
    with service.machine.path("/etc/lepta/agent.toml").open("a") as config:
        config.write("[limits]\napproval_first = 0.5\napproval_most = 1.0\n")
    service.change(f"TimeoutStartSec={START_S}")
    service.machine.do("systemctl", "start", "--no-block", NAME)
    assert until(lambda: service.shown("StatusText").startswith("waiting for approval")), service.agent("logs")
    [supervisor, *_] = service.processes()
    assert not until(lambda: service.shown("ActiveState") != "activating", 2.5 * START_S)
    [name] = [device.name for device in world.client.devices() if device.name != "pi"]
    world.client.approve_device(name)
    assert until(lambda: service.shown("ActiveState") == "active" and service.connected(), 30.0)
    assert service.processes()[0] == supervisor, "it was never restarted"
    service.remove()
    assert service.left() == []
