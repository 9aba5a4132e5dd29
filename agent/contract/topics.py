"""The topics of the MQTT contract v1: the only place where a topic is built or parsed."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

ROOT = "lepta/v1"

CONTROLLER_STATUS = f"{ROOT}/controller/status"

# Kinds of `agents/{agent}/{kind}`, by direction.
AGENT_UP = ("hello", "status", "load", "reported", "result", "answer", "reply", "need")
AGENT_DOWN = ("desired", "work", "infer", "cmd")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_CHUNK = re.compile(r"[0-9a-f]{64}/[0-9]{1,9}")
_LONGEST = 200
"""Characters of a topic: more than the contract's names and digests can make."""


class TopicError(ValueError):
    """A name that cannot stand in a topic."""


class Topic(NamedTuple):
    """A parsed topic. `kind` is `agents/hello`, `blobs`, `models/infer`, ...; `names` are its variable parts."""

    kind: str
    names: tuple[str, ...]


def check_name(name: str, what: str = "name") -> str:
    """Return `name` if it can be a model, agent or client name; otherwise raise TopicError saying what is allowed."""
    if not _NAME.fullmatch(name):
        raise TopicError(
            f"{what} {name[:80]!r} is not usable: use 1 to 63 of a-z, 0-9, '.', '_' and '-', "
            "starting with a letter or digit"
        )
    return name


def agent(name: str, kind: str) -> str:
    """`agents/{name}/{kind}`; `+` as a name subscribes to every agent."""
    if kind not in AGENT_UP and kind not in AGENT_DOWN:
        raise TopicError(f"no agent topic is called {kind!r}")
    return f"{ROOT}/agents/{_name_or_plus(name)}/{kind}"


def blob(digest: str, chunk: int | str) -> str:
    """The topic of one chunk of a blob, counted from 0; `+` as chunk subscribes to all of them."""
    return f"{ROOT}/blobs/{digest}/{chunk}"


def agent_blob(name: str, digest: str, chunk: int | str) -> str:
    """The same for a blob that is meant for one agent only: a request's or a shard's inputs."""
    return f"{ROOT}/agents/{_name_or_plus(name)}/blobs/{digest}/{chunk}"


def model_infer(model: str) -> str:
    return f"{ROOT}/models/{_name_or_plus(model)}/infer"


def client_answer(client: str) -> str:
    return f"{ROOT}/clients/{_name_or_plus(client)}/answer"


def predictions(model: str, agent_name: str) -> str:
    return f"{ROOT}/predictions/{_name_or_plus(model)}/{_name_or_plus(agent_name)}"


def parse(topic: str) -> Topic | None:
    """Take a concrete topic apart; None if it is not one of the contract (whoever sent it is then ignored)."""
    return _parse(topic) if len(topic) <= _LONGEST and topic.startswith(ROOT + "/") else None


@lru_cache(1024)
def _parse(topic: str) -> Topic | None:
    match topic[len(ROOT) + 1 :].split("/"):
        case ["controller", "status"]:
            return Topic("controller/status", ())
        case ["agents", name, kind] if _NAME.fullmatch(name) and (kind in AGENT_UP or kind in AGENT_DOWN):
            return Topic(f"agents/{kind}", (name,))
        case ["blobs", digest, chunk] if _CHUNK.fullmatch(f"{digest}/{chunk}"):
            return Topic("blobs", (digest, chunk))
        case ["agents", name, "blobs", digest, chunk] if _NAME.fullmatch(name) and _CHUNK.fullmatch(
            f"{digest}/{chunk}"
        ):
            return Topic("agents/blobs", (name, digest, chunk))
        case ["models", model, "infer"] if _NAME.fullmatch(model):
            return Topic("models/infer", (model,))
        case ["clients", client, "answer"] if _NAME.fullmatch(client):
            return Topic("clients/answer", (client,))
        case ["predictions", model, name] if _NAME.fullmatch(model) and _NAME.fullmatch(name):
            return Topic("predictions", (model, name))
    return None


def _name_or_plus(name: str) -> str:
    return name if name == "+" else check_name(name)
