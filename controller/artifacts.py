"""From an optimizer's report to signed artifacts: files into the catalog, one manifest per profile, sealed once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
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
from agent.contract.signing import PrivateKey, SignatureError, open_sealed
from agent.contract.tensors import TensorSpec
from controller import reads, signing_desk
from controller.catalog import Catalog
from controller.errors import UserError
from controller.records import Artifact, Version
from controller.roots import RootChain
from controller.signing_desk import HOW, Signed, Unsigned
from controller.store import Store
from controller.terms import NO_TERMS, Terms

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

    async def sign(
        self, version: Version, raw: Mapping[str, Any], folder: Path | None, terms: Terms = NO_TERMS
    ) -> list[Artifact]:
        """One signed artifact per entry of the report `raw`. Files are taken from `folder`, or are in the catalog
        already where it is None. Raises UserError if a file is missing or is not what the report describes."""
        report = read_report(raw)
        if folder is not None:
            await self._take_folder(folder, report)
        free = await self._numbers(version.model, len(report.artifacts))
        entries = {entry["profile"]: entry for entry in raw["artifacts"]}
        return [
            await self._sign_one(version, report, reported, entries[reported.profile], sequence, terms)
            for sequence, reported in enumerate(report.artifacts, start=free)
        ]

    async def _sign_one(
        self,
        version: Version,
        report: Report,
        reported: ReportedArtifact,
        entry: dict[str, Any],
        sequence: int,
        terms: Terms,
    ) -> Artifact:
        now = self._wall()
        manifest = terms.applied(_manifest(version, report, reported, sequence, now))
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
        return await self._sealed(waiting, manifest) if self.signs else waiting

    async def renew(self, artifacts: Iterable[Artifact], terms: Terms) -> list[Artifact]:
        """The same artifacts under new manifests that ask for `terms`: what was signed before is never signed again,
        so each gets a number of its own. Raises UserError where the key is elsewhere."""
        before = list(artifacts)
        if not self.signs:
            raise UserError("terms are given where the release key is: this controller does not hold it", HOW)
        renewed = []
        for artifact in before:
            old = await self._read(artifact)
            sequence = await self._numbers(artifact.model, 1)
            fresh = terms.applied(msgspec.structs.replace(old, sequence=sequence, issued_at=int(self._wall())))
            renewed.append(await self._sealed(msgspec.structs.replace(artifact, sequence=sequence), fresh))
        return renewed

    async def _read(self, artifact: Artifact) -> Manifest:
        content = await asyncio.to_thread(self._catalog.path(artifact.manifest).read_bytes)
        if not artifact.signed:
            return contract.decode(content)
        try:
            return contract.decode(open_sealed(content, contract.PAYLOAD_TYPE, self._roots.release_keys()))
        except SignatureError as error:
            what = f"{artifact.model} {artifact.version} for {artifact.profile}"
            raise UserError(f"{what}: {error}", "its key counts no more: lepta deploy builds it anew") from error

    async def _numbers(self, model: str, count: int) -> int:
        """The first of so many numbers that nobody else gets."""
        free = max(await self._store.read(reads.next_sequence(model)), self._last.get(model, 0) + 1)
        self._last[model] = free + count - 1
        return free

    async def _sealed(self, artifact: Artifact, manifest: Manifest) -> Artifact:
        assert self._key is not None
        named = Unsigned(
            model=manifest.model,
            version=manifest.version,
            profile=manifest.profile,
            manifest=contract.encode(manifest).decode(),
        )
        return await self._stored(artifact, manifest, signing_desk.sign(named, self._key, NO_TERMS))

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
