"""The start of a run: the source is opened, its data brought into canonical form, and the float model measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from optimizer.errors import RefusedError
from optimizer.kinds import OPEN, OPENED
from optimizer.runner import Runner
from optimizer.runs import RunSpec
from optimizer.start import Source
from optimizer.work_files import DATA


class Start(NamedTuple):
    """What every candidate begins with; `dataset` is the manifest of the data."""

    source: Source
    dataset: Mapping[str, Any]
    labels: tuple[str, ...]
    notes: tuple[str, ...]


def start(run: RunSpec, kind: str, runner: Runner) -> Start:
    """Raises OptimizerError for a source or data that cannot be used."""
    opened = runner.do(OPEN[kind], {"source": Path(run.source)}, {"trust": run.trust})
    way = OPENED[opened.manifest["kind"]]
    source = opened.folder / way.file
    data = runner.do("dataset", {"data": Path(run.data)}, _data_settings(run, opened.manifest))
    labels = run.labels or tuple(data.manifest.get("labels", ()))
    inputs = {"source": source, "data": data.folder / DATA}
    if run.previous_acceptance is not None:
        inputs["acceptance"] = Path(run.previous_acceptance)
    settings = {"labels": list(labels), "seed": run.seed, "splits": list(_scored(data.manifest))}
    inspected = runner.do(way.inspect, inputs, settings)
    facts = inspected.manifest
    found = Source(
        kind=way,
        path=source,
        data=data.folder / DATA,
        inspected=inspected.folder,
        facts=facts,
        trainable=way.trainable and data.manifest["trainable"],
        tested=facts["judged"] and "test" in data.manifest["splits"],
    )
    return Start(found, data.manifest, labels, _notes(found, data.manifest))


def _data_settings(run: RunSpec, opened: Mapping[str, Any]) -> dict[str, Any]:
    preprocessing = None if run.preprocessing is None else msgspec.to_builtins(run.preprocessing)
    return {
        "inputs": opened["inputs"],
        "classes": opened["classes"],
        "seed": run.seed,
        "preprocessing": preprocessing,
    }


def _scored(dataset: Mapping[str, Any]) -> list[str]:
    """The splits that the float model is asked about."""
    found = [split for split in ("validation", "test") if split in dataset["splits"]]
    if "validation" not in found:
        raise RefusedError("the data leaves no rows to judge by; give more rows")
    return found


def _notes(source: Source, dataset: Mapping[str, Any]) -> tuple[str, ...]:
    notes = list(dataset["notes"])
    if not source.facts["judged"]:
        notes.append("no classes and labels to judge by: parity alone decided")
    elif not source.tested:
        notes.append("no rows of test: the released point is judged on validation, by which it was chosen")
    return tuple(notes)
