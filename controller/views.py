"""What the API tells of records: the store's values, joined with what is only known in memory."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from controller import entries, records, replies
from controller.known import Known
from firmware_profiles.profile import Profile, choose, match

R = TypeVar("R")


def artifact(record: records.Artifact) -> replies.Artifact:
    return msgspec.convert(
        {
            **record.report,
            "digest": record.digest,
            "signed": record.signed,
            "bundle": record.bundle,
            "digests": {role: file.digest for role, file in record.files.items()},
        },
        replies.Artifact,
    )


def version(record: records.Version, artifacts: Iterable[records.Artifact]) -> replies.Version:
    return replies.Version(
        model=record.model,
        version=record.version,
        source=record.source,
        source_name=record.source_name,
        labels=record.labels,
        preprocessing=record.preprocessing,
        created_at=record.created_at,
        artifacts=tuple(artifact(a) for a in artifacts),
    )


def run(record: records.Run, artifacts: Iterable[records.Artifact]) -> replies.Run:
    return _as(replies.Run, record, artifacts=tuple(artifact(a) for a in artifacts))


def run_progress(record: records.Run) -> replies.RunProgress:
    return _as(replies.RunProgress, record)


def release(record: records.Release) -> replies.Release:
    return _as(replies.Release, record)


def rollout(record: records.Rollout, shares: Iterable[records.RolloutDevice]) -> replies.Rollout:
    devices = tuple(
        replies.RolloutDevice(device=s.device, profile=s.profile, state=s.state, reason=s.reason) for s in shares
    )
    return _as(replies.Rollout, record, devices=devices)


def job(record: records.Job) -> replies.Job:
    return _as(replies.Job, record)


def request(entry: entries.Request) -> replies.Request:
    steps = tuple(replies.Step(step=step, ms=ms, detail=detail) for step, ms, detail in entry.steps)
    return _as(replies.Request, entry, steps=steps)


def device(known: Known, profiles: Mapping[str, Profile], swaps: Iterable[records.Swap]) -> replies.Device:
    facts = known.record.facts
    chosen = choose(profiles.values(), facts)
    matches = ((profile.name, match(profile, facts)) for profile in profiles.values())
    seen = known.seen_at
    return replies.Device(
        name=known.name,
        state=known.record.state,
        online=known.online,
        cordoned=known.record.drain,
        labels=known.labels,
        key=_key_id(known.record.public_key),
        hardware=known.record.hardware,
        certificate_expires=known.record.certificate_expires,
        enrolled_at=known.record.enrolled_at,
        profile=chosen.name if chosen else None,
        match=tuple(replies.ProfileMatch(profile=n, fits=m.fits, reasons=m.reasons) for n, m in matches),
        facts=facts,
        simulated=known.record.simulated,
        load=msgspec.to_builtins(known.load) if known.load else None,
        desired_generation=known.record.desired_generation,
        reported_generation=known.record.reported_generation,
        models=known.record.reported,
        swaps=tuple(_swap(swap) for swap in swaps),
        agent_version=known.record.agent_version,
        last_seen_s=time.monotonic() - seen if seen > float("-inf") else None,
    )


def _key_id(pem: str) -> str:
    """As `PublicKey.id`, without parsing what was parsed at the join: a fleet's list has many."""
    return hashlib.sha256(base64.b64decode("".join(pem.splitlines()[1:-1]))).hexdigest() if pem else ""


def _swap(swap: records.Swap) -> replies.TimedSwap:
    return _as(replies.TimedSwap, swap.record, at=swap.at)


def _as(kind: type[R], record: Any, **more: Any) -> R:
    """`record` as a reply: the fields that both have, and `more`."""
    shared = {name: getattr(record, name) for name in _fields(kind) if hasattr(record, name)}
    return msgspec.convert({**msgspec.to_builtins(shared), **more}, kind)


def _fields(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(kind))
