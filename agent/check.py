"""Is this the artifact that is desired, signed by the release key, and can this device run it?"""

from __future__ import annotations

from collections.abc import Sequence

from agent import frames
from agent.blobs import Blobs
from agent.contract.manifest import PAYLOAD_TYPE, Manifest, ManifestError, decode
from agent.contract.messages import DesiredModel
from agent.contract.signing import PublicKey, open_sealed
from agent.settings import Limits


def check_manifest(
    envelope: bytes, release_key: PublicKey, wanted: DesiredModel, floor: int, runtimes: Sequence[str], limits: Limits
) -> Manifest:
    """The manifest of a signed envelope. Raises SignatureError, or ManifestError saying why it cannot be used here."""
    manifest = decode(open_sealed(envelope, PAYLOAD_TYPE, [release_key]))
    described = (manifest.model, manifest.version, manifest.profile, manifest.artifact)
    if described != (wanted.model, wanted.version, wanted.profile, wanted.artifact):
        raise ManifestError(
            f"the manifest describes {manifest.model} {manifest.version} for {manifest.profile}, "
            f"desired is {wanted.model} {wanted.version} for {wanted.profile} (artifact {wanted.artifact[:12]})"
        )
    if manifest.sequence < floor:
        raise ManifestError(f"its sequence {manifest.sequence} is below the floor {floor} set for security")
    if not set(manifest.runtimes) & set(runtimes):
        raise ManifestError(
            f"it needs the runtime {' or '.join(manifest.runtimes)}; installed here: {', '.join(runtimes) or 'none'}"
        )
    for role, file in manifest.files.items():
        if not 0 < file.size <= limits.blob_mb << 20:
            raise ManifestError(f"its {role} file has {file.size} bytes; 1 byte to {limits.blob_mb} MB are taken here")
    return manifest


def start_order(manifest: Manifest, blobs: Blobs, runtimes: Sequence[str], extra_ms_per_row: float) -> frames.Start:
    """What a worker is told to load."""
    return frames.Start(
        model=manifest.model,
        path=str(blobs.path(manifest.artifact)),
        digest=manifest.artifact,
        runtimes=tuple(name for name in manifest.runtimes if name in runtimes),
        threads=manifest.threads,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        operators=manifest.operators,
        extra_ms_per_row=extra_ms_per_row,
    )


def probe_order(manifest: Manifest, blobs: Blobs) -> frames.Probe:
    """What a candidate is told to measure itself on."""
    parity, acceptance = manifest.files["parity"].digest, manifest.files["acceptance"].digest
    return frames.Probe(
        parity=str(blobs.path(parity)),
        parity_digest=parity,
        acceptance=str(blobs.path(acceptance)),
        acceptance_digest=acceptance,
    )
