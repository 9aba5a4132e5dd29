"""What is said of a version where it is deployed or signed: in words of a command line, and applied to a manifest."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.contract.manifest import Shadow, Target, Watch
from agent.contract.signing import PrivateKey
from controller import signing_desk
from controller.errors import UserError
from controller.signing_desk import Unsigned
from controller.terms import Terms, from_options, plain, read
from tests import builders

NOTHING: dict[str, Any] = {
    "expires_at": None, "devices": (), "groups": (), "runtimes": (), "watch": (), "shadow": (),
}  # fmt: skip
CONTENT = builders.classifier(1)
MANIFEST = msgspec.structs.replace(
    builders.manifest_for(CONTENT, builders.golden_for(CONTENT), watch=Watch(answers=500, p95_ms=5.0)),
    runtime_minimum={"ai-edge-litert": "2.1"},
)


def test_without_a_word_a_manifest_stays_as_it_is() -> None:
    told = from_options(**NOTHING)
    assert not told.given
    assert told.applied(MANIFEST) is not MANIFEST
    assert told.applied(MANIFEST) == MANIFEST
    assert plain(told) == {}


def test_of_watch_and_runtimes_only_what_is_named_changes() -> None:
    told = from_options(
        expires_at=1_900_000_000, devices=["pi-7"], groups=["site=north"], runtimes=["tflite-runtime=2.14"],
        watch=["answers=20", "drift=1"], shadow=["requests=100", "bad=0.5"],
    )  # fmt: skip
    applied = told.applied(MANIFEST)
    assert applied.watch == Watch(answers=20, p95_ms=5.0, drift=1.0)
    assert applied.shadow == Shadow(requests=100, bad=0.5)
    assert applied.runtime_minimum == {"ai-edge-litert": "2.1", "tflite-runtime": "2.14"}
    assert (applied.expires_at, applied.target) == (1_900_000_000, Target(("pi-7",), ("site=north",)))
    assert read(plain(told), Terms) == told


def test_whoever_signs_may_say_all_of_it_and_nothing_else() -> None:
    key = PrivateKey.generate()
    bare = msgspec.json.encode(MANIFEST)
    waiting = Unsigned(model=MANIFEST.model, version=MANIFEST.version, profile=MANIFEST.profile, manifest=bare.decode())
    told = from_options(**{**NOTHING, "watch": ["crashes=3"], "shadow": ["requests=9"], "runtimes": ["a=1"]})
    signed = signing_desk.sign(waiting, key, told)
    assert signing_desk.accept(bare, signed, [key.public]) == told.applied(MANIFEST)
    other = msgspec.structs.replace(MANIFEST, threads=4)
    forged = signing_desk.sign(
        msgspec.structs.replace(waiting, manifest=msgspec.json.encode(other).decode()), key, told
    )
    with pytest.raises(UserError, match="what was signed is not what waits here"):
        signing_desk.accept(bare, forged, [key.public])


@pytest.mark.parametrize(
    ("option", "given", "words"),
    [
        ("groups", "north", "is no group"),
        ("watch", "answers", "--watch 'answers': NAME=VALUE is expected"),
        ("watch", "anwsers=5", "--watch: unknown key anwsers; allowed here: answers,"),
        ("watch", "answers=0", "--watch: key answers"),
        ("watch", "drift=many", "--watch: key drift"),
        ("shadow", "good=0.5", "bad .* must be less than good"),
        ("runtimes", "ai-edge-litert=new", "runtime_minimum"),
    ],
)
def test_an_option_that_cannot_be_used_is_named_with_what_is_allowed(option: str, given: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        from_options(**{**NOTHING, option: [given]})


def test_terms_in_a_request_are_checked_to_the_last_key() -> None:
    with pytest.raises(UserError, match=r"unknown key watch\.anwsers"):
        read({"watch": {"anwsers": 5}}, Terms)
    with pytest.raises(UserError, match="unknown key expires"):
        read({"expires": 5}, Terms)
