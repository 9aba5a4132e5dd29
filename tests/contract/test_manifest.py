"""A manifest that cannot be used is refused with the reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.contract import manifest
from agent.contract.manifest import ManifestError
from tests.contract.samples import MANIFEST_SAMPLE, path_of


def _changed(**changes: Any) -> bytes:
    plain = msgspec.json.decode(path_of("manifest").read_bytes())
    return msgspec.json.encode({**plain, **changes})


def test_the_artifact_is_named_by_the_digest_of_its_model_file() -> None:
    assert MANIFEST_SAMPLE.artifact == MANIFEST_SAMPLE.files["model"].digest


def test_unknown_fields_of_a_later_manifest_are_ignored() -> None:
    assert manifest.decode(_changed(of_later={"a": 1})) == MANIFEST_SAMPLE


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "manifest format 2 is not known here"),
        ({"model": "../etc"}, "not usable"),
        ({"model": "Digits"}, "not usable"),
        ({"version": 0}, "version"),
        ({"sequence": 0}, "sequence"),
        ({"source": "A1" * 32}, "source"),
        ({"files": {}}, "names the files model, parity, acceptance"),
        ({"parity": {"agreement": 1.5, "sqnr_db": 0}}, "agreement"),
    ],
)
def test_a_manifest_with_a_wrong_value_is_refused_with_the_reason(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        manifest.decode(_changed(**changes))


def test_a_manifest_with_a_file_too_many_is_refused() -> None:
    plain = msgspec.json.decode(path_of("manifest").read_bytes())
    with pytest.raises(ManifestError, match="names the files"):
        manifest.decode(_changed(files={**plain["files"], "extra": plain["files"]["model"]}))


@pytest.mark.parametrize("garbage", [b"", b"null", b"{", b"[]", b"\xff\xfe"])
def test_garbage_is_a_manifest_error(garbage: bytes) -> None:
    with pytest.raises(ManifestError):
        manifest.decode(garbage)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("a" * 64, True), ("A" * 64, False), ("a" * 63, False), ("a" * 64 + "\n", False), ("../a", False)],
)
def test_only_64_lower_case_hex_digits_are_a_digest(text: str, is_one: bool) -> None:
    assert manifest.is_digest(text) is is_one
