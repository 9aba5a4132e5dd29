"""The demo's controller and agents: real programs on this machine, on free ports."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.contract.signing import write_secret
from controller.client.locate import in_folder
from controller.client.rest import Client
from controller.demo.processes import Child, stop_all, wait_until
from controller.errors import LeptaError, UserError
from controller.replies import Device

START_S = 60.0


@dataclass(frozen=True)
class AgentPlan:
    """An agent of the demo; `accelerators` are claimed, not there."""

    name: str
    accelerators: tuple[str, ...] = ()


AGENTS = (AgentPlan("agent-1"), AgentPlan("agent-2"), AgentPlan("fpga-1", ("fpga",)))


@dataclass
class Fleet:
    """What runs. `folder` holds everything that the demo writes."""

    folder: Path
    controller: Child
    client: Client
    agents: dict[str, Child] = field(default_factory=dict)

    @property
    def programs(self) -> list[Child]:
        return [*self.agents.values(), self.controller]

    def add_agents(self) -> None:
        """Start all agents at once; each joins with a claim of its own."""
        for plan in AGENTS:
            self.agents[plan.name] = self._start(plan)

    def wait_for_agents(self) -> list[Device]:
        """The devices, once all are online. Raises Internal if an agent ends first."""
        wait_until(
            lambda: sum(device.online for device in self.client.devices()) == len(AGENTS),
            "the agents' start",
            self.programs,
            START_S,
        )
        return self.client.devices()

    def restart(self, name: str) -> None:
        """Start an agent that was killed, from what it holds on its disk."""
        self.agents[name] = self._program(name)

    def _start(self, plan: AgentPlan) -> Child:
        home = self.folder / plan.name
        home.mkdir()
        write_secret(home / "claim", self.client.claim().token)
        listed = ", ".join(f'"{name}"' for name in plan.accelerators)
        (home / "agent.toml").write_text(f"[facts]\naccelerators = [{listed}]\n" if plan.accelerators else "")
        return self._program(plan.name)

    def _program(self, name: str) -> Child:
        home = self.folder / name
        known = ["--controller", self.client.place.url, "--name", name, "--data", str(home / "data")]
        arguments = ["run", *known, "--config", str(home / "agent.toml"), "--token-file", str(home / "claim")]
        return Child(name, "agent.cli", arguments, self.folder / f"{name}.log")


@contextmanager
def opened(data: Path | None) -> Iterator[Fleet]:
    """A controller with its broker, ready; when it closes, every child has ended and a temporary folder is gone."""
    folder = _folder(data)
    programs: list[Child] = []
    try:
        store = folder / "controller"
        arguments = ["up", "--data", str(store), "--port", "0", "--broker", "embedded"]
        # TensorFlow leaves files behind in the folder for temporary ones; that one goes with everything else.
        temporary = folder / "tmp"
        temporary.mkdir()
        extra = {"TMPDIR": str(temporary)}
        controller = Child("lepta up", "controller.cli", arguments, folder / "up.log", extra)
        programs.append(controller)
        wait_until(lambda: _is_ready(store), "the controller's start", programs, START_S)
        with Client(in_folder(store)) as client:
            fleet = Fleet(folder, controller, client)
            try:
                yield fleet
            finally:
                programs[:0] = fleet.agents.values()
    finally:
        stop_all(programs)
        if data is None:
            shutil.rmtree(folder, ignore_errors=True)


def _folder(data: Path | None) -> Path:
    if data is None:
        return Path(tempfile.mkdtemp(prefix="lepta-demo-"))
    folder = data.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder} is not empty", "the demo wants a folder of its own; name a new one")
    except OSError as error:
        raise UserError(f"{folder} cannot be used: {error.strerror}", "name another folder") from error
    return folder


def _is_ready(store: Path) -> bool:
    try:
        with Client(in_folder(store)) as client:
            return client.ready()
    except LeptaError:
        return False
