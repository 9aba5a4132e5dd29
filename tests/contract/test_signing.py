"""Only the exact bytes, signed by a known key for this purpose, come out of an envelope."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from agent.contract import messages
from agent.contract.signing import PrivateKey, PublicKey, SignatureError, open_sealed, seal, write_secret
from tests.contract import samples

KIND = "application/vnd.lepta.test.v1+json"
KEY = PrivateKey.generate()


@given(payload=st.binary(max_size=500))
def test_what_was_sealed_comes_out_byte_for_byte(payload: bytes) -> None:
    assert open_sealed(seal(payload, KIND, KEY), KIND, [KEY.public]) == payload


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_no_changed_byte_of_an_envelope_changes_what_is_accepted(position: int, flip: int) -> None:
    payload = b'{"generation": 7}'
    envelope = bytearray(seal(payload, KIND, KEY))
    envelope[position % len(envelope)] ^= flip
    try:
        opened = open_sealed(bytes(envelope), KIND, [KEY.public])
    except SignatureError:
        return
    assert opened == payload


def test_a_changed_payload_is_refused_by_name() -> None:
    plain = msgspec.json.decode(seal(b"a", KIND, KEY))
    plain["payload"] = base64.b64encode(b"b").decode()
    with pytest.raises(SignatureError, match="the content was changed"):
        open_sealed(msgspec.json.encode(plain), KIND, [KEY.public])


def test_a_key_that_is_not_trusted_is_refused_by_name() -> None:
    with pytest.raises(SignatureError, match="not trusted here"):
        open_sealed(seal(b"a", KIND, PrivateKey.generate()), KIND, [KEY.public])


def test_an_envelope_for_another_purpose_is_refused() -> None:
    with pytest.raises(SignatureError, match="signed as"):
        open_sealed(seal(b"a", messages.CMD_TYPE, KEY), messages.DESIRED_TYPE, [KEY.public])


def test_the_purpose_is_part_of_what_is_signed() -> None:
    plain = msgspec.json.decode(seal(b"a", messages.CMD_TYPE, KEY))
    plain["payloadType"] = messages.DESIRED_TYPE
    with pytest.raises(SignatureError, match="the content was changed"):
        open_sealed(msgspec.json.encode(plain), messages.DESIRED_TYPE, [KEY.public])


def test_an_envelope_without_signatures_proves_nothing() -> None:
    plain = msgspec.json.decode(seal(b"a", KIND, KEY))
    with pytest.raises(SignatureError, match="not trusted here"):
        open_sealed(msgspec.json.encode({**plain, "signatures": []}), KIND, [KEY.public])


def test_a_second_signature_by_an_unknown_key_does_no_harm() -> None:
    ours = msgspec.json.decode(seal(b"a", KIND, KEY))
    other = msgspec.json.decode(seal(b"a", KIND, PrivateKey.generate()))
    both = {**ours, "signatures": other["signatures"] + ours["signatures"]}
    assert open_sealed(msgspec.json.encode(both), KIND, [KEY.public]) == b"a"


@pytest.mark.parametrize("garbage", [b"", b"{}", b"[]", b"\xff", b'{"payload":"!","payloadType":"a","signatures":[]}'])
def test_garbage_is_a_signature_error(garbage: bytes) -> None:
    with pytest.raises(SignatureError, match="not a signed envelope"):
        open_sealed(garbage, KIND, [KEY.public])


def test_the_golden_envelope_of_v1_verifies() -> None:
    signer = PublicKey.from_pem(samples.SIGNER.read_text())
    payload = open_sealed(samples.ENVELOPE.read_bytes(), messages.DESIRED_TYPE, [signer])
    assert messages.decode("agents/desired", payload) == samples.stamped(samples.SAMPLES["agents/desired"])


def test_a_key_survives_its_file_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "controller.key"
    made = PrivateKey.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PrivateKey.load_or_create(path).public.id == made.public.id
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_replaces_a_file_that_others_could_read(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o644)
    write_secret(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)


def test_a_file_that_is_no_key_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "release.key"
    path.write_text("hello")
    with pytest.raises(SignatureError, match=r"release\.key holds no private key"):
        PrivateKey.load_or_create(path)


def test_keys_of_another_curve_are_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(SignatureError, match="only P-256"):
        PublicKey.from_pem(public.decode())
    path = tmp_path / "other.key"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(SignatureError, match="P-256 is needed"):
        PrivateKey.load_or_create(path)
