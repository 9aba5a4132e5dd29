"""The demo's words: what a newcomer reads, section by section."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from controller.client.oip import Answer
from controller.commands.deploy import use_lines
from controller.commands.layout import count, ms, share, size
from controller.commands.made import bought_line
from controller.commands.screen import Screen
from controller.demo.fleet import Fleet
from controller.demo.report import ArtifactFigures, JobFigures, Promise, RefusalFigures, SwapFigures
from controller.replies import Device, Request, Rollout, Run


def greet(screen: Screen, url: str, seconds: float) -> None:
    screen.line("Lepta demo: the whole flow on this machine, with real programs and real data")
    screen.heading("A controller and its fleet")
    screen.line(f"  {f'controller with its own broker, {url}':<44} {seconds:6.1f} s")


def show_devices(screen: Screen, devices: Sequence[Device]) -> None:
    rows = [(d.name, d.profile or "no profile fits", _claims(d)) for d in devices]
    screen.table(("device", "profile", ""), rows)


def show_artifacts(screen: Screen, artifacts: Sequence[ArtifactFigures]) -> None:
    header = ("profile", "parameters", "MACs before", "after", "float32", "int8", "accuracy float32", "int8")
    screen.table(header, [_artifact_row(a) for a in artifacts], right=range(1, len(header)))


def show_bought(screen: Screen, run: Run) -> None:
    """One line: what pruning and quantization bought, for the first class of devices."""
    line = bought_line(run.artifacts[0]) if run.artifacts else ""
    if line:
        screen.line(f"  {line}")


def show_rollout(screen: Screen, rollout: Rollout) -> None:
    serving = [d.device for d in rollout.devices if d.state == "serving"]
    screen.line(f"  version {rollout.version} serves on {', '.join(serving)}")


def show_swap(screen: Screen, swap: SwapFigures) -> None:
    screen.table(
        (),
        [
            ("requests", f"{swap.requests:,} at {swap.per_s:g} a second, {swap.failed} failed"),
            ("quiet", f"p50 {ms(swap.p50_control_ms)}, p99 {ms(swap.p99_control_ms)}  ({_windows(swap)})"),
            (
                "during the swap",
                f"p50 {ms(swap.p50_during_ms)}, p99 {ms(swap.p99_during_ms)}  ({swap.requests_during} requests)",
            ),
        ],
    )
    rows = [
        (d.device, d.outcome, size(d.fetched_bytes), f"{d.total_s:.2f} s", ms(d.gap_ms), str(d.during_requests))
        for d in swap.devices
    ]
    header = ("device", "swap", "moved", "took", "without a model", "requests answered meanwhile")
    screen.table(header, rows, right=range(2, 6))
    for error in swap.errors:
        screen.line(f"  failed: {error}")


def show_refusal(screen: Screen, found: RefusalFigures) -> None:
    screen.line(f"  on its own data, labelled as wrongly, it has {share(found.accuracy)}: the optimizer cannot know")
    rows = [(d.device, d.outcome, share(d.agreement), share(d.accuracy), d.reason) for d in found.devices]
    header = ("device", "swap", "as the float model", "acceptance set", "")
    screen.table(header, rows, right=(2, 3))
    answers = ", ".join(f"{count} by version {version}" for version, count in found.answers.items())
    screen.line(f"  requests afterwards: {answers}")


def show_job(screen: Screen, job: JobFigures) -> None:
    shards = ", ".join(f"{name} {number}" for name, number in sorted(job.devices.items()))
    killed = (
        f"{job.killed} {job.killed_at_s:.2f} s after the start" if job.killed_at_s is not None else "nobody: too quick"
    )
    differ = job.rows - job.rows_equal
    equal = "all rows equal to a bare run, bit by bit" if job.exact else f"{differ} of {job.rows} rows differ"
    screen.table(
        (),
        [
            ("rows", f"{job.rows:,} in {job.shards} shards: {shards}"),
            ("killed", killed),
            ("moved", f"{job.moved} shards to the device that was left; {job.duplicates_refused} duplicates refused"),
            ("result", f"{equal}; {job.lost} lost, {job.duplicates} twice; accuracy {share(job.accuracy)}"),
            (
                "time",
                f"{job.makespan_s:.2f} s; bare processes would need {job.ideal_s:.2f} s; {size(job.bytes_moved)} moved",
            ),
        ],
    )
    screen.note("  So small a job is mostly handing out; `python -m tests.benchmarks core` measures a long one.")


def show_answer(screen: Screen, file: str, text: str, answer: Answer) -> None:
    screen.line(
        f"  {file}: {text}   version {answer.version}, on {answer.device}, {answer.runtime}; request {answer.id}"
    )


def show_trace(screen: Screen, request: Request) -> None:
    screen.table(("step", "time", ""), [(s.step, ms(s.ms), s.detail) for s in request.steps], right=(1,))


def show_promises(screen: Screen, promises: Sequence[Promise], seconds: float, report: Path | None) -> None:
    screen.heading("Promises")
    screen.table((), [("kept" if p.kept else "BROKEN", p.text, p.found) for p in promises])
    screen.line()
    where = f"; the figures are in {report}" if report else ""
    screen.line(f"done in {seconds:.0f} s, everything measured in this run{where}")


def show_kept(screen: Screen, fleet: Fleet) -> None:
    screen.heading("Still running, until Ctrl-C")
    screen.line(f"  {fleet.client.place.url}   data in {fleet.folder}")
    screen.line()
    screen.line(f"  export LEPTA_DATA={fleet.folder / 'controller'}")
    screen.line("  lepta device ls")
    screen.line(f"  lepta infer digits {fleet.folder / 'v1' / 'seven.png'}")
    for text in use_lines("digits", fleet.client)[1:]:
        screen.line(f"  {text}")


def _artifact_row(a: ArtifactFigures) -> tuple[str, ...]:
    return (
        a.profile if a.gate_passed else f"{a.profile} (gate failed)",
        count(a.parameters),
        count(a.macs_before),
        count(a.macs_after),
        size(a.bytes_before),
        size(a.bytes),
        share(a.accuracy_float),
        share(a.accuracy_int8),
    )


def _windows(swap: SwapFigures) -> str:
    return f"{swap.requests_control} requests in {swap.control_windows} windows as long as the swaps"


def _claims(device: Device) -> str:
    facts = device.facts
    if not device.simulated or facts is None:
        return ""
    return f"simulated: it claims {', '.join(facts.accelerators) or 'hardware'}, and computes on this processor"
