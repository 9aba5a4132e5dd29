"""Forged, stale and misdirected manifests, and altered artifacts, as many as wanted from one seed, and whether an agent
takes any of them.

Each attack is what somebody could bring before an agent who has less than the right release key: the envelope, what is
desired, and the cause that the refusal must name. Or, under a genuine manifest, the bytes of the artifact: what a
source sends, in chunks, for a digest and a size that are signed.
"""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from agent.blobs import Blobs, WrongBytesError
from agent.check import Device, check_manifest, open_manifest
from agent.chunks import ChunkError, Missing
from agent.contract import manifest as contract
from agent.contract.manifest import PAYLOAD_TYPE, FileRef, Manifest, ManifestError, Target
from agent.contract.messages import CHUNK_BYTES, DESIRED_TYPE, DesiredModel
from agent.contract.signing import PrivateKey, SignatureError, seal
from agent.settings import Limits
from tests.contract.samples import MANIFEST_SAMPLE

NOW = 1_800_000_000
FLOOR = 5
KEY, STRANGER = PrivateKey.generate(), PrivateKey.generate()
SOUND = msgspec.structs.replace(
    MANIFEST_SAMPLE,
    expires_at=NOW + 86400,
    target=Target(("pi-7",), ("site=north",)),
    runtime_minimum={"ai-edge-litert": "2.1"},
    runtimes=("ai-edge-litert",),
)
DEVICE = Device(
    name="pi-7",
    labels={"site": "north"},
    runtimes={"ai-edge-litert": "2.3.0"},
    misfits={"rpi4": "no: machine is x86_64"},
    limits=Limits(blob_mb=1, disk_mb=2),
    has_passed=lambda moment: moment <= NOW,
)


class Attack(NamedTuple):
    envelope: bytes
    wanted: DesiredModel
    cause: str


def wanted(manifest: Manifest) -> DesiredModel:
    """What a desired state names that honestly asks for it."""
    return DesiredModel(
        model=manifest.model,
        version=manifest.version,
        artifact=manifest.artifact,
        manifest="d4" * 32,
        profile=manifest.profile,
    )


def verdict(attack: Attack, device: Device = DEVICE) -> str:
    """The cause of the refusal; empty if the agent takes it."""
    try:
        manifest = open_manifest(attack.envelope, [KEY.public], attack.wanted)
        check_manifest(manifest, device, FLOOR)
    except (SignatureError, ManifestError) as error:
        return error.cause
    return ""


class Altered(NamedTuple):
    """`data` in the place of chunk `number`, in a blob that its source calls `says` bytes long."""

    number: int
    says: int
    data: bytes
    cause: str


ARTIFACT = random.Random(0).randbytes(3 * CHUNK_BYTES + 1000)
"""What is signed: four chunks, the last one short."""
DIGEST = hashlib.sha256(ARTIFACT).hexdigest()


def chunk_of(artifact: bytes, number: int) -> bytes:
    return artifact[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]


def taken(attack: Altered, blobs: Blobs) -> str:
    """The cause of the refusal of an artifact with one altered chunk, by the rules and the store of an agent that
    fetches it; empty if the store holds it as whole. Leaves nothing in the store."""
    missing = Missing(len(ARTIFACT), len(ARTIFACT), 1.0, 1)
    here = blobs.begin(DIGEST, len(ARTIFACT), ())
    missing.known(len(ARTIFACT), here)
    try:
        for number in range(len(here)):
            altered = number == attack.number
            data = attack.data if altered else chunk_of(ARTIFACT, number)
            missing.check(number, attack.says if altered else len(ARTIFACT), len(data))
            blobs.write(DIGEST, number, data)
        blobs.seal(DIGEST, len(ARTIFACT))
    except ChunkError:
        return "size"
    except WrongBytesError:
        return "digest"
    finally:
        blobs.drop(DIGEST)
    return ""


def alterations(count: int, seed: int) -> Iterator[Altered]:
    """Every kind in turn, each time in another place."""
    chance = random.Random(seed)
    for number in range(count):
        yield _ALTERATIONS[number % len(_ALTERATIONS)](chance)


def attacks(count: int, seed: int) -> Iterator[Attack]:
    """Every kind in turn, each time with other details."""
    chance = random.Random(seed)
    for number in range(count):
        yield _KINDS[number % len(_KINDS)](chance)


def sealed(manifest: Manifest, key: PrivateKey = KEY) -> bytes:
    return seal(contract.encode(manifest), PAYLOAD_TYPE, key)


def _changed_byte(chance: random.Random) -> Attack:
    envelope = bytearray(sealed(SOUND))
    at = chance.randrange(envelope.index(b'"payload"'), envelope.index(b'"signatures"'))
    envelope[at] ^= 1 << chance.randrange(7)
    return Attack(bytes(envelope), wanted(SOUND), "changed")


def _with(cause: str, change: Callable[[random.Random], dict[str, object]]) -> Callable[[random.Random], Attack]:
    """Signed by the right key, and not for here or now."""

    def make(chance: random.Random) -> Attack:
        manifest = msgspec.structs.replace(SOUND, **change(chance))
        return Attack(sealed(manifest), wanted(manifest), cause)

    return make


def _forged(chance: random.Random) -> Attack:
    manifest = msgspec.structs.replace(SOUND, sequence=chance.randrange(FLOOR, 1 << 40))
    return Attack(sealed(manifest, STRANGER), wanted(manifest), "key")


