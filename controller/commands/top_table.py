"""What `lepta top` shows: the fleet as rows. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from controller.commands import device_text
from controller.commands.layout import ago, aligned

if TYPE_CHECKING:
    from agent.contract.messages import ModelState
    from controller.replies import Device

Order = Literal["name", "cpu", "memory", "rate", "p95"]
Mood = Literal["well", "busy", "ill", "away"]
"""How a row is to look."""

HEADER = ("device", "state", "profile", "cpu", "mem", "temp", "queue", "model", "rows/s", "p95 ms", "agent")
RIGHT = (3, 4, 5, 6, 8, 9)
_SPARED = (10, 2, 5, 6)
"""What a narrow terminal does without, the first one first."""
_BUSY, _HOT = 0.9, 80.0
_NO_DEVICE = ("",) * 7


class Row(NamedTuple):
    cells: tuple[str, ...]
    mood: Mood


class Rates(NamedTuple):
    """What one device answers now: rows per second and the worst of its models' p95."""

    rate: float
    p95_ms: float | None


def rows(devices: Iterable[Device], order: Order = "name") -> list[list[Row]]:
    """Per device one row for each of its models, sorted; the busiest first unless by name."""
    return [_rows(device) for device in sorted(devices, key=_KEYS[order])]


def fit(groups: Sequence[Sequence[Row]], height: int) -> tuple[list[Row], int]:
    """As many devices as fit into `height` lines, each with all of its rows, and how many are left out."""
    shown: list[Row] = []
    for number, group in enumerate(groups):
        last = number == len(groups) - 1
        if len(shown) + len(group) > height - (0 if last else 1):
            return shown, len(groups) - number
        shown += group
    return shown, 0


def lines(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The header and `rows`, aligned; columns that can be spared go until it fits into `width`."""
    columns = list(range(len(HEADER)))
    for spared in (*_SPARED, None):
        shown = [[row[i] for i in columns] for row in (HEADER, *rows)]
        text = aligned(shown, [columns.index(i) for i in RIGHT if i in columns])
        if spared is None or max(map(len, text)) <= width:
            break
        columns.remove(spared)
    return text


def summary(devices: Sequence[Device]) -> str:
    """One line about the fleet as a whole."""
    if not devices:
        return "no devices; add one with `lepta device add`"
    online = sum(device.online for device in devices)
    waiting = sum(device.state == "pending" for device in devices)
    parts = [f"{len(devices)} device{'s' if len(devices) > 1 else ''}", f"{online} online"]
    if waiting:
        parts.append(f"{waiting} waiting for `lepta device approve`")
    return ", ".join([*parts, f"{_rate(sum(rates(device).rate for device in devices))} rows/s"])


def rates(device: Device) -> Rates:
    if not device.online:
        return Rates(0.0, None)
    told = [load for load in (device.load or {}).get("models", ()) if isinstance(load, dict)]
    slowest = [load["p95_ms"] for load in told if load.get("p95_ms") is not None]
    return Rates(sum(float(load.get("rate", 0.0)) for load in told), max(slowest, default=None))


def _rows(device: Device) -> list[Row]:
    mood, models = _mood(device), _models(device)
    first = (*_device(device), *models[0], device.agent_version or "-")
    return [Row(first, mood), *(Row((*_NO_DEVICE, *model, ""), mood) for model in models[1:])]


def _device(device: Device) -> tuple[str, ...]:
    load = (device.load if device.online else None) or {}
    state = device_text.state_of(device)
    if device.state == "approved" and not device.online:
        state = f"{state}, {ago(device.last_seen_s)}" if device.last_seen_s is not None else state
    return (
        device.name,
        state,
        device.profile or "-",
        _percent(load.get("cpu")),
        _percent(load.get("memory")),
        _degrees(load.get("temperature")),
        str(load["queue"]) if "queue" in load else "-",
    )


def _models(device: Device) -> list[tuple[str, str, str]]:
    """(model with version and state, rate, p95) of each; one line of dashes where there is none."""
    load = (device.load if device.online else None) or {}
    by_artifact = {(each["model"], each["artifact"]): each for each in load.get("models", ()) if isinstance(each, dict)}
    found = []
    for state in sorted(device.models, key=lambda m: (m.model, m.version)):
        told = by_artifact.get((state.model, state.artifact)) if state.state in ("serving", "watching") else None
        rate = _rate(told["rate"]) if told else "-"
        p95 = told.get("p95_ms") if told else None
        found.append((_model(state), rate, "-" if p95 is None else f"{p95:.1f}"))
    return found or [("-", "-", "-")]


def _model(state: ModelState) -> str:
    return f"{state.model} {state.version}" + ("" if state.state == "serving" else f" {state.state}")


def _mood(device: Device) -> Mood:
    load = device.load or {}
    if any(model.state in ("failed", "refused") for model in device.models):
        return "ill"
    if not device.online:
        return "away"
    hot = (load.get("temperature") or 0.0) >= _HOT
    return "busy" if hot or max(load.get("cpu") or 0.0, load.get("memory") or 0.0) >= _BUSY else "well"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.0f} %"


def _degrees(celsius: float | None) -> str:
    return "-" if celsius is None else f"{celsius:.0f} °C"


def _rate(per_s: float) -> str:
    return f"{per_s:.1f}" if 0 < per_s < 10 else f"{per_s:,.0f}"


def _first_the_greatest(value: Callable[[Device], float | None]) -> Callable[[Device], tuple[float, str]]:
    return lambda device: (-(value(device) or 0.0), device.name)


def _load(name: str) -> Callable[[Device], float | None]:
    return lambda device: (device.load or {}).get(name) if device.online else None


_KEYS: dict[Order, Callable[[Device], tuple[float, str]]] = {
    "name": lambda device: (0.0, device.name),
    "cpu": _first_the_greatest(_load("cpu")),
    "memory": _first_the_greatest(_load("memory")),
    "rate": _first_the_greatest(lambda device: rates(device).rate),
    "p95": _first_the_greatest(lambda device: rates(device).p95_ms),
}
