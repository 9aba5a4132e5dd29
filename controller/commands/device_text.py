"""Devices as text for people. Pure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from controller.commands.layout import ms, share, size

if TYPE_CHECKING:
    from agent.contract.messages import ModelState, Window
    from controller.replies import Device, ProfileMatch, TimedSwap

HEADER = ("device", "state", "profile", "load", "models", "labels")
SWAPS = ("model", "versions", "outcome", "moved", "took", "gap", "p99 before", "p99 during", "failed", "")


def state_of(device: Device) -> str:
    """`online` or `offline`, or that it waits or was shut out; cordoned, simulated."""
    state = ("online" if device.online else "offline") if device.state == "approved" else device.state
    return state + (", cordoned" if device.cordoned else "") + (", simulated" if device.simulated else "")


def row(device: Device) -> tuple[str, ...]:
    models = ", ".join(f"{m.model} {m.version}{'' if m.state == 'serving' else f' ({m.state})'}" for m in device.models)
    profile = device.profile or "no profile fits"
    return (device.name, state_of(device), profile, load(device.load), models or "-", labels(device))


def labels(device: Device) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(device.labels.items())) or "-"


def load(load: dict[str, Any] | None) -> str:
    if not load:
        return "-"
    return f"cpu {float(load.get('cpu', 0)) * 100:.0f} %, memory {float(load.get('memory', 0)) * 100:.0f} %"


def why(match: ProfileMatch) -> str:
    """What decided: the conditions that do not hold, or all of them where all do."""
    failed = [reason for reason in match.reasons if reason.startswith("no:")]
    return "; ".join(reason.partition(": ")[2] for reason in failed or match.reasons)


def identity(device: Device) -> list[tuple[str, str]]:
    return [
        ("state", device.state),
        ("labels", labels(device)),
        ("joined", day(device.enrolled_at)),
        ("key", device.key or "-"),
        ("hardware", device.hardware or "-"),
        ("certificate", f"until {day(device.certificate_expires)}" if device.certificate_expires else "-"),
    ]


def facts(device: Device) -> list[tuple[str, str]]:
    facts = device.facts
    if facts is None:
        return []
    overridden = f"; set by hand: {', '.join(facts.overridden)}" if facts.overridden else ""
    return [
        ("machine", f"{facts.machine}, {facts.system}, {facts.cpus} processors, {facts.memory_mb} MB"),
        ("board", facts.board or "-"),
        ("accelerators", (", ".join(facts.accelerators) or "-") + overridden),
        ("runtimes", ", ".join(facts.runtimes) or "-"),
        ("load", load(device.load)),
        ("refused", refusals(device.load)),
    ]


def reason(model: ModelState) -> str:
    """The cause of a refusal in its one word, then the whole of it."""
    return f"{model.cause}: {model.reason}" if model.cause else model.reason


def refusals(load: dict[str, Any] | None) -> str:
    """Versions refused since the agent started, by cause."""
    counts = (load or {}).get("refusals") or {}
    return ", ".join(f"{cause} {count}" for cause, count in sorted(counts.items())) or "-"


def swap(swap: TimedSwap) -> tuple[str, ...]:
    return (
        swap.model,
        f"{swap.from_version or '-'} -> {swap.to_version}",
        swap.outcome,
        size(swap.fetched_bytes),
        f"{swap.total_s:.2f} s",
        ms(swap.gap_ms),
        ms(swap.control.p99_ms),
        ms(swap.during.p99_ms),
        str(swap.during.failed),
        swap.reason,
    )


def swap_details(swap: TimedSwap) -> list[tuple[str, str]]:
    """What one swap cost and found, line by line; what was not measured is left out."""
    rows = [
        ("fetched", f"{size(swap.fetched_bytes)} in {swap.fetch_s:.2f} s, by {swap.way}"),
        ("probe", _probe(swap)),
        ("shadow", _shadow(swap)),
        ("before", _window(swap.control)),
        ("during", _window(swap.during)),
        ("watch", _watch(swap)),
        ("memory", _memory(swap)),
        ("cause", f"{swap.reason} (at fault: {swap.who or 'unknown'})" if swap.reason else ""),
    ]
    return [row for row in rows if row[1]]


def _probe(swap: TimedSwap) -> str:
    probe = swap.probe
    if probe is None:
        return ""
    before = f" (serving version {share(probe.serving_accuracy)})" if probe.serving_accuracy is not None else ""
    return (
        f"accuracy {share(probe.accuracy)}{before}, {share(probe.agreement)} as the float model, "
        f"{ms(probe.latency_ms)} a row, {probe.memory_mb:.1f} MB, loaded in {ms(probe.load_ms)}"
    )


def _shadow(swap: TimedSwap) -> str:
    found = swap.shadow
    return f"{found.agreed} of {found.compared} live answers agreed, in {found.seconds:.1f} s" if found else ""


def _window(window: Window) -> str:
    if not window.requests:
        return ""
    return f"{window.requests} requests, {window.failed} failed, p50 {ms(window.p50_ms)}, p99 {ms(window.p99_ms)}"


def _watch(swap: TimedSwap) -> str:
    watch = swap.watch
    if watch is None:
        return ""
    moved = f", {share(watch.drift)} moved to other classes" if watch.drift is not None else ""
    slow = f", p95 {ms(watch.p95_ms)} a row (before {ms(watch.p95_before_ms)})" if watch.p95_ms is not None else ""
    counted = f"{watch.answers} answers in {watch.seconds:.1f} s, {watch.faults} faults, {watch.crashes} crashes"
    return counted + slow + moved


def _memory(swap: TimedSwap) -> str:
    peak = f"{swap.memory_peak_mb:.1f} MB by all workers of the model at their probes" if swap.memory_peak_mb else ""
    alone = "too little for two: the old worker left first" if swap.alone else ""
    return "; ".join(filter(None, (peak, alone)))


def day(at: float) -> str:
    """Seconds since 1970 as a date, by this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
