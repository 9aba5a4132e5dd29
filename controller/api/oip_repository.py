"""The model repository of the Open Inference Protocol v2: what there is, bring it to the devices, take it off them.

An answer says what is true by then: 200 once it is done, 202 where it is under way still, an error where it failed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from fastapi import APIRouter, Request
from fastapi.responses import Response

from agent.contract import oip_models
from agent.contract.oip_models import READY, UNAVAILABLE, Standing
from controller import reads, records, repository
from controller.api.access import RELEASE, controller_of, needs
from controller.api.errors import error_body, reply
from controller.errors import BadRequest, DeviceError, UserError
from controller.parts import Controller
from controller.repository import Built

router = APIRouter(prefix="/v2/repository", tags=["inference"])
_LOOK_S = 0.1


@router.post("/index", dependencies=needs("read", "infer"))
async def index(request: Request) -> Response:
    wanted = await _wanted(request)
    controller = controller_of(request)
    models = await controller.store.read(reads.every(records.Model))
    listed = [standing for model in models for standing in await _standings(controller, model.name)]
    return reply([standing for standing in listed if not wanted.ready or standing.state == READY])


@router.post("/models/{model}/load", dependencies=RELEASE)
async def load(request: Request, model: str) -> Response:
    """Bring the newest released version to every device that fits, unless it answers already."""
    if (await _wanted(request)).parameters:
        raise UserError("a model's configuration and files cannot be sent along", "lepta deploy, or lepta model push")
    controller = controller_of(request)
    release = await _newest_release(controller, model)
    if not _is_there(controller, release):
        rollout = await _roll_out(controller, release)
        rollout = await _settled(controller, rollout.id)
        if rollout.state not in ("running", "done"):
            raise DeviceError(await _reasons(controller, rollout), f"lepta rollout show {rollout.id}")
        if not _is_there(controller, release):
            return _under_way(
                f"version {release.version} of {model} is under way to the devices",
                repository.absent(model, release.version, controller.fleet.devices.all()),
                {"Location": f"/api/v1/rollouts/{rollout.id}"},
            )
    return reply({"name": model, "version": str(release.version), "state": READY})


@router.post("/models/{model}/unload", dependencies=needs("release", "operate"))
async def unload(request: Request, model: str) -> Response:
    """Take the model off every device. One that is offline follows when it returns, and gets no requests before."""
    await _wanted(request)
    controller = controller_of(request)
    await controller.store.read(reads.latest_version(model))
    devices = controller.fleet.devices
    if any(m.model == model for known in devices.all() for m in known.record.desired):
        release = await _newest_release(controller, model)
        await controller.fleet.do(lambda tick: controller.fleet.releases.withdraw(tick, release))
    await _until(lambda: not repository.left(model, devices.all())[0], controller.settings.limits.repository_wait_s)
    still, offline = repository.left(model, devices.all())
    if still:
        return _under_way(f"{model} is on its way off the devices", still, {})
    return reply({"name": model, "state": UNAVAILABLE, "follow_on_return": offline})


def _under_way(what: str, who: list[str], headers: dict[str, str]) -> Response:
    """Not 200, and with `error`, because Triton's clients take anything else for done."""
    missing = "; ".join(who) or "no device is there for it"
    return reply(error_body(f"{what}: {missing}", "device", "ask /v2/repository/index"), 202, headers)


async def _wanted(request: Request) -> oip_models.Wanted:
    try:
        return oip_models.wanted(await request.body())
    except ValueError as error:
        raise BadRequest(str(error)) from error


async def _newest_release(controller: Controller, model: str) -> records.Release:
    await controller.store.read(reads.latest_version(model))
    released = await controller.store.read(reads.every(records.Release, model=model))
    if not released:
        raise UserError(f"no version of {model} was released", f"lepta rollout start {model}")
    return max(released, key=lambda release: (release.version, release.created_at))


def _is_there(controller: Controller, release: records.Release) -> bool:
    """Does it answer requests, and does no device lack it that is here and is to run it?"""
    devices = controller.fleet.devices.all()
    here = [known for known in devices if known.online]
    return release.version in repository.serving(release.model, devices) and not repository.absent(
        release.model, release.version, here
    )


async def _roll_out(controller: Controller, release: records.Release) -> records.Rollout:
    """Begin a rollout of it, or join the one that runs."""
    running = await controller.store.read(reads.every(records.Rollout, model=release.model, state="running"))
    same = next((rollout for rollout in running if rollout.version == release.version), None)
    if same is not None:
        return same
    built = await controller.store.read(reads.every(records.Artifact, model=release.model, version=release.version))
    offered = [artifact for artifact in built if release.artifacts.get(artifact.profile) == artifact.digest]
    return await controller.fleet.do(lambda tick: controller.fleet.releases.start(tick, release, offered))


async def _settled(controller: Controller, rollout_id: str) -> records.Rollout:
    """The rollout once it ended, or as it is when the time is over."""
    until = time.monotonic() + controller.settings.limits.repository_wait_s
    while True:
        rollout = await controller.store.read(reads.get(records.Rollout, rollout_id))
        if rollout.state != "running" or time.monotonic() >= until:
            return rollout
        await asyncio.sleep(_LOOK_S)


async def _until(met: Callable[[], bool], wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while True:
        if met() or time.monotonic() >= until:
            return
        await asyncio.sleep(_LOOK_S)


async def _reasons(controller: Controller, rollout: records.Rollout) -> str:
    shares = await controller.store.read(reads.every(records.RolloutDevice, rollout=rollout.id))
    told = "; ".join(f"{share.device}: {share.state}{f', {share.reason}' if share.reason else ''}" for share in shares)
    return f"version {rollout.version} of {rollout.model} could not be brought to the devices: {rollout.state}; {told}"


async def _standings(controller: Controller, model: str) -> list[Standing]:
    versions = await controller.store.read(reads.every(records.Version, model=model))
    artifacts = await controller.store.read(reads.every(records.Artifact, model=model))
    built = [Built(v.version, _lacks([a for a in artifacts if a.version == v.version])) for v in versions]
    return repository.standings(model, built, controller.fleet.devices.all())


def _lacks(artifacts: list[records.Artifact]) -> str:
    if not artifacts:
        return "no artifact was built for it"
    return "" if all(a.signed for a in artifacts) else "it waits for the release key's signature"
