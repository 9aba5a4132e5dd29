"""From files to splits: the forms that data may have.

Arrays: `.npy` files in an `.npz`, a zip or a folder, called SPLIT/NAME, SPLIT_NAME, NAME_SPLIT, or plain NAME where
nobody has split them; NAME is an input's, and `labels` or `y` are labels. A single `.npy` is samples without labels.
Pictures: CLASS/picture.png, SPLIT/CLASS/picture.png; without classes SPLIT/picture.png, or pictures alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from agent.contract.manifest import Preprocessing
from optimizer.data import LABELS, SPLITS, DataError
from optimizer.dataset.columns import Column, NpyColumn, Part
from optimizer.dataset.cut import WHOLE
from optimizer.dataset.pictures import SUFFIXES, Classes, PictureColumn, preprocessing_for
from optimizer.dataset.tree import Entry
from optimizer.settings import LIMITS
from optimizer.sources import InputSpec

_ALIASES = {**{split: split for split in SPLITS}, "val": "validation", "valid": "validation"}


class Found(NamedTuple):
    """Splits by name (one called WHOLE where nobody has split), names of classes, how pictures were read."""

    parts: dict[str, Part]
    classes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None


def read(
    name: str, entries: Sequence[Entry], inputs: Sequence[InputSpec], how: Preprocessing | None, classes: int | None
) -> Found:
    """`name`: of the data, for errors; `inputs`: of the model; `classes`: that it tells apart, None: not known.

    Raises DataError for files that make none of the forms.
    """
    arrays = [entry for entry in entries if entry.name.lower().endswith(".npy")]
    pictures = [entry for entry in entries if entry.name.lower().endswith(SUFFIXES)]
    if arrays and pictures:
        raise DataError(
            f"{name} holds arrays ({arrays[0].name}) and pictures ({pictures[0].name}); give one of the two"
        )
    if arrays:
        return _arrays(name, arrays, inputs)
    if pictures:
        return _pictures(name, pictures, inputs, how, classes)
    held = ", ".join(entry.name for entry in entries[:3]) or "nothing"
    raise DataError(f"{name} holds {held}; wanted are .npy arrays, or pictures ({', '.join(SUFFIXES)})")


def _arrays(name: str, entries: Sequence[Entry], inputs: Sequence[InputSpec]) -> Found:
    if len(entries) > LIMITS.archive_files:
        raise DataError(f"{name} holds {len(entries)} arrays; at most {LIMITS.archive_files} are taken")
    specs = {spec.name for spec in inputs}
    paths = _below_common(entries, keep=set(_ALIASES))
    splits: dict[str, dict[str, Entry]] = {}
    for entry, parts in zip(entries, paths, strict=True):
        split, array = _split_of(name, "/".join(parts)[: -len(".npy")], specs)
        splits.setdefault(split, {})[array] = entry
    if WHOLE in splits and len(splits) > 1:
        stray = next(iter(splits[WHOLE]))
        raise DataError(f"{name}: array {stray!r}: names are SPLIT/NAME with SPLIT one of {', '.join(SPLITS)}")
    return Found({split: _part(name, split, found, inputs) for split, found in splits.items()})


def _split_of(name: str, key: str, specs: set[str]) -> tuple[str, str]:
    """Split and plain name of an array."""
    if key in specs:
        return WHOLE, key
    first, slash, rest = key.partition("/")
    if slash:
        if first not in _ALIASES or not rest:
            raise DataError(f"{name}: array {key!r}: names are SPLIT/NAME with SPLIT one of {', '.join(SPLITS)}")
        return _ALIASES[first], rest
    head, _, tail = key.partition("_")
    if tail and head in _ALIASES:
        return _ALIASES[head], tail
    head, _, tail = key.rpartition("_")
    if head and tail in _ALIASES:
        return _ALIASES[tail], head
    return WHOLE, key


def _part(name: str, split: str, found: Mapping[str, Entry], inputs: Sequence[InputSpec]) -> Part:
    labels = next((found[known] for known in LABELS if known in found), None)
    others = {array: entry for array, entry in found.items() if array not in LABELS}
    if not inputs:
        chosen = others
    elif all(spec.name in others for spec in inputs):
        chosen = {spec.name: others[spec.name] for spec in inputs}
    elif len(inputs) == 1 and len(others) == 1:
        chosen = {inputs[0].name: next(iter(others.values()))}
    else:
        missing = next(spec.name for spec in inputs if spec.name not in others)
        where = f"{split}/" if split else ""
        there = ", ".join(sorted(others)) or "none"
        raise DataError(f"{name} has no array {where}{missing}; {split or 'it'} has {there}")
    columns = {array: NpyColumn(entry) for array, entry in chosen.items()}
    return Part(dict(columns), None if labels is None else NpyColumn(labels))


def _pictures(
    name: str, entries: Sequence[Entry], inputs: Sequence[InputSpec], how: Preprocessing | None, classes: int | None
) -> Found:
    if len(inputs) != 1:
        raise DataError(f"{name} holds pictures, and the model has {len(inputs)} inputs; give arrays by their names")
    how = how or preprocessing_for(inputs[0])
    splits: dict[str, list[tuple[Entry, str]]] = {}
    for entry, parts in zip(entries, _below_common(entries, keep=set(_ALIASES)), strict=True):
        split = _ALIASES.get(parts[0], WHOLE) if len(parts) > 1 else WHOLE
        folders = parts[:-1] if split == WHOLE else parts[1:-1]
        if len(folders) > 1:
            raise DataError(f"{name}: {entry.name} lies too deep; give CLASS/picture.png or SPLIT/CLASS/picture.png")
        splits.setdefault(split, []).append((entry, folders[0] if folders else ""))
    if WHOLE in splits and len(splits) > 1:
        stray = splits[WHOLE][0][0].name
        raise DataError(f"{name}: {stray} lies beside the splits; give SPLIT/CLASS/picture.png for all")
    names = _class_names(name, splits, classes)
    parts_found = {}
    for split, rows in splits.items():
        column = PictureColumn(split or name, [entry for entry, _ in rows], inputs[0], how)
        known: Column | None = None
        if rows[0][1]:
            known = Classes(f"{split or name} classes", [names.index(kind) for _, kind in rows])
        parts_found[split] = Part({inputs[0].name: column}, known)
    return Found(parts_found, names, how)


def _class_names(name: str, splits: Mapping[str, list[tuple[Entry, str]]], classes: int | None) -> tuple[str, ...]:
    """Names of the class folders in sorted order; the model's classes are in the same."""
    for rows in splits.values():
        if any(kind for _, kind in rows) and (stray := next((entry for entry, kind in rows if not kind), None)):
            raise DataError(f"{name}: {stray.name} lies beside folders of classes; put it into one of them")
    names = tuple(sorted({kind for rows in splits.values() for _, kind in rows if kind}))
    if names and classes and len(names) != classes:
        raise DataError(
            f"{name} has {len(names)} folders of classes ({', '.join(names[:5])}), the model {classes} classes"
        )
    return names


def _below_common(entries: Sequence[Entry], keep: set[str]) -> list[tuple[str, ...]]:
    """The parts of every name, without the folder that a zip has around everything."""
    paths = [PurePosixPath(entry.name).parts for entry in entries]
    while all(len(parts) > 1 and parts[0] == paths[0][0] for parts in paths) and paths[0][0] not in keep:
        paths = [parts[1:] for parts in paths]
    return paths
