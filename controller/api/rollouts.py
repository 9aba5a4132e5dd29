"""Releases and rollouts."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from agent.contract.manifest import Shadow, Watch
from controller import reads, records, terms, views, writes
from controller.api.access import READ, RELEASE, controller_of, needs
from controller.api.errors import reply
from controller.api.schemas import NewRelease, NewRollout
from controller.parts import Controller
from controller.terms import Terms
from controller.tick import Tick

router = APIRouter(tags=["rollouts"])


@router.post("/releases", status_code=201, dependencies=RELEASE)
async def make_release(request: Request, body: NewRelease) -> Response:
    """Offer a version that was built. With `terms` its manifests are signed anew, which takes the release key."""
    controller = controller_of(request)
    await controller.store.read(reads.get(records.Version, body.model, body.version))
    built = await _built(controller, body.model, body.version)
    asked = terms.read(body.terms, Terms)
    renewed = await controller.signer.renew(built, asked) if asked.given else []

    def release(tick: Tick) -> records.Release:
        for artifact in built if renewed else ():
            # Devices that were told of the manifest before may still ask for it.
            tick.save(writes.use_files(f"manifest:{artifact.manifest}", [artifact.manifest]))
        tick.save(*(writes.put(artifact) for artifact in renewed))
        return controller.fleet.releases.release(tick, body.model, body.version, renewed or built)

    return reply(views.release(await controller.fleet.do(release)), 201)


@router.get("/releases", dependencies=READ)
async def list_releases(request: Request) -> Response:
    releases = await controller_of(request).store.read(reads.every(records.Release, newest=True, limit=200))
    return reply([views.release(r) for r in releases])


@router.post("/rollouts", status_code=202, dependencies=RELEASE)
async def start_rollout(request: Request, body: NewRollout) -> Response:
    """Bring a release to every enrolled device. `watch` and `shadow` are of this rollout alone, and of devices
    that join while it is the newest."""
    extra = records.Extra(
        watch=terms.read(body.watch, Watch) if body.watch else None,
        shadow=terms.read(body.shadow, Shadow) if body.shadow else None,
    )
    controller = controller_of(request)
    release = await controller.store.read(reads.get(records.Release, body.release))
    built = [
        a
        for a in await _built(controller, release.model, release.version)
        if release.artifacts.get(a.profile) == a.digest
    ]
    rollout = await controller.fleet.do(lambda tick: controller.fleet.releases.start(tick, release, built, extra))
    return reply(await _view(controller, rollout), 202, {"Location": f"/api/v1/rollouts/{rollout.id}"})


@router.get("/rollouts", dependencies=READ)
async def list_rollouts(request: Request) -> Response:
    controller = controller_of(request)
    rollouts = await controller.store.read(reads.every(records.Rollout, newest=True, limit=200))
    return reply([views.rollout(r, []) for r in rollouts])


@router.get("/rollouts/{rollout_id}", dependencies=READ)
async def show_rollout(request: Request, rollout_id: str) -> Response:
    controller = controller_of(request)
    return reply(await _view(controller, await controller.store.read(reads.get(records.Rollout, rollout_id))))


@router.post("/rollouts/{rollout_id}/abort", dependencies=needs("release", "operate"))
async def abort_rollout(request: Request, rollout_id: str) -> Response:
    """Devices go back to what they were to run before."""
    controller = controller_of(request)
    rollout = await controller.fleet.do(lambda tick: controller.fleet.releases.abort(tick, rollout_id))
    return reply(await _view(controller, rollout))


async def _view(controller: Controller, rollout: records.Rollout) -> object:
    shares = await controller.store.read(reads.every(records.RolloutDevice, rollout=rollout.id))
    return views.rollout(rollout, shares)


async def _built(controller: Controller, model: str, version: int) -> list[records.Artifact]:
    return await controller.store.read(reads.every(records.Artifact, model=model, version=version))
