"""Manifests between a controller without the release key and the machine that has it. No clock, no network."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from agent.contract import manifest as contract
from agent.contract.manifest import Manifest, ManifestError
from agent.contract.signing import PrivateKey, PublicKey, SignatureError, open_sealed, seal
from controller.bundle import check_bundle, sign_bundle
from controller.errors import UserError
from controller.terms import Terms, terms_of

HOW = (
    "lepta release pending --out FILE; where the key is: lepta release sign FILE --key KEY; "
    "then here: lepta release push FILE"
)


class Unsigned(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest that waits for its signature: the exact bytes, as text."""

    model: str
    version: int
    profile: str
    manifest: str


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """`envelope` is the manifest's, `bundle` the same artifact's for tools that know nothing of Lepta."""

    model: str
    version: int
    profile: str
    envelope: str
    bundle: str


class Paper(msgspec.Struct, frozen=True, kw_only=True):
    """The file that travels: first with what waits, then with what was signed."""

    waiting: tuple[Unsigned, ...] = ()
    signed: tuple[Signed, ...] = ()


class ReleaseKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Whose signatures on manifests count. `version` of the root document; 0: none was made yet. Keys as PEM."""

    version: int
    root_key: str
    release_keys: tuple[str, ...]
    signs_here: bool = True
    """This controller holds one of the keys and signs by itself."""


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """No manifest of the model with a lower sequence is installed any more."""

    model: str
    sequence: int


def read_paper(content: bytes) -> Paper:
    try:
        return msgspec.json.decode(content, type=Paper)
    except (msgspec.DecodeError, ValueError) as error:
        raise UserError(f"not a file of lepta release: {error}", "lepta release pending --out FILE") from error


def sign(waiting: Unsigned, key: PrivateKey, terms: Terms) -> Signed:
    """Raises UserError for what is no manifest, or another one than it is called."""
    try:
        manifest = terms.applied(contract.decode(waiting.manifest.encode()))
    except ManifestError as error:
        raise UserError(f"{waiting.model} {waiting.version} for {waiting.profile}: {error}", HOW) from error
    if (manifest.model, manifest.version, manifest.profile) != (waiting.model, waiting.version, waiting.profile):
        raise UserError(
            f"the manifest called {waiting.model} {waiting.version} is of {manifest.model} {manifest.version}"
        )
    return Signed(
        model=manifest.model,
        version=manifest.version,
        profile=manifest.profile,
        envelope=seal(contract.encode(manifest), contract.PAYLOAD_TYPE, key).decode(),
        bundle=sign_bundle(manifest, key).decode(),
    )


def accept(waiting: bytes, signed: Signed, keys: Iterable[PublicKey]) -> Manifest:
    """The signed manifest, if it is the one that waits: only its terms may differ. Raises UserError."""
    what = f"{signed.model} {signed.version} for {signed.profile}"
    try:
        asked = contract.decode(waiting)
        for key in keys:
            if key.id in signed.envelope:
                found = contract.decode(open_sealed(signed.envelope.encode(), contract.PAYLOAD_TYPE, [key]))
                check_bundle(signed.bundle.encode(), found, key)
                break
        else:
            raise UserError(f"{what} was signed by a key that is not a release key here", "lepta release keys")
    except (SignatureError, ManifestError) as error:
        raise UserError(f"{what}: {error}", HOW) from error
    if terms_of(found).applied(asked) != found:
        raise UserError(f"{what}: what was signed is not what waits here", HOW)
    return found
