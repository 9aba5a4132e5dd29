"""Is this the artifact that is desired, signed by a release key, and may and can this device run it?"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from agent import frames
from agent.blobs import Blobs
from agent.contract.manifest import PAYLOAD_TYPE, Manifest, ManifestError, decode
from agent.contract.messages import DesiredModel
from agent.contract.signing import PublicKey, open_sealed
from agent.settings import Limits
from firmware_profiles.operators import BUILTIN_OPERATORS


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """What a manifest asks of the device it is for."""

    name: str
    labels: Mapping[str, str]
    runtimes: Mapping[str, str]
    """Installed version by name, best first; "" where it is not known."""
    misfits: Mapping[str, str]
    """Why it does not fit a profile, for each known profile that it does not fit."""
    limits: Limits
    has_passed: Callable[[float], bool]
    """Is it later than this moment, as far as the clock can be believed?"""


def open_manifest(envelope: bytes, keys: Iterable[PublicKey], wanted: DesiredModel) -> Manifest:
    """The manifest of a signed envelope. Raises SignatureError, or ManifestError if it is not what is desired."""
    manifest = decode(open_sealed(envelope, PAYLOAD_TYPE, keys))
    described = (manifest.model, manifest.version, manifest.profile, manifest.artifact)
    if described != (wanted.model, wanted.version, wanted.profile, wanted.artifact):
        raise ManifestError(
            f"the manifest describes {manifest.model} {manifest.version} for {manifest.profile}, "
            f"desired is {wanted.model} {wanted.version} for {wanted.profile} (artifact {wanted.artifact[:12]})",
            "mismatch",
        )
    return manifest


def check_manifest(manifest: Manifest, device: Device, floor: int, *, anew: bool = True) -> None:
    """Raises ManifestError saying why this device must not install it. `anew`: it did not serve here before."""
    if manifest.sequence < floor:
        raise ManifestError(f"its sequence {manifest.sequence} is below the floor {floor} set for security", "sequence")
    if anew and manifest.expires_at and device.has_passed(manifest.expires_at):
        raise ManifestError(
            f"it could be installed until {_day(manifest.expires_at)}, and by the clock here that is over: sign the "
            "version anew, or set this device's clock",
            "expired",
        )
    if not manifest.target.takes(device.name, device.labels):
        raise ManifestError(f"it is signed for {manifest.target}; this is {device.name}", "target")
    if manifest.profile in device.misfits:
        raise ManifestError(
            f"it is built for {manifest.profile}, which this device does not fit: {device.misfits[manifest.profile]}",
            "profile",
        )
    _check_runtimes(manifest, device.runtimes)
    _check_operators(manifest)
    _check_sizes(manifest, device.limits)


def usable_runtimes(manifest: Manifest, installed: Mapping[str, str]) -> tuple[str, ...]:
    """Those that are named and new enough, in the manifest's order."""
    least = manifest.runtime_minimum
    return tuple(
        name for name in manifest.runtimes if name in installed and _at_least(installed[name], least.get(name, ""))
    )


def start_order(manifest: Manifest, blobs: Blobs, device: Device, extra_ms_per_row: float) -> frames.Start:
    """What a worker is told to load."""
    return frames.Start(
        model=manifest.model,
        path=str(blobs.path(manifest.artifact)),
        digest=manifest.artifact,
        runtimes=usable_runtimes(manifest, device.runtimes),
        threads=manifest.threads,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        operators=manifest.operators,
        extra_ms_per_row=extra_ms_per_row,
        version=manifest.version,
        device=device.name,
        wait_ms=device.limits.batch_wait_ms,
        labels=manifest.labels,
        preprocessing=manifest.preprocessing,
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


def _check_runtimes(manifest: Manifest, installed: Mapping[str, str]) -> None:
    if usable_runtimes(manifest, installed):
        return
    least = manifest.runtime_minimum
    needed = " or ".join(f"{name} {least.get(name, '')}".strip() for name in manifest.runtimes)
    here = ", ".join(f"{name} {version}".strip() for name, version in installed.items()) or "none"
    raise ManifestError(f"it needs the runtime {needed}; installed here: {here}", "runtime")


def _check_operators(manifest: Manifest) -> None:
    unknown = sorted(set(manifest.operators) - BUILTIN_OPERATORS)
    if unknown:
        raise ManifestError(
            f"it needs operators that no runtime here has: {', '.join(unknown[:8])}; convert with builtin ones only",
            "operator",
        )


def _check_sizes(manifest: Manifest, limits: Limits) -> None:
    for role, file in manifest.files.items():
        if not 0 < file.size <= limits.blob_mb << 20:
            raise ManifestError(
                f"its {role} file has {file.size} bytes; 1 byte to {limits.blob_mb} MB are taken here", "size"
            )
    total = sum({file.digest: file.size for file in manifest.files.values()}.values())
    if total > limits.disk_mb << 20:
        raise ManifestError(f"its files have {total} bytes; {limits.disk_mb} MB are kept here", "size")


def _at_least(version: str, least: str) -> bool:
    """A version that is not known is not old enough to refuse."""
    return not version or not least or _numbers(version) >= _numbers(least)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part[:9]) for part in re.findall(r"\d+", version.partition("+")[0])[:4])


def _day(moment: int) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(moment))
    except (OverflowError, ValueError, OSError):
        return str(moment)
