"""An artifact's signature in the OpenSSF Model Signing format, for tools that know nothing of Lepta.

Source: OpenSSF Model Signing 1.0: an in-toto statement (v1) with the predicate `model_signing/signature/v1.0`,
in a DSSE envelope, in a Sigstore bundle 0.3 whose verification material is a hint at the public key.
`model_signing verify key FOLDER --signature FOLDER/model.sig --public_key release.pub` checks it.
"""

from __future__ import annotations

import hashlib

import msgspec

from agent.contract.manifest import Manifest
from agent.contract.signing import PrivateKey, PublicKey, SignatureError, open_sealed, seal

SIGNATURE = "model.sig"
FILES = {"model": "model.tflite", "parity": "parity.golden", "acceptance": "acceptance.golden"}
"""How the files of an artifact are called in its folder, by role."""
_IN_TOTO = "application/vnd.in-toto+json"
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


class _Bundle(msgspec.Struct, rename="camel"):
    dsse_envelope: msgspec.Raw


def sign_bundle(manifest: Manifest, key: PrivateKey) -> bytes:
    envelope = msgspec.json.decode(seal(_statement(manifest), _IN_TOTO, key))
    # The format names no key here; the hint below does.
    envelope["signatures"] = [{"sig": signature["sig"], "keyid": ""} for signature in envelope["signatures"]]
    hint = hashlib.sha256(key.public.pem().encode()).hexdigest()
    bundle = {
        "mediaType": _BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": envelope,
    }
    return msgspec.json.encode(bundle)


def check_bundle(bundle: bytes, manifest: Manifest, key: PublicKey) -> None:
    """Raises SignatureError unless `key` signed exactly the files of this manifest."""
    try:
        envelope = msgspec.json.decode(msgspec.json.decode(bundle, type=_Bundle).dsse_envelope)
        envelope["signatures"] = [{"keyid": key.id, "sig": signature["sig"]} for signature in envelope["signatures"]]
    except (msgspec.DecodeError, ValueError, TypeError, KeyError) as error:
        raise SignatureError(f"not a bundle: {error}") from error
    if open_sealed(msgspec.json.encode(envelope), _IN_TOTO, [key]) != _statement(manifest):
        raise SignatureError("the bundle is for other files")


def _statement(manifest: Manifest) -> bytes:
    digests = sorted((FILES[role], file.digest) for role, file in manifest.files.items())
    together = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in digests)).hexdigest()
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": f"{manifest.model}-{manifest.version}", "digest": {"sha256": together}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE],
            },
            "resources": [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in digests],
        },
    }
    return msgspec.json.encode(statement)
