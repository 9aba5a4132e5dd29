"""What an agent in the field sends today is understood by every later controller, and the other way round."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.contract import manifest, messages
from agent.contract.messages import Message, MessageError, Stamper
from agent.contract.tensors import Tensor
from tests.contract import samples

KINDS = sorted(messages.KINDS)


def _plain(kind: str, content: bytes) -> Any:
    binary = samples.path_of(kind).suffix == ".msgpack"
    return msgspec.msgpack.decode(content) if binary else msgspec.json.decode(content)


def _packed(kind: str, plain: Any) -> bytes:
    binary = samples.path_of(kind).suffix == ".msgpack"
    return msgspec.msgpack.encode(plain) if binary else msgspec.json.encode(plain)


def _without_later_fields(plain: Any, golden: Any) -> Any:
    """`plain` reduced to the keys that the golden file has, at every depth."""
    if isinstance(golden, dict) and isinstance(plain, dict):
        return {key: _without_later_fields(plain[key], value) for key, value in golden.items() if key in plain}
    if isinstance(golden, list) and isinstance(plain, list) and len(golden) == len(plain):
        return [_without_later_fields(a, b) for a, b in zip(plain, golden, strict=True)]
    return plain


def test_every_kind_of_message_has_a_sample_and_a_golden_file() -> None:
    assert sorted(samples.SAMPLES) == KINDS
    missing = [str(samples.path_of(kind)) for kind in samples.encoded() if not samples.path_of(kind).exists()]
    assert not missing, "run `python -m tests.contract.samples`"


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_sets_every_field_so_that_the_golden_file_covers_it(kind: str) -> None:
    sample = samples.newest(kind)
    assert type(sample) is messages.KINDS[kind][0]
    for field in msgspec.structs.fields(type(sample)):
        if field.name not in ("v", "boot", "seq") and not field.required:
            assert getattr(sample, field.name) != field.default, field.name


@pytest.mark.parametrize("kind", KINDS)
def test_a_golden_message_decodes_to_what_was_meant(kind: str) -> None:
    decoded = messages.decode(kind, samples.path_of(kind).read_bytes())
    assert decoded == samples.stamped(samples.SAMPLES[kind])


LATER = [(kind, number) for number, grown in samples.LATER.items() for kind in grown]


@pytest.mark.parametrize(("kind", "number"), LATER)
def test_a_golden_message_that_grew_decodes_to_what_was_meant(kind: str, number: int) -> None:
    decoded = messages.decode(kind, samples.path_of(f"{kind}.{number}").read_bytes())
    assert decoded == samples.stamped(samples.LATER[number][kind])


@pytest.mark.parametrize("kind", sorted(samples.encoded()))
def test_encoding_keeps_every_field_of_the_golden_file_in_name_value_and_order(kind: str) -> None:
    golden = _plain(kind, samples.path_of(kind).read_bytes())
    today = _plain(kind, samples.encoded()[kind])
    kept = _without_later_fields(today, golden)
    assert kept == golden
    assert msgspec.json.encode(kept) == msgspec.json.encode(golden)


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_fields_are_ignored_at_every_depth(kind: str) -> None:
    def grown(value: Any) -> Any:
        if isinstance(value, dict):
            free = set(value) <= {"level", "digits", "ms", "site"}  # a map of the user's, not a struct
            return {**{key: grown(each) for key, each in value.items()}, **({} if free else {"of_v1_9": {"a": [1]}})}
        return [grown(each) for each in value] if isinstance(value, list) else value

    newer = _packed(kind, grown(_plain(kind, samples.path_of(kind).read_bytes())))
    assert messages.decode(kind, newer) == samples.stamped(samples.SAMPLES[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_with_only_its_required_fields_decodes(kind: str) -> None:
    type_ = messages.KINDS[kind][0]
    required = {field.encode_name for field in msgspec.structs.fields(type_) if field.required}
    golden = _plain(kind, samples.path_of(kind).read_bytes())
    bare = _packed(kind, {name: golden[name] for name in required})
    assert isinstance(messages.decode(kind, bare), type_)


@pytest.mark.parametrize("kind", KINDS)
def test_every_message_starts_with_protocol_boot_and_number(kind: str) -> None:
    golden = _plain(kind, samples.path_of(kind).read_bytes())
    assert list(golden)[:3] == ["v", "boot", "seq"]


def test_numbers_count_up_from_one_in_each_boot() -> None:
    stamper = Stamper("boot-2")
    numbers = [
        messages.decode("controller/status", stamper.encode(samples.SAMPLES["controller/status"])).seq for _ in "123"
    ]
    assert numbers == [1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("garbage", [b"", b"\x00", b"null", b"[]", b"{}", b'{"v":"1"}', b"[" * 100_000, b"\xff" * 40])
def test_garbage_is_a_message_error_and_nothing_else(kind: str, garbage: bytes) -> None:
    with pytest.raises(MessageError):
        messages.decode(kind, garbage)


def test_another_protocol_is_refused_by_name() -> None:
    later = msgspec.structs.replace(samples.stamped(samples.SAMPLES["controller/status"]), v=2)
    with pytest.raises(MessageError, match="protocol 2, this side speaks 1"):
        messages.decode("controller/status", msgspec.json.encode(later))


def test_a_payload_above_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(MessageError, match="the contract allows 120000"):
        messages.decode("blobs", bytes(messages.MAX_PAYLOAD + 1))


def test_a_full_chunk_with_its_envelope_fits_the_payload_limit() -> None:
    chunk = messages.Chunk(size=2**40, data=bytes(messages.CHUNK_BYTES))
    assert len(Stamper("b" * 200).encode(chunk)) <= messages.MAX_PAYLOAD


def test_inline_tensors_with_their_message_fit_the_payload_limit() -> None:
    tensor = Tensor("n" * 200, "uint8", (1, messages.MAX_INLINE), bytes(messages.MAX_INLINE))
    infer = messages.Infer(request="r" * 200, model="m" * 63, artifact="a" * 64, ttl_ms=1e9, inputs=(tensor,))
    assert len(Stamper("b" * 200).encode(infer)) <= messages.MAX_PAYLOAD


def test_decode_as_refuses_a_message_of_another_kind() -> None:
    payload = samples.path_of("controller/status").read_bytes()
    with pytest.raises(MessageError, match="expected Hello, got ControllerStatus"):
        messages.decode_as(messages.Hello, "controller/status", payload)
    status: Message = messages.decode_as(messages.ControllerStatus, "controller/status", payload)
    assert status.boot == "boot-1"


def test_the_golden_user_request_tensors_and_manifest_decode_to_what_was_meant() -> None:
    assert messages.decode_user(samples.path_of("user").read_bytes()) == samples.USER_SAMPLE
    assert messages.decode_tensors(samples.path_of("tensors").read_bytes()) == samples.TENSORS_SAMPLE
    assert manifest.decode(samples.path_of("manifest").read_bytes()) == samples.MANIFEST_SAMPLE


@pytest.mark.parametrize("garbage", [b"", b"{", b"{}", b"[1]", b'{"client": 1}', b"[" * 100_000, b"\xc1"])
def test_what_a_user_or_a_blob_sends_wrongly_is_a_message_error(garbage: bytes) -> None:
    with pytest.raises(MessageError):
        messages.decode_user(garbage)
    with pytest.raises(MessageError):
        messages.decode_tensors(garbage)
