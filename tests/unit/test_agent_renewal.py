"""Renewal: after two thirds of a certificate's life, by a child process, again and again until it works."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import enroll
from agent.clock import Clock
from agent.contract.signing import PrivateKey
from agent.enroll import Identity
from agent.join import Invitation, join
from agent.loop import Loop
from agent.renewal import Renewal, due, due_at
from agent.settings import AgentSettings, Limits
from firmware_profiles.profile import Facts
from tests.certificates import TestAuthority
from tests.desk import Desk


@given(st.floats(0, 1e9), st.floats(1, 1e9))
def test_it_is_due_after_two_thirds_and_not_before(start: float, life: float) -> None:
    assert not due(start, start + life, start + life * 0.6)
    assert due(start, start + life, start + life * 0.7)
    assert not due(0.0, 0.0, start)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    authority = TestAuthority()
    with Desk(authority, authority.server(tmp_path)) as desk:
        desk.begins, desk.life = 1.0, 4.0
        yield desk


class Agent:
    """What renews, without the rest of an agent."""

    def __init__(self, desk: Desk, folder: Path) -> None:
        assert desk.authority is not None
        folder.mkdir()
        limits = Limits(renew_first=0.1, renew_most=1.0)
        told = Invitation(desk.url, "good", desk.authority.fingerprint, "edge-1")
        self.folder = folder
        self.first = join(folder, told, Facts(machine="x"), limits)
        self.loop = Loop()
        settings = AgentSettings(data=str(folder), limits=limits)
        self.renewal = Renewal(self.loop, settings, self.first, Clock(folder), random_=lambda: 0.0)

    def until(self, holds: Callable[[], bool], patience: float = 15.0) -> None:
        deadline = time.monotonic() + patience
        while not holds():
            assert time.monotonic() < deadline
            self.loop.run_once(0.05)

    @property
    def identity(self) -> Identity:
        found = enroll.stored(self.folder)
        assert found is not None
        return found


@pytest.fixture
def agent(desk: Desk, tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(desk, tmp_path / "data")
    yield agent
    agent.renewal.stop()
    agent.loop.close()


def test_a_renewal_changes_no_release_key(desk: Desk, agent: Agent) -> None:
    desk.keys = (PrivateKey.generate(), PrivateKey.generate())
    agent.until(lambda: agent.identity.certificate != agent.first.certificate)
    assert agent.identity.release_key == agent.first.release_key != ""


def test_a_certificate_of_seconds_is_renewed_in_time_and_the_key_stays(desk: Desk, agent: Agent) -> None:
    key = (agent.folder / "agent.key").read_bytes()
    due_in = due_at(agent.first.not_before, agent.first.not_after) - time.time()
    agent.until(lambda: agent.identity.certificate != agent.first.certificate)
    assert len(desk.renewals) == 1
    assert due_in > 0
    agent.until(lambda: len(desk.renewals) >= 2)
    assert (agent.folder / "agent.key").read_bytes() == key
    agent.until(lambda: (agent.folder / "agent.pem").read_text() == agent.identity.certificate)
    assert agent.identity.ca == agent.first.ca


def test_a_lost_answer_and_a_controller_that_is_away_are_tried_again(desk: Desk, agent: Agent) -> None:
    desk.loses = 2
    agent.until(lambda: agent.identity.certificate != agent.first.certificate)
    assert len(desk.renewals) == 3


def test_a_refusal_is_said_once_and_clearly(desk: Desk, agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
    desk.revoked = True
    with caplog.at_level(logging.INFO, "lepta.agent.renewal"):
        agent.until(lambda: len(desk.renewals) >= 2)
    said = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == 1
    assert "the device was revoked; join with a new claim" in said[0].getMessage()


def test_stopping_leaves_no_child_behind(desk: Desk, agent: Agent) -> None:
    agent.until(lambda: agent.renewal._child is not None)
    child = agent.renewal._child
    assert child is not None
    agent.renewal.stop()
    assert not os.path.exists(f"/proc/{child.pid}")
