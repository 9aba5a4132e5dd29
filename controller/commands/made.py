"""What the optimizer made, as people read it: a table, and a line that says what it bought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from controller.commands.layout import count, ms, share, size

if TYPE_CHECKING:
    from controller.commands.screen import Screen
    from controller.replies import Artifact

_HEADER = ("profile", "bytes", "parameters", "MACs", "float", "int8", "agreement", "SQNR", "latency here", "made")
_MILLION = 1e6


def artifacts_of(report: Mapping[str, Any]) -> tuple[Artifact, ...]:
    """The entries of a report.json. Raises UserError for one that cannot be understood."""
    import msgspec

    from controller.errors import UserError
    from controller.replies import Artifact

    try:
        return msgspec.convert(report.get("artifacts") or (), tuple[Artifact, ...])
    except msgspec.ValidationError as error:
        raise UserError(f"the report cannot be understood: {error}", "was it made by another version?") from error


def show_artifacts(screen: Screen, artifacts: Sequence[Artifact]) -> None:
    """The table, and below it what was bought, once for all profiles where that is the same."""
    if artifacts:
        screen.table(_HEADER, [_row(artifact) for artifact in artifacts], right=range(1, len(_HEADER) - 1))
    show_bought(screen, artifacts)


def show_bought(screen: Screen, artifacts: Sequence[Artifact]) -> None:
    """A line for each group of profiles that came out alike."""
    bought: dict[str, list[str]] = {}
    for artifact in artifacts:
        if line := bought_line(artifact):
            bought.setdefault(line, []).append(artifact.profile)
    for line, profiles in bought.items():
        screen.line(f"  {line}" if len(bought) == 1 else f"  {', '.join(profiles)}: {line}")


def bought_line(artifact: Artifact) -> str:
    """`pruned to 25 %, int8: 93,322 parameters became 23,310, ...`; empty where an older report does not say."""
    if not artifact.made or not artifact.bytes_before:
        return ""
    parts = [f"{size(artifact.bytes_before)} became {size(artifact.bytes)} ({_times(artifact)})"]
    # A conversion alone folds a few into others.
    if artifact.parameters < 0.95 * artifact.parameters_before:
        parts.insert(0, f"{count(artifact.parameters_before)} parameters became {count(artifact.parameters)}")
    if artifact.macs != artifact.macs_before:
        parts.append(f"{_macs(artifact.macs_before)} MACs became {_macs(artifact.macs)}")
    if artifact.accuracy_float is not None and artifact.accuracy_int8 is not None:
        parts.append(f"accuracy {share(artifact.accuracy_float)} -> {share(artifact.accuracy_int8)}")
    return f"{artifact.made}: {', '.join(parts)}"


def _times(artifact: Artifact) -> str:
    return f"{artifact.bytes_before / max(1, artifact.bytes):.1f}x"


def _macs(value: int) -> str:
    return f"{value / _MILLION:.1f} M" if value >= _MILLION / 10 else count(value)


def _row(artifact: Artifact) -> tuple[str, ...]:
    noise = artifact.sqnr_db
    return (
        artifact.profile,
        size(artifact.bytes),
        count(artifact.parameters),
        count(artifact.macs),
        share(artifact.accuracy_float),
        share(artifact.accuracy_int8),
        share(artifact.agreement),
        "-" if noise is None else f"{noise:.1f} dB",
        ms(artifact.latency_ms),
        artifact.made,
    )