def _claims_our_key(chance: random.Random) -> Attack:
    """The stranger's signature under our key's name."""
    manifest = msgspec.structs.replace(SOUND, threads=chance.randrange(3, 1 << 20))
    envelope = sealed(manifest, STRANGER).replace(STRANGER.public.id.encode(), KEY.public.id.encode())
    return Attack(envelope, wanted(manifest), "changed")


def _unsigned(chance: random.Random) -> Attack:
    plain = msgspec.json.decode(sealed(msgspec.structs.replace(SOUND, threads=chance.randrange(3, 1 << 20))))
    return Attack(msgspec.json.encode({**plain, "signatures": []}), wanted(SOUND), "key")


def _other_purpose(chance: random.Random) -> Attack:
    """Our key signed it, as something else."""
    payload = contract.encode(msgspec.structs.replace(SOUND, threads=chance.randrange(3, 1 << 20)))
    return Attack(seal(payload, DESIRED_TYPE, KEY), wanted(SOUND), "changed")


def _cut(chance: random.Random) -> Attack:
    envelope = sealed(SOUND)
    return Attack(envelope[: chance.randrange(len(envelope))], wanted(SOUND), "changed")


def _another_version(chance: random.Random) -> Attack:
    """A genuine manifest under the name of what is desired."""
    other = msgspec.structs.replace(SOUND, version=chance.randrange(3, 1 << 20))
    return Attack(sealed(other), wanted(SOUND), "mismatch")


def _another_model(chance: random.Random) -> Attack:
    other = msgspec.structs.replace(SOUND, model=_word(chance))
    return Attack(sealed(other), wanted(SOUND), "mismatch")


def _another_artifact(chance: random.Random) -> Attack:
    files = {**SOUND.files, "model": FileRef(f"{chance.getrandbits(256):064x}", 1000)}
    return Attack(sealed(msgspec.structs.replace(SOUND, files=files)), wanted(SOUND), "mismatch")


def _garbage(chance: random.Random) -> Attack:
    """Our key signed what is no manifest."""
    payload = chance.randbytes(chance.randrange(400))
    return Attack(seal(payload, PAYLOAD_TYPE, KEY), wanted(SOUND), "unreadable")


def _large_file(chance: random.Random) -> dict[str, object]:
    role = chance.choice(contract.ROLES)
    size = chance.choice([0, (1 << 20) + 1 + chance.randrange(1 << 40)])
    return {"files": {**SOUND.files, role: FileRef(SOUND.files[role].digest, size)}}


def _word(chance: random.Random) -> str:
    return "x" + "".join(chance.choices(string.ascii_lowercase, k=8))


def _changed_bit(chance: random.Random) -> Altered:
    number = chance.randrange(4)
    data = bytearray(chunk_of(ARTIFACT, number))
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return Altered(number, len(ARTIFACT), bytes(data), "digest")


def _other_bytes(chance: random.Random) -> Altered:
    number = chance.randrange(4)
    return Altered(number, len(ARTIFACT), chance.randbytes(len(chunk_of(ARTIFACT, number))), "digest")


def _another_chunk(chance: random.Random) -> Altered:
    """A genuine chunk in another's place."""
    number, other = chance.sample(range(3), 2)
    return Altered(number, len(ARTIFACT), chunk_of(ARTIFACT, other), "digest")


def _cut_chunk(chance: random.Random) -> Altered:
    number = chance.randrange(4)
    data = chunk_of(ARTIFACT, number)
    return Altered(number, len(ARTIFACT), data[: chance.randrange(len(data))], "size")


def _longer_chunk(chance: random.Random) -> Altered:
    number = chance.randrange(4)
    more = chance.randbytes(chance.randrange(1, 2000))
    return Altered(number, len(ARTIFACT), chunk_of(ARTIFACT, number) + more, "size")


def _another_size(chance: random.Random) -> Altered:
    """The last chunk is longer, and so is the blob, by what its source says."""
    more = chance.randbytes(chance.randrange(1, 2000))
    return Altered(3, len(ARTIFACT) + len(more), chunk_of(ARTIFACT, 3) + more, "size")


_ALTERATIONS: tuple[Callable[[random.Random], Altered], ...] = (
    _changed_bit,
    _other_bytes,
    _another_chunk,
    _cut_chunk,
    _longer_chunk,
    _another_size,
)
_KINDS: tuple[Callable[[random.Random], Attack], ...] = (
    _changed_byte,
    _forged,
    _claims_our_key,
    _unsigned,
    _other_purpose,
    _cut,
    _another_version,
    _another_model,
    _another_artifact,
    _garbage,
    _with("sequence", lambda chance: {"sequence": chance.randrange(1, FLOOR)}),
    _with("expired", lambda chance: {"expires_at": NOW - chance.randrange(1 << 29)}),
    _with("profile", lambda chance: {"profile": "rpi4", "version": chance.randrange(1, 99)}),
    _with("target", lambda chance: {"target": Target((_word(chance),))}),
    _with("target", lambda chance: {"target": Target((), (f"site={_word(chance)}",))}),
    _with("size", _large_file),
    _with("operator", lambda chance: {"operators": ("CONV_2D", _word(chance).upper())}),
    _with("runtime", lambda chance: {"runtimes": (_word(chance),)}),
    _with("runtime", lambda chance: {"runtime_minimum": {"ai-edge-litert": f"{chance.randrange(3, 99)}.0"}}),
)
