"""`lepta demo`: the main job, end to end, with real programs on this machine. Every figure is measured in the run."""

from __future__ import annotations

import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

from agent.contract.golden import Array
from controller.client.answers import describe
from controller.client.follow import WorkFailed, follow_deploy, follow_example, follow_rollout, follow_run
from controller.client.preprocess import read_inputs
from controller.commands.common import write_json
from controller.commands.screen import Progress, Screen
from controller.demo import text
from controller.demo.fleet import AGENTS, Fleet, opened
from controller.demo.job import JobSettings, run_job
from controller.demo.processes import cores
from controller.demo.report import (
    JobFigures,
    RefusalFigures,
    Report,
    SwapFigures,
    artifact_figures,
    promises,
    refusal_figures,
    swap_figures,
)
from controller.demo.stream import Stream, StreamSettings
from controller.errors import Internal, LeptaError
from controller.replies import Example, Run, TimedSwap

MODEL = "digits"
RECIPE = Path(__file__).with_name("recipe.toml")
QUICK_RECIPE = 'description = "Only int8."\n[quantize]\nqat = "never"\nmixed = "never"\n'


@dataclass(frozen=True)
class DemoSettings:
    """Times in seconds."""

    epochs_1: int = 4
    epochs_2: int = 10
    epochs_3: int = 4
    quiet_s: float = 3.0
    """How long the stream runs undisturbed before and after the swap, for the control windows."""
    poll_s: float = 0.02
    step_s: float = 180.0
    """The longest that any one step may take."""
    asked: int = 30
    """Requests after the refused version."""
    trace_s: float = 5.0
    """A request's way is written in batches; this long it is waited for."""
    stream: StreamSettings = field(default_factory=StreamSettings)
    job: JobSettings = field(default_factory=JobSettings)


@dataclass(frozen=True)
class Made:
    """An example's files on this disk."""

    model: Path
    data: Path
    batch: Path
    seven: Path
    example: Example


def run(
    screen: Screen, *, keep: bool, report: Path | None, data: Path | None, settings: DemoSettings = DemoSettings()
) -> int:
    """Run the demo; returns 0 if every promise was kept, else 1. Whatever happens, no child is left."""
    began = time.monotonic()
    with _stopped_calmly(), _logs_named(data), opened(data) as fleet:
        text.greet(screen, fleet.client.place.url, time.monotonic() - began)
        done = _Demo(screen, fleet, settings).run(began)
        kept = promises(done)
        if report is not None:
            write_json(report, msgspec.to_builtins(done))
        text.show_promises(screen, kept, done.wall_s, report)
        if keep:
            _keep(screen, fleet)
    return 0 if all(promise.kept for promise in kept) else 1


