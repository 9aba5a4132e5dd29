"""Bindings in an agent whose broker does not let it read everything."""

from __future__ import annotations

from pathlib import Path

from agent.contract.bindings import Binding, BindingState
from agent.disk import RealDisk
from tests.agent_here import MODEL, AgentHere, World

OPEN = Binding(name="open", model=MODEL, topic="plant/open", format="json")
SECRET = Binding(name="secret", model=MODEL, topic="plant/secret", format="json")


def told(agent: AgentHere) -> dict[str, BindingState]:
    return {state.name: state for state in agent.broker.reported[-1].bindings} if agent.broker.reported else {}


def states(agent: AgentHere) -> dict[str, str]:
    return {name: state.state for name, state in told(agent).items()}


def test_a_topic_that_the_broker_refuses_is_reported_as_refused_until_it_may_be_read(tmp_path: Path) -> None:
    world = World()
    world.desire(world.release(1, 1), bindings=(OPEN, SECRET))
    agent = AgentHere(tmp_path, RealDisk(), world)
    agent.broker.refuses = {SECRET.topic}
    try:
        assert agent.until(lambda: agent.serves == 1)
        assert agent.until(lambda: states(agent) == {"open": "active", "secret": "refused"})
        assert "Not authorized" in told(agent)["secret"].reason
        agent.broker.refuses = set()
        assert agent.until(lambda: states(agent)["secret"] == "active")
    finally:
        agent.cut()
