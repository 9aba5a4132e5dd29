"""PURE: what the contract gives to whom, as a table, and every topic that it is asked about."""

from __future__ import annotations

import itertools
import re
from typing import Literal, NamedTuple

from agent.contract import topics
from tests.contract.asyncapi import CHANNELS, Channel

Access = Literal["read", "write"]

DIGEST = "d1" * 32
MODELS = ("digits", "faces")
# Topics of nobody: next to the contract's, above them, and the broker's own.
ELSEWHERE = (
    "lepta",
    "lepta/v1",
    "lepta/v1/other",
    "lepta/v1/controller",
    "lepta/v1/controller/status/x",
    "lepta/v2/controller/status",
    "elsewhere/lepta/v1/controller/status",
    "/lepta/v1/controller/status",
    "$SYS/broker/version",
    "$SYS/broker/lepta",
    "$CONTROL/dynamic-security/v1",
    "$share/g/lepta/v1/controller/status",
)


class Who(NamedTuple):
    """A party from another machine. `granted`: models whose predictions a client may read."""

    kind: Literal["device", "client"]
    name: str
    granted: tuple[str, ...] = ()


class Topic(NamedTuple):
    """A concrete topic; `channel` is None where the contract knows none."""

    text: str
    channel: Channel | None
    names: dict[str, str]


def all_topics(agents: tuple[str, ...], clients: tuple[str, ...]) -> list[Topic]:
    """Every topic of the contract for each of these parties, and those that nobody has a right to."""
    values = {"agent": agents, "client": clients, "model": MODELS, "digest": (DIGEST,), "chunk": ("0", "7")}
    found = []
    for channel in CHANNELS:
        holes = re.findall(r"\{(\w+)\}", channel.address)
        for chosen in itertools.product(*(values[hole] for hole in holes)):
            names = dict(zip(holes, chosen, strict=True))
            found.append(Topic(channel.address.format(**names), channel, names))
    beside = [f"{topics.ROOT}/agents/{agent}/{kind}" for agent in agents for kind in ("unknown", "hello/x", "blobs")]
    return found + [Topic(text, None, {}) for text in (*ELSEWHERE, *beside)]


def allowed(who: Who, access: Access, topic: Topic) -> bool:
    """Does the contract give this right? `way` is the controller's: what it sends others read."""
    channel = topic.channel
    if channel is None:
        return False
    if who.kind == "client":
        return _client_may(who, access, channel, topic.names)
    if channel.kind in ("controller/status", "blobs"):
        return access == "read"
    mine = channel.kind.startswith("agents/") or channel.kind == "predictions"
    return mine and topic.names["agent"] == who.name and access == ("read" if channel.way == "send" else "write")


def _client_may(who: Who, access: Access, channel: Channel, names: dict[str, str]) -> bool:
    if access == "write":
        return channel.kind == "models/infer"
    if channel.kind == "clients/answer":
        return names["client"] == who.name
    return channel.kind == "predictions" and names["model"] in who.granted


def wildcards(who: Who, other: str) -> list[str]:
    """Filters that ask for more than one topic, among them for somebody else's."""
    root = topics.ROOT
    plain = [
        "#",
        "/#",
        "+",
        "+/#",
        "+/+/#",
        "+/v1/#",
        "lepta/#",
        "lepta/+/agents/#",
        f"{root}/#",
        f"{root}/+/+/+",
        f"{root}/+/status",
        f"{root}/+/{other}/#",
        f"{root}/agents/#",
        f"{root}/agents/+/#",
        f"{root}/agents/{other}/#",
        f"{root}/agents/{other}/+",
        f"{root}/agents/{who.name}/#",
        f"{root}/agents/+/+/{DIGEST}/+",
        f"{root}/clients/#",
        f"{root}/clients/+/answer",
        f"{root}/clients/{other}/+",
        f"{root}/models/#",
        f"{root}/models/+/infer",
        f"{root}/predictions/#",
        f"{root}/predictions/+/+",
        f"{root}/predictions/+/{other}",
        f"{root}/blobs/#",
        f"{root}/controller/#",
    ]
    every = [topics.agent("+", kind) for kind in (*topics.AGENT_UP, *topics.AGENT_DOWN)]
    shared = [f"$share/g/{filter_}" for filter_ in ("#", f"{root}/#", f"{root}/agents/{other}/#", every[-1])]
    return [*plain, *every, *shared, "$SYS/#", "$SYS/+/+", "$CONTROL/#", "$CONTROL/+/v1"]
