"""Writes docs/asyncapi.yaml from the contract: `python -m tests.contract.asyncapi`.

AsyncAPI 3.0, seen from the controller: it `receive`s what goes up and `send`s what goes down.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from agent.contract import manifest, messages, topics
from agent.contract.messages import KINDS

TARGET = Path(__file__).parents[2] / "docs" / "asyncapi.yaml"


class Channel(NamedTuple):
    """One topic of the contract: who sends what, and how."""

    kind: str
    address: str
    way: str
    qos: int
    retain: bool
    text: str
    signed: str = ""
    """Payload type of the DSSE envelope that the message travels in; empty: it travels bare."""


def _agent(kind: str, way: str, qos: int, text: str, retain: bool = False, signed: str = "") -> Channel:
    address = topics.agent("+", kind).replace("+", "{agent}")
    return Channel(f"agents/{kind}", address, way, qos, retain, text, signed)


CHANNELS = (
    Channel(
        "controller/status",
        topics.CONTROLLER_STATUS,
        "send",
        1,
        True,
        "Presence and boot id; also the controller's will.",
    ),
    _agent("hello", "receive", 1, "Facts, runtimes, held digests, generation; after connecting and at a new boot id."),
    _agent("status", "receive", 1, "Presence for people and tools; also the agent's will.", retain=True),
    _agent("load", "receive", 0, "What the device does right now."),
    _agent("desired", "send", 1, "What the device is to run; its generation only grows.", True, messages.DESIRED_TYPE),
    _agent("reported", "receive", 1, "State per model and generation; the record of a swap when one ended."),
    _agent("work", "send", 1, "A lease: compute this shard within its time to live."),
    _agent("result", "receive", 1, "The outputs of a shard, with the digest that computed them."),
    _agent("infer", "send", 0, "A routed request."),
    _agent("answer", "receive", 0, "Its answer."),
    _agent("cmd", "send", 1, "A one-shot command, executed once per id.", signed=messages.CMD_TYPE),
    _agent("reply", "receive", 1, "What became of a command."),
    _agent("need", "receive", 1, "Which chunks of a blob are missing."),
    Channel(
        "blobs",
        f"{topics.ROOT}/blobs/{{digest}}/{{chunk}}",
        "send",
        1,
        False,
        "A chunk of a blob; several agents profit.",
    ),
    Channel(
        "agents/blobs",
        f"{topics.ROOT}/agents/{{agent}}/blobs/{{digest}}/{{chunk}}",
        "send",
        1,
        False,
        "A chunk of a blob that is meant for one agent only: a request's or a shard's inputs.",
    ),
    Channel(
        "models/infer", f"{topics.ROOT}/models/{{model}}/infer", "receive", 1, False, "A user's request over MQTT."
    ),
    Channel(
        "clients/answer",
        f"{topics.ROOT}/clients/{{client}}/answer",
        "send",
        1,
        False,
        "The answer in the shape of the Open Inference Protocol's JSON, only ever under the asking client's own name.",
    ),
    Channel(
        "predictions",
        f"{topics.ROOT}/predictions/{{model}}/{{agent}}",
        "receive",
        0,
        False,
        "What users subscribe to: an agent's answers on bound input topics.",
    ),
)
_USER_TYPES: dict[str, type[msgspec.Struct]] = {"models/infer": messages.UserInfer}


def document() -> dict[str, Any]:
    """The whole document as plain data."""
    structs = [*(type_ for type_, _ in KINDS.values()), *_USER_TYPES.values(), manifest.Manifest]
    _, schemas = msgspec.json.schema_components(
        structs, schema_hook=lambda _type: {"description": "any JSON value"}, ref_template="#/components/schemas/{name}"
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Lepta MQTT contract",
            "version": f"{messages.PROTOCOL}.0.0",
            "license": {"name": "Apache-2.0"},
            "description": _paragraph(messages) + f" A payload has at most {messages.MAX_PAYLOAD} bytes.",
        },
        "defaultContentType": "application/json",
        "channels": {_name(channel): _channel(channel) for channel in CHANNELS},
        "operations": {_name(channel): _operation(channel) for channel in CHANNELS},
        "components": {
            "messages": {_name(channel): _message(channel) for channel in CHANNELS},
            "schemas": dict(sorted(schemas.items())),
        },
    }


def _channel(channel: Channel) -> dict[str, Any]:
    parameters = re.findall(r"\{(\w+)\}", channel.address)
    return {
        "address": channel.address,
        "description": channel.text,
        "messages": {_name(channel): {"$ref": f"#/components/messages/{_name(channel)}"}},
        **({"parameters": {name: {} for name in parameters}} if parameters else {}),
    }


def _operation(channel: Channel) -> dict[str, Any]:
    return {
        "action": channel.way,
        "channel": {"$ref": f"#/channels/{_name(channel)}"},
        "bindings": {"mqtt": {"qos": channel.qos, "retain": channel.retain, "bindingVersion": "0.2.0"}},
    }


def _message(channel: Channel) -> dict[str, Any]:
    type_, binary = KINDS.get(channel.kind, (_USER_TYPES.get(channel.kind), False))
    payload = {"$ref": f"#/components/schemas/{type_.__name__}"} if type_ else {"type": "object"}
    signed = f"Inside a DSSE envelope of type {channel.signed}, signed by the controller key." if channel.signed else ""
    packed = "MessagePack with raw bytes where the schema says base64." if binary else ""
    return {
        "contentType": "application/msgpack" if binary else "application/json",
        **({"description": f"{signed}{packed}"} if signed or packed else {}),
        "payload": payload,
    }


def _name(channel: Channel) -> str:
    first, *rest = re.split(r"[/_]", channel.kind)
    return first + "".join(part.title() for part in rest)


def _paragraph(of: object) -> str:
    return " ".join((inspect.getdoc(of) or "").split())


def yaml(value: Any) -> str:
    """YAML of plain data. Strings are JSON strings, which YAML takes as they are."""
    header = "# Generated from the contract by `python -m tests.contract.asyncapi`; do not edit.\n"
    return header + "".join(_lines(value, ""))


def _lines(value: Any, indent: str) -> Iterator[str]:
    for key, each in value.items():
        name = key if re.fullmatch(r"[A-Za-z_]\w*", key) else json.dumps(key)
        if isinstance(each, dict) and each:
            yield f"{indent}{name}:\n"
            yield from _lines(each, indent + "  ")
        else:
            yield f"{indent}{name}: {json.dumps(each, ensure_ascii=False)}\n"


if __name__ == "__main__":
    TARGET.write_text(yaml(document()), encoding="utf-8")
    print(TARGET)
