"""A device joins a controller that serves the LAN, on this machine: how long until it answers; what it listens on."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import psutil

from agent.contract.golden import Array
from agent.runtime import load
from controller.client.rest import ApiError
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.program import PATIENCE_S, POLL_S, Program, ProgramError
from tests.benchmarks.results import Figure, at_most
from tests.builders import RUNTIMES, classifier, random_inputs
from tests.system.lan import free_ports

MODEL = "toy"


def figures(folder: Path, quick: bool) -> list[Figure]:
    content = classifier()
    x = random_inputs(load(content, runtimes=RUNTIMES), 1)
    agents, clients = free_ports(2)
    lan = ["--lan", "--host", "127.0.0.1", "--agents-port", str(agents), "--clients-port", str(clients)]
    with Fleet(folder, lan) as fleet:
        fleet.client.start_rollout(fleet.client.release(MODEL, fleet.push(MODEL, content)).id)
        joins = [_join(fleet, f"device-{number}", x) for number in range(1 if quick else 5)]
    took, listening = max(took for took, _ in joins), max(count for _, count in joins)
    note = f"worst of {len(joins)}: from the start of `lepta-agent join --run` to the first answer; mosquitto, TLS"
    return [
        at_most("join_to_inference_s", took, 5.0, "s", note),
        Figure("agent_listening_sockets", listening, "", "0", listening == 0, "of all its processes", always=True),
    ]


def _join(fleet: Fleet, name: str, x: dict[str, Array]) -> tuple[float, int]:
    """(seconds from the start of the agent to its first answer, sockets that it then listens on)."""
    claim = fleet.client.claim()
    home = fleet.folder / name
    home.mkdir()
    (home / "claim").write_text(claim.token)
    told = ["--token-file", str(home / "claim"), "--ca-fingerprint", claim.ca_fingerprint, "--name", name]
    program = Program("agent.cli", ["join", claim.url, *told, "--data", str(home / "data"), "--run"], home / "log")
    try:
        while not _answered(fleet, name, x):
            if program.process.poll() is not None or time.monotonic() - program.started > PATIENCE_S:
                raise ProgramError(f"{name} does not answer:\n{program.log.read_text(errors='replace')[-3000:]}")
            time.sleep(POLL_S)
        return time.monotonic() - program.started, _listening(program.pids)
    finally:
        program.stop()


def _answered(fleet: Fleet, name: str, x: dict[str, Array]) -> bool:
    try:
        return fleet.client.infer(MODEL, x).device == name
    except ApiError as error:
        if error.status != 503:
            raise
        return False


def _listening(pids: list[int]) -> int:
    sockets = [each for pid in pids for each in psutil.Process(pid).net_connections("inet")]
    waiting = [s for s in sockets if s.status == psutil.CONN_LISTEN or (s.type == socket.SOCK_DGRAM and not s.raddr)]
    return len(waiting)
