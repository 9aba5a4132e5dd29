"""Batch jobs."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from controller import job_data, job_prior, reads, records, replies, views
from controller.api import events
from controller.api.access import INFER, controller_of, needs
from controller.api.errors import reply
from controller.api.models import artifacts_of, find_version
from controller.api.schemas import NewJob
from controller.errors import Conflict, NotFound, UserError
from controller.job_tables import parquet_library

router = APIRouter(tags=["jobs"])


@router.post("/jobs", status_code=202, dependencies=INFER)
async def start_job(request: Request, body: NewJob) -> Response:
    """Run a model over every row of a file that was put before. The input is checked before anything is sent."""
    controller = controller_of(request)
    version = await find_version(controller, body.model, str(body.version or "serving"))
    built = await artifacts_of(controller, version)
    if not built:
        raise UserError(f"{body.model} version {version.version} was not built", "lepta deploy")
    if controller.catalog.locate(body.input) is None:
        raise NotFound(f"the input file {body.input[:12]} was not uploaded", "PUT it to /api/v1/files first")
    if body.format == "parquet":
        await asyncio.to_thread(parquet_library)
    jobs = controller.fleet.jobs
    data = await jobs.inputs.open(controller.catalog.path(body.input), job_data.wanted_of(version, built[0]))
    wanted = records.Job(
        id="",
        model=body.model,
        version=version.version,
        input=body.input,
        reduce=body.reduce,
        profile=body.profile,
        mixed=body.mixed,
        shard_rows=body.shard_rows or 0,
        priority=body.priority,
        canaries=body.canaries,
        settings=body.settings,
        format=body.format,
        created_at=controller.fleet.wall(),
    )
    try:
        prior = await job_prior.read(controller.store, body.model, body.input)
        job = await controller.fleet.do(lambda tick: jobs.start(tick, built, data, wanted, prior))
    except BaseException:
        data.close()
        raise
    return reply(views.job(job), 202, {"Location": f"/api/v1/jobs/{job.id}"})


@router.get("/jobs", dependencies=needs("read", "infer"))
async def list_jobs(request: Request) -> Response:
    controller = controller_of(request)
    jobs = await controller.store.read(reads.every(records.Job, newest=True, limit=200))
    return reply([views.job(controller.fleet.jobs.progress(job)) for job in jobs])


@router.get("/jobs/{job_id}", dependencies=needs("read", "infer"))
async def show_job(request: Request, job_id: str) -> Response:
    controller = controller_of(request)
    job = await controller.store.read(reads.get(records.Job, job_id))
    return reply(views.job(controller.fleet.jobs.progress(job)))


@router.post("/jobs/{job_id}/pause", dependencies=INFER)
async def pause_job(request: Request, job_id: str) -> Response:
    """Hand out nothing more; what is handed out already is computed."""
    jobs = controller_of(request).fleet.jobs
    return reply(views.job(await controller_of(request).fleet.do(lambda tick: jobs.pause(tick, job_id, paused=True))))


@router.post("/jobs/{job_id}/resume", dependencies=INFER)
async def resume_job(request: Request, job_id: str) -> Response:
    jobs = controller_of(request).fleet.jobs
    return reply(views.job(await controller_of(request).fleet.do(lambda tick: jobs.pause(tick, job_id, paused=False))))


@router.get("/jobs/{job_id}/events", dependencies=needs("read", "infer"))
async def follow_job(request: Request, job_id: str) -> Response:
    """Server-sent events, each with the whole state of the job: `progress`, then one `end`, which ends the answer."""
    controller = controller_of(request)

    async def now() -> replies.Job:
        return views.job(controller.fleet.jobs.progress(await controller.store.read(reads.get(records.Job, job_id))))

    watchers, beat_s = controller.fleet.jobs.watchers, controller.settings.limits.watch_beat_s
    return await events.stream(watchers, job_id, now, beat_s, f"/api/v1/jobs/{job_id}")


@router.post("/jobs/{job_id}/cancel", dependencies=INFER)
async def cancel_job(request: Request, job_id: str) -> Response:
    controller = controller_of(request)
    return reply(views.job(await controller.fleet.do(lambda tick: controller.fleet.jobs.cancel(tick, job_id))))


@router.get("/jobs/{job_id}/result", dependencies=needs("read", "infer"))
async def job_result(request: Request, job_id: str) -> Response:
    """The file of a job that is done, `.npz` or `.parquet`; understands Range."""
    controller = controller_of(request)
    job = await controller.store.read(reads.get(records.Job, job_id))
    if job.result is None:
        raise Conflict(f"job {job_id} is {job.state} and has no result", f"lepta job show {job_id}")
    path, headers = controller.catalog.path(job.result), {"ETag": f'"{job.result}"'}
    return FileResponse(path, filename=f"{job_id}.{job.format}", headers=headers)
