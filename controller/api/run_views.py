"""How far a run is, live, and what it found."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from controller import reads, records, replies, views
from controller.api import events
from controller.api.access import READ, controller_of
from controller.api.errors import reply
from controller.errors import NotFound

router = APIRouter(tags=["runs"])
_LIVE = ("queued", "running")
# The page carries its own style and pictures; whatever else stands in it, it can load nothing and speak to nobody.
_ALONE = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
)


@router.get("/runs/{run_id}/events", dependencies=READ)
async def follow_run(request: Request, run_id: str) -> Response:
    """Server-sent events, each with the whole state of the run: `progress`, then one `end`, which ends the answer.

    One who was away needs nothing of what came meanwhile: the first event tells where the run is now.
    """
    controller = controller_of(request)

    async def now() -> replies.RunProgress:
        stored = await controller.store.read(reads.get(records.Run, run_id))
        return views.run_progress(controller.fleet.runs.progress(stored))

    watchers, beat_s = controller.fleet.runs.watchers, controller.settings.limits.watch_beat_s
    return await events.stream(watchers, run_id, now, beat_s, f"/api/v1/runs/{run_id}")


@router.get("/runs/{run_id}/report", dependencies=READ)
async def show_report(request: Request, run_id: str) -> Response:
    """The optimizer's report.json."""
    run = await controller_of(request).store.read(reads.get(records.Run, run_id))
    if run.report is None:
        raise _no_report(run)
    return reply(run.report)


@router.get("/runs/{run_id}/report.html", dependencies=READ)
async def show_page(request: Request, run_id: str) -> Response:
    """The report as one page that needs nothing else."""
    controller = controller_of(request)
    run = await controller.store.read(reads.get(records.Run, run_id))
    page = controller.fleet.runs.out(run.id) / "report.html"
    if run.report is None or not page.is_file():
        raise _no_report(run)
    return FileResponse(page, media_type="text/html", headers={"Content-Security-Policy": _ALONE})


def _no_report(run: records.Run) -> NotFound:
    if run.state in _LIVE:
        return NotFound(f"run {run.id} is {run.state}: it has no report yet", f"lepta run show {run.id} --watch")
    return NotFound(f"run {run.id} {run.state} and left no report", f"lepta run show {run.id}")
