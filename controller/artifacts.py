"""From an optimizer's report to signed artifacts: files into the catalog, one manifest per profile, sealed once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent.contract import manifest as contract
from agent.contract.manifest import (
    Acceptance,
    FileRef,
    Limits,
    Manifest,
    Parity,
    Preprocessing,
    Shadow,
    Watch,
)
from agent.contract.signing import PrivateKey
from agent.contract.tensors import TensorSpec
from controller import reads, signing_desk
from controller.catalog import Catalog
from controller.errors import UserError
from controller.records import Artifact, Version
from controller.roots import RootChain
from controller.signing_desk import Signed, Terms, Unsigned
from controller.store import Store

TESTED = {"ai-edge-litert": "2.1", "tflite-runtime": "2.14"}
"""The oldest runtime of each family that the gates ran on."""


class _File(msgspec.Struct, frozen=True):
    file: str
    digest: contract.Digest
    size: int


class ReportedArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `artifacts` in report.json; what else stands there is kept as it is for people."""

    profile: str
    files: dict[str, _File]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[str, ...]
    parity: Parity
    acceptance: Acceptance
    runtimes: tuple[str, ...]
    threads: int
    limits: Limits = Limits()


class Settings(msgspec.Struct, frozen=True):
    """What of its recipe is for the devices."""

    watch: Watch = Watch()
    shadow: Shadow = Shadow()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the controller needs of report.json."""

    artifacts: tuple[ReportedArtifact, ...]
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    settings: Settings = Settings()


def read_report(report: Mapping[str, Any]) -> Report:
    """Check a report that came from outside; raises UserError."""
    try:
        parsed = msgspec.convert(report, Report)
    except msgspec.ValidationError as error:
        raise UserError(
            f"not an optimizer's report: {error}", "use the report.json that lepta optimize wrote"
        ) from error
    for artifact in parsed.artifacts:
        if set(artifact.files) != set(contract.ROLES):
            raise UserError(f"the report's artifact for {artifact.profile} must name {', '.join(contract.ROLES)}")
    return parsed


class Signer:
    """Seals manifests with the release key and numbers them: the sequence of a model only grows."""

    def __init__(
        self, catalog: Catalog, store: Store, key: PrivateKey | None, roots: RootChain, wall: Callable[[], float]
    ) -> None:
        """`key` None: manifests wait until they are signed elsewhere."""
        self._catalog = catalog
        self._store = store
        self._key = key
        self._roots = roots
        self._wall = wall
        # Numbers given out and not saved yet: two runs of a model may end at the same time.
        self._last: dict[str, int] = {}

    @property
    def signs(self) -> bool:
        """The key is here, and counts."""
        return self._key is not None and self._key.public.id in {key.id for key in self._roots.release_keys()}

    async def accept(self, artifact: Artifact, signed: Signed) -> Artifact:
        """A waiting artifact with what was signed elsewhere. Raises UserError."""
        waiting = await asyncio.to_thread(self._catalog.path(artifact.manifest).read_bytes)
        manifest = signing_desk.accept(waiting, signed, self._roots.release_keys())
        return await self._stored(artifact, manifest, signed)

    async def _stored(self, artifact: Artifact, manifest: Manifest, signed: Signed) -> Artifact:
        envelope = await self._catalog.put_bytes(signed.envelope.encode())
        bundle = await self._catalog.put_bytes(signed.bundle.encode())
        return msgspec.structs.replace(
            artifact, manifest=envelope.digest, bundle=bundle.digest, signed=True, target=manifest.target
        )

    async def sign(self, version: Version, raw: Mapping[str, Any], folder: Path | None) -> list[Artifact]:
        """One signed artifact per entry of the report `raw`. Files are taken from `folder`, or are in the catalog
        already where it is None. Raises UserError if a file is missing or is not what the report describes."""
        report = read_report(raw)
        if folder is not None:
            await self._take_folder(folder, report)
        free = max(await self._store.read(reads.next_sequence(version.model)), self._last.get(version.model, 0) + 1)
        self._last[version.model] = free + len(report.artifacts) - 1
        entries = {entry["profile"]: entry for entry in raw["artifacts"]}
        return [
            await self._sign_one(version, report, reported, entries[reported.profile], sequence)
            for sequence, reported in enumerate(report.artifacts, start=free)
        ]

    async def _sign_one(
        self, version: Version, report: Report, reported: ReportedArtifact, entry: dict[str, Any], sequence: int
    ) -> Artifact:
        now = self._wall()
        manifest = _manifest(version, report, reported, sequence, now)
        for role, file in manifest.files.items():
            if self._catalog.locate(file.digest) is None:
                raise UserError(f"the {role} file of {reported.profile} was not uploaded", "lepta model push DIR")
        stored = await self._catalog.put_bytes(contract.encode(manifest))
        waiting = Artifact(
            digest=manifest.artifact,
            model=version.model,
            version=version.version,
            profile=reported.profile,
            files=manifest.files,
            manifest=stored.digest,
            sequence=sequence,
            report=entry,
            created_at=now,
            signed=False,
        )
        if self._key is None or not self.signs:
            return waiting
        named = Unsigned(
            model=version.model,
            version=version.version,
            profile=reported.profile,
            manifest=contract.encode(manifest).decode(),
        )
        return await self._stored(waiting, manifest, signing_desk.sign(named, self._key, Terms()))

    async def _take_folder(self, folder: Path, report: Report) -> None:
        """Put an optimizer's files into the catalog and check that they are what the report says."""
        for artifact in report.artifacts:
            for file in artifact.files.values():
                stored = await self._catalog.put_file(folder / Path(file.file).name, file.size)
                if stored.digest != file.digest:
                    raise UserError(
                        f"{file.file} is not what the report describes: its content was changed", "run it again"
                    )


def _manifest(version: Version, report: Report, reported: ReportedArtifact, sequence: int, now: float) -> Manifest:
    return Manifest(
        model=version.model,
        version=version.version,
        profile=reported.profile,
        sequence=sequence,
        issued_at=int(now),
        source=version.source,
        files={role: FileRef(file.digest, file.size) for role, file in reported.files.items()},
        inputs=reported.inputs,
        outputs=reported.outputs,
        operators=reported.operators,
        parity=reported.parity,
        acceptance=reported.acceptance,
        runtimes=reported.runtimes,
        runtime_minimum={name: least for name, least in TESTED.items() if name in reported.runtimes},
        threads=reported.threads,
        limits=reported.limits,
        labels=version.labels or report.labels,
        preprocessing=version.preprocessing or report.preprocessing,
        watch=report.settings.watch,
        shadow=report.settings.shadow,
    )