class _Shrinking:
    """The optimizer's steps as one: a newcomer wants the flow, not its parts."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def update(self, step: str, fraction: float | None = None, detail: str = "") -> None:
        if step in ("release", "roll out"):
            self._progress.update("roll out", fraction, detail)
        else:
            self._progress.update("prune, shrink to int8, check, sign", fraction, step)


class _Demo:
    """The steps, in their order."""

    def __init__(self, screen: Screen, fleet: Fleet, settings: DemoSettings) -> None:
        self._screen = screen
        self._fleet = fleet
        self._client = fleet.client
        self._settings = settings

    def run(self, began: float) -> Report:
        with self._screen.progress() as progress:
            progress.update("start three agents")
            self._fleet.add_agents()
            devices = self._fleet.wait_for_agents()
        text.show_devices(self._screen, devices)
        first, made = self._first_version()
        second, swap = self._second_version(made)
        refused = self._third_version(made)
        job = self._job(made)
        self._one_answer(made)
        return Report(
            lepta=version("lepta"),
            host=host(),
            artifacts=(*artifact_figures(first), *artifact_figures(second)),
            swap=swap,
            refused=refused,
            job=job,
            simulated=tuple(device.name for device in devices if device.simulated),
            wall_s=round(time.monotonic() - began, 1),
        )

    def _first_version(self) -> tuple[Run, Made]:
        self._screen.heading("Version 1: train a model, prune it, shrink it for each class of devices, deploy it")
        with self._screen.progress() as progress:
            made = self._make(progress, "v1", self._settings.epochs_1, seed=1)
            run = self._client.deploy(
                made.model,
                made.data,
                name=MODEL,
                labels=made.example.labels,
                preprocessing=made.example.preprocessing,
                recipe=RECIPE.read_text(encoding="utf-8"),
            )
            run, rollout = follow_deploy(self._client, run, _Shrinking(progress), self._settings.step_s)
        text.show_artifacts(self._screen, artifact_figures(run))
        text.show_bought(self._screen, run)
        text.show_rollout(self._screen, rollout)
        return run, made

    def _second_version(self, made: Made) -> tuple[Run, SwapFigures]:
        """Built while a stream of requests runs, then rolled out in a stretch where nothing else happens."""
        self._screen.heading("Version 2: trained longer, swapped in while requests keep coming")
        rows = _rows_of(made.batch)
        name = self._client.metadata(MODEL).inputs[0].name
        with (
            Stream(self._client, MODEL, {name: rows}, self._settings.stream) as stream,
            self._screen.progress() as progress,
        ):
            later = self._make(progress, "v2", self._settings.epochs_2, seed=2)
            run = self._build(later, progress)
            progress.update("quiet stretch before the swap")
            time.sleep(self._settings.quiet_s)
            release = self._client.release(MODEL, run.version)
            started = self._client.start_rollout(release.id)
            follow_rollout(self._client, started, progress, self._settings.poll_s, self._settings.step_s)
            progress.update("quiet stretch after the swap")
            swaps = self._swaps(run.version)
            time.sleep(self._settings.quiet_s)
        text.show_artifacts(self._screen, artifact_figures(run))
        text.show_bought(self._screen, run)
        figures = swap_figures(stream.samples, swaps, self._settings.stream.per_s)
        text.show_swap(self._screen, figures)
        return run, figures

    def _third_version(self, first: Made) -> RefusalFigures:
        """Its own data are labelled as wrongly as it was taught; what refuses it is the acceptance set of version 1."""
        self._screen.heading("Version 3: trained on wrong labels, as happens; the devices are the ones to notice")
        with self._screen.progress() as progress:
            bad = self._make(progress, "v3", self._settings.epochs_3, seed=3, wrong_labels=True)
            run = self._build(bad, progress, QUICK_RECIPE)
            started = self._client.start_rollout(self._client.release(MODEL, run.version).id)
            try:
                follow_rollout(self._client, started, progress, self._settings.poll_s, self._settings.step_s)
            except WorkFailed:
                progress.update("refused")  # Why stands in the devices' records.
            swaps = self._swaps(run.version)
        rows, name = _rows_of(first.batch), self._client.metadata(MODEL).inputs[0].name
        picked = rows[: self._settings.asked]
        answered = [int(self._client.infer(MODEL, {name: row[None]}).version) for row in picked]
        figures = refusal_figures(run, swaps, answered)
        text.show_refusal(self._screen, figures)
        return figures

    def _build(self, made: Made, progress: Progress, recipe: str | None = None) -> Run:
        """Everything of a deploy but the rollout, so that the swap can be seen alone."""
        source, data = self._client.put_file(made.model), self._client.put_file(made.data)
        new = self._client.add_version(
            MODEL,
            source=source.digest,
            source_name=made.model.name,
            data=data.digest,
            labels=made.example.labels,
            preprocessing=made.example.preprocessing,
        )
        recipe = recipe or RECIPE.read_text(encoding="utf-8")
        run = self._client.start_run(MODEL, new.version, recipe=recipe)
        return follow_run(self._client, run, _Shrinking(progress), self._settings.step_s)

    def _swaps(self, to_version: int) -> list[tuple[str, TimedSwap]]:
        """Every device's record of the swap; a device tells it when its old worker is gone."""
        deadline = time.monotonic() + self._settings.quiet_s + 10
        while True:
            records = [(plan.name, self._swap_of(plan.name, to_version)) for plan in AGENTS]
            found = [(name, record) for name, record in records if record is not None]
            if len(found) == len(AGENTS):
                return found
            if time.monotonic() > deadline:
                missing = ", ".join(name for name, record in records if record is None)
                raise Internal(f"{missing} told nothing about the swap to version {to_version}")
            time.sleep(self._settings.poll_s)

    def _swap_of(self, device: str, to_version: int) -> TimedSwap | None:
        swaps = self._client.device(device).swaps
        return next((s for s in swaps if s.model == MODEL and s.to_version == to_version), None)

    def _job(self, made: Made) -> JobFigures:
        victim = AGENTS[1].name
        self._screen.heading(f"Batch job: every image of the data set; {victim} is killed on the way")
        with self._screen.progress() as progress:
            progress.update("job, and bare processes for comparison")
            figures = run_job(self._fleet, MODEL, made.batch, victim, self._settings.job)
        text.show_job(self._screen, figures)
        return figures

    def _one_answer(self, made: Made) -> None:
        self._screen.heading("One answer, and the way it took")
        metadata, serving = self._client.metadata(MODEL), self._client.version(MODEL, "serving")
        answer = self._client.infer(MODEL, read_inputs(made.seven, metadata.inputs, serving.preprocessing))
        words = describe(answer, serving.labels if serving.version == answer.version else ())[0]
        text.show_answer(self._screen, made.seven.name, words, answer)
        deadline = time.monotonic() + self._settings.trace_s
        request = self._client.request(answer.id)
        while not any(step.step == "store" for step in request.steps) and time.monotonic() < deadline:
            time.sleep(self._settings.poll_s)
            request = self._client.request(answer.id)
        text.show_trace(self._screen, request)

    def _make(self, progress: Progress, folder: str, epochs: int, seed: int, *, wrong_labels: bool = False) -> Made:
        """Train an example in the optimizer's process and bring its files here."""
        started = self._client.start_example("digits", epochs=epochs, seed=seed, wrong_labels=wrong_labels)
        name = f"train on handwritten digits, {epochs} epochs"
        example = follow_example(self._client, started, progress, name, self._settings.step_s)
        place = self._fleet.folder / folder
        place.mkdir()
        made = Made(place / "digits.keras", place / "digits.npz", place / "batch.npz", place / "seven.png", example)
        for role, file in (("model", made.model), ("data", made.data), ("batch", made.batch), ("seven", made.seven)):
            self._client.get_file(example.files[role], file)
        return made


