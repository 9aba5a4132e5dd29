"""A broker that lies: forged and recorded `desired` and `cmd` to a real agent, which is to obey none of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from agent.contract import topics
from agent.contract.messages import CMD_TYPE, DESIRED_TYPE, Cmd, Desired, Hello, Load, Reply, Reported
from agent.contract.signing import Envelope, PrivateKey, Signature, seal
from tests import builders
from tests.benchmarks.results import Figure
from tests.fake_controller import AgentProcess, FakeBroker, FakeController

ROUNDS, QUICK_ROUNDS = 20, 4
FAR = 1_000_000
"""Generations from here on are forged."""
TYPES = {"desired": DESIRED_TYPE, "cmd": CMD_TYPE}
SCORES = {"x": np.zeros((1, builders.FEATURES), np.float32)}


class Attempt(msgspec.Struct, frozen=True):
    """What came of it all. `accepted`: what the agent did that nobody entitled asked for."""

    sent: int
    refused: int
    accepted: tuple[str, ...]


def figures(folder: Path, quick: bool) -> list[Figure]:
    attempt = run(folder, QUICK_ROUNDS if quick else ROUNDS)
    note = f"the agent counts {attempt.refused} refusals" + "".join(f"; {what}" for what in attempt.accepted[:3])
    return [
        Figure("rogue_commands", attempt.sent, "", ">= 100", attempt.sent >= 100, note, always=True),
        Figure("rogue_accepted", len(attempt.accepted), "", "0", not attempt.accepted, always=True),
    ]


def run(folder: Path, rounds: int) -> Attempt:
    """Send everything `rounds` times; then the true controller shows that the agent still obeys it."""
    broker = FakeBroker(folder)
    try:
        controller = FakeController(broker.broker)
        try:
            with AgentProcess(folder, controller) as agent:
                return _attack(controller, agent, rounds)
        finally:
            controller.close()
    finally:
        broker.stop()


def _attack(controller: FakeController, agent: AgentProcess, rounds: int) -> Attempt:
    wanted = controller.serve(agent.name, builders.classifier(1))
    controller.state(wanted, "serving", controller.desire(agent.name, wanted))
    recorded = _recorded(controller, agent)
    agent.stop()
    controller.forget()
    agent.start()
    controller.session_of(agent.name)
    controller.state(wanted, "serving")
    before = _refused(controller)
    rogue = Rogue(controller, agent.name, controller.session_of(agent.name))
    sent = 0
    for _ in range(rounds):
        for topic, payload in [*rogue.forged(), *recorded]:
            controller.publish(topic, payload)
            sent += 1
    genuine = controller.generation + 1
    controller.command(agent.name, "measure", "genuine", model=wanted.model)
    controller.wait(Reply, lambda reply: reply.id == "genuine", "the answer to the true command")
    controller.desire(agent.name, wanted)
    controller.wait(Reported, lambda reported: reported.generation == genuine, "the true generation")
    # It counts as it goes, and tells now and then: the second telling from here was begun after the last refusal.
    told = len(controller.heard(Load))
    controller.wait(Load, lambda _: len(controller.heard(Load)) >= told + 2, "two further counts")
    refused = _refused(controller) - before
    answer = controller.infer(agent.name, wanted, SCORES)
    accepted = [*_accepted(controller, genuine)]
    if answer.fault is not None or answer.artifact != wanted.artifact:
        accepted.append(f"another model answers: {answer.fault or answer.artifact}")
    return Attempt(sent, refused, tuple(accepted))


def _refused(controller: FakeController) -> int:
    return max((load.refused for load in controller.heard(Load)), default=0)


def _recorded(controller: FakeController, agent: AgentProcess) -> list[tuple[str, bytes]]:
    """Genuine in every way, obeyed once, of a session that is over."""
    session = controller.session_of(agent.name)
    cmd = Cmd(agent=agent.name, id="recorded", verb="log-level", ttl_ms=10_000, arguments={"level": "debug"},
              session=session)  # fmt: skip
    command = seal(controller.stamper.encode(cmd), CMD_TYPE, controller.controller_key)
    controller.publish(topics.agent(agent.name, "cmd"), command)
    controller.wait(Reply, lambda reply: reply.id == "recorded" and reply.ok, "the answer to the recorded command")
    desired = Desired(agent=agent.name, generation=controller.generation - 1)
    older = seal(controller.stamper.encode(desired), DESIRED_TYPE, controller.controller_key)
    return [(topics.agent(agent.name, "cmd"), command), (topics.agent(agent.name, "desired"), older)]


def _accepted(controller: FakeController, genuine: int) -> Iterator[str]:
    for reply in controller.heard(Reply):
        if reply.id != "genuine":
            yield f"command {reply.id} was executed"
    generations = {reported.generation for reported in controller.heard(Reported)}
    generations |= {hello.generation for hello in controller.heard(Hello)}
    for generation in generations - {genuine - 1, genuine}:
        yield f"generation {generation} was taken over"


class Rogue:
    """Knows everything that goes over its wires, and has keys, but none that counts.

    What is signed with the controller's key here is what the controller may have said elsewhere: to another agent, in
    another session, as something else.
    """

    def __init__(self, controller: FakeController, agent: str, session: str) -> None:
        self._controller = controller
        self._agent = agent
        self._session = session
        self._key = PrivateKey.generate()

    def forged(self) -> Iterator[tuple[str, bytes]]:
        for kind, type_ in TYPES.items():
            for payload in self._envelopes(kind, type_):
                yield topics.agent(self._agent, kind), payload

    def _envelopes(self, kind: str, type_: str) -> Iterator[bytes]:
        true, other = self._controller.controller_key, CMD_TYPE if kind == "desired" else DESIRED_TYPE
        payload = self._payload(kind)
        yield payload
        yield b""
        yield secrets.token_bytes(200)
        mine = seal(payload, type_, self._key)
        yield mine
        yield mine[:-20]
        yield _signed_as(mine, true.public.id)
        yield _signed_as(mine, "")
        yield _with(mine, signatures=())
        yield _with(mine, signatures=(Signature(true.public.id, ""),))
        yield seal(payload, type_, self._controller.release_key)
        # Said by the controller, and then changed.
        said = seal(self._payload(kind, agent="edge-other"), type_, true)
        yield said
        yield _with(said, payload=msgspec.json.decode(mine, type=Envelope).payload)
        yield _with(said, payload_type=other)
        yield seal(payload, other, true)
        yield _with(seal(payload, other, true), payload_type=type_)
        if kind == "cmd":
            yield seal(self._payload(kind, session="another"), type_, true)
            yield seal(self._payload(kind, session=""), type_, true)
        else:
            yield seal(self._payload(kind, generation=self._controller.generation - 1), type_, true)

    def _payload(self, kind: str, agent: str = "", session: str | None = None, generation: int | None = None) -> bytes:
        agent = agent or self._agent
        number = FAR + secrets.randbelow(FAR)
        if kind == "desired":
            generation = number if generation is None else generation
            return self._controller.stamper.encode(Desired(agent=agent, generation=generation, drain=True))
        session = self._session if session is None else session
        cmd = Cmd(agent=agent, id=f"rogue-{number}", verb="log-level", ttl_ms=10_000, arguments={"level": "debug"},
                  session=session)  # fmt: skip
        return self._controller.stamper.encode(cmd)


def _with(envelope: bytes, **fields: object) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(msgspec.json.decode(envelope, type=Envelope), **fields))


def _signed_as(envelope: bytes, keyid: str) -> bytes:
    (signature,) = msgspec.json.decode(envelope, type=Envelope).signatures
    return _with(envelope, signatures=(Signature(keyid, signature.sig),))
