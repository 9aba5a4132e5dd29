"""Wait for what the controller does on its own: runs, rollouts, jobs, examples. Asks again until it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from controller.client.rest import Client
from controller.errors import Internal, UserError
from controller.progress import detail_of, step_of
from controller.replies import Example, Job, Rollout, Run, RunProgress

POLL_S = 0.2
# A run that is to be rolled out names its rollout soon after it is done.
ROLLOUT_BEGINS_S = 60.0
# How long a job is watched before it is told how long it will take.
ESTIMATE_AFTER_S = 2.0
SHOWN_DEVICES = 6
_LIVE = ("queued", "running", "paused", "pending")

E = TypeVar("E", Example, Job, Rollout, Run)


class Shown(Protocol):
    """Where progress is shown."""

    def update(self, step: str, fraction: float | None = None, detail: str = "") -> None: ...


# Where the caller sets no other limit: whoever waits at a terminal can stop it.
NO_LIMIT = float("inf")


class WorkFailed(UserError):
    """What was waited for ended badly."""


def follow_run(client: Client, run: Run, shown: Shown, limit_s: float = NO_LIMIT) -> Run:
    """The run, done. Raises WorkFailed if it failed, was cancelled, or took longer than `limit_s`."""

    def show(run: Run) -> None:
        show_run(shown, run)

    return _succeeded(_until(lambda: client.run(run.id), show, limit_s=limit_s))


def watch_run(client: Client, run: str, shown: Shown) -> Run:
    """As `follow_run`, told by the controller instead of asked for."""
    for progress in client.run_events(run):
        show_run(shown, progress)
    # The events end with the run, and with the controller.
    return follow_run(client, client.run(run), shown)


def show_run(shown: Shown, run: Run | RunProgress) -> None:
    """How far it is, and how long it is going to take still."""
    shown.update(step_of(run.step or run.state, run.profile), run.fraction, detail_of(run.detail, run.left_s))


def _succeeded(ended: Run) -> Run:
    if ended.state != "done":
        reasons = [f"{r.profile}: {'; '.join(r.reasons)}" for r in ended.rejected]
        why = ended.error or "; ".join(reasons) or "no reason was given"
        raise WorkFailed(f"run {ended.id} {_ending(ended.state)}: {why}", f"lepta run show {ended.id}")
    return ended


def follow_deploy(client: Client, run: Run, shown: Shown, limit_s: float = NO_LIMIT) -> tuple[Run, Rollout]:
    """A run and the rollout that it starts, both done. Raises WorkFailed; `limit_s` holds for each of the two."""
    ended = follow_run(client, run, shown, limit_s)
    deadline = time.monotonic() + ROLLOUT_BEGINS_S
    while ended.rollout is None:
        if ended.error:
            raise WorkFailed(f"run {ended.id}: {ended.error}", f"then: lepta rollout start {ended.model}")
        if time.monotonic() > deadline:
            raise Internal(f"run {ended.id} is done but began no rollout", f"lepta run show {ended.id}")
        shown.update("release", None)
        time.sleep(POLL_S)
        ended = client.run(ended.id)
    return ended, follow_rollout(client, client.rollout(ended.rollout), shown, limit_s=limit_s)


def follow_rollout(
    client: Client, rollout: Rollout, shown: Shown, poll_s: float = POLL_S, limit_s: float = NO_LIMIT
) -> Rollout:
    """The rollout, done. Raises WorkFailed if it failed, was aborted, or a device did not take the version."""

    def show(rollout: Rollout) -> None:
        over = [d for d in rollout.devices if d.state not in ("pending", "sent")]
        waiting = ", ".join(d.device for d in rollout.devices if d not in over)
        shown.update("roll out", len(over) / max(1, len(rollout.devices)), waiting)

    ended = _until(lambda: client.rollout(rollout.id), show, poll_s, limit_s)
    refused = [f"{d.device}: {d.reason or d.state}" for d in ended.devices if d.state in ("refused", "failed")]
    if ended.state != "done" or refused:
        left_out = [f"{d.device}: {d.reason}" for d in ended.devices if d.reason]
        why = "; ".join(refused or left_out) or "no reason was given"
        raise WorkFailed(f"rollout {ended.id} {_ending(ended.state)}: {why}", f"lepta rollout show {ended.id}")
    return ended


def follow_job(client: Client, job: Job, shown: Shown, poll_s: float = POLL_S) -> Job:
    """The job, done. Raises WorkFailed."""

    began = time.monotonic()

    def show(job: Job) -> None:
        done = job.accepted / max(1, job.shards)
        taken = time.monotonic() - began
        left_s = taken * (1 - done) / done if done > 0 and taken > ESTIMATE_AFTER_S else None
        shares = ", ".join(f"{name} {share.shards}" for name, share in sorted(job.devices.items())[:SHOWN_DEVICES])
        detail = f"{job.accepted} of {job.shards} shards"
        shown.update("job", done, detail_of(f"{detail}: {shares}" if shares else detail, left_s))

    ended = _until(lambda: client.job(job.id), show, poll_s)
    if ended.state != "done":
        raise WorkFailed(
            f"job {ended.id} {_ending(ended.state)}: {ended.error or 'no reason was given'}",
            f"lepta job show {ended.id}",
        )
    return ended


def follow_example(client: Client, example: Example, shown: Shown, name: str, limit_s: float = NO_LIMIT) -> Example:
    """The example, made. Raises WorkFailed, also after `limit_s`."""

    def show(example: Example) -> None:
        shown.update(name, example.fraction or None, example.detail)

    ended = _until(lambda: client.example(example.id), show, limit_s=limit_s)
    if ended.state != "done":
        raise WorkFailed(f"the example {_ending(ended.state)}: {ended.error or 'no reason was given'}")
    return ended


def _until(ask: Callable[[], E], show: Callable[[E], None], poll_s: float = POLL_S, limit_s: float = NO_LIMIT) -> E:
    began = time.monotonic()
    while True:
        current = ask()
        show(current)
        if current.state not in _LIVE:
            return current
        if time.monotonic() - began > limit_s:
            raise WorkFailed(f"{current.id} is still {current.state} after {limit_s:.0f} s", "see the controller's log")
        time.sleep(poll_s)


def _ending(state: str) -> str:
    return {"failed": "failed", "cancelled": "was cancelled", "aborted": "was aborted"}.get(state, f"ended {state}")