def host() -> dict[str, Any]:
    """Where figures were measured."""
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": cores(),
        "memory_mb": psutil.virtual_memory().total // 2**20,
    }


def _rows_of(batch: Path) -> Array:
    """The images of a batch, whatever their array is called."""
    with np.load(batch, allow_pickle=False) as archive:
        names = [name for name in archive.files if name not in ("labels", "id")]
        rows: Array = archive[names[0]]
    return rows.astype(np.float32)


def _keep(screen: Screen, fleet: Fleet) -> None:
    """Bring back the killed agent and wait for Ctrl-C."""
    for name, program in list(fleet.agents.items()):
        if not program.alive:
            fleet.restart(name)
    fleet.wait_for_agents()
    text.show_kept(screen, fleet)
    try:
        while True:
            time.sleep(1.0)
            fleet.controller.check()
    except KeyboardInterrupt:
        screen.line()
        screen.line("stopping")


@contextmanager
def _logs_named(data: Path | None) -> Iterator[None]:
    """Say of an error where the logs are: a temporary folder is gone by then."""
    try:
        yield
    except LeptaError as error:
        error.hint = error.hint or (f"the logs are in {data}" if data else "run it with --data FOLDER to keep its logs")
        raise


@contextmanager
def _stopped_calmly() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does; the cleaning up cannot be cut short by another one."""

    def stop(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
