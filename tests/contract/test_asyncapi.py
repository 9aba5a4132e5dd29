"""docs/asyncapi.yaml describes the contract as it is."""

from __future__ import annotations

import json
from typing import Any

from agent.contract import topics
from agent.contract.messages import KINDS
from tests.contract import asyncapi


def test_the_committed_document_is_what_the_contract_generates() -> None:
    written = asyncapi.TARGET.read_text(encoding="utf-8")
    assert written == asyncapi.yaml(asyncapi.document()), "run `python -m tests.contract.asyncapi` and commit the file"


def test_every_message_has_a_channel() -> None:
    described = {channel.kind for channel in asyncapi.CHANNELS}
    assert set(KINDS) <= described
    assert described - set(KINDS) == {"models/infer", "clients/answer"}


def test_every_address_is_a_topic_of_the_contract() -> None:
    for channel in asyncapi.CHANNELS:
        concrete = channel.address.format(agent="a", digest="0" * 64, chunk=0, model="m", client="c")
        parsed = topics.parse(concrete)
        assert parsed is not None
        assert parsed.kind == channel.kind


def test_every_reference_leads_somewhere() -> None:
    document = asyncapi.document()

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for each in value.values() for found in references(each)]
        return [found for each in value for found in references(each)] if isinstance(value, list) else []

    for reference in references(document):
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_the_yaml_keeps_every_value() -> None:
    text = asyncapi.yaml({"a": {"b c": [1, {"d": "x: y"}], "e": {}}, "f": True})
    body = text.splitlines()[1:]
    assert body == ["a:", '  "b c": ' + json.dumps([1, {"d": "x: y"}]), "  e: {}", "f: true"]
