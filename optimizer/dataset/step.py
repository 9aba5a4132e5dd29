"""The pass: any form of data becomes data.npz, the one file that all other passes read."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from agent.contract.manifest import Preprocessing
from optimizer.data import SPLITS, DataError
from optimizer.dataset import cut
from optimizer.dataset.columns import Array
from optimizer.dataset.fitting import Fitted, inputs_of, labels_of, signature
from optimizer.dataset.forms import Found, read
from optimizer.dataset.tree import files_of
from optimizer.passes import Inputs, Progress
from optimizer.settings import LIMITS
from optimizer.sources import InputSpec
from optimizer.work_files import DATA

MOST_SHARED = 0.1
"""Share of a split that may be rows of another; more is no accident."""


class _Split(NamedTuple):
    """Checked rows with their keys; `kept`: which of them, ascending."""

    inputs: dict[str, Fitted]
    labels: Array | None
    keys: cut.Keys
    kept: Array

    def of(self, rows: Array) -> _Split:
        return self._replace(kept=self.kept[rows])


def prepare_data(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass. Input `data`: a file or folder in one of the forms of optimizer/dataset/forms.py. Settings `inputs`: of
    the model (empty: as the data has them), `classes` that it tells apart (0: it is no classifier; None: not known),
    `preprocessing` of pictures or None, `seed`.

    Writes data.npz. Missing splits are cut by seed: 70 % train, 5 % calibration, 10 % validation, 15 % test of labelled
    rows, halves of calibration and validation of others. Rows that are in test leave validation, calibration and train;
    those of validation and calibration leave train. The manifest has `splits` {name: rows, digest, labelled, taken_out}
    with SHA-256 over inputs and labels in their order, `labels` (names of class folders), `preprocessing`, `trainable`,
    `notes`. Raises DataError.
    """
    specs = [InputSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in settings.get("inputs", ())]
    given = settings.get("preprocessing")
    how = None if given is None else msgspec.convert(given, Preprocessing)
    name = inputs["data"].name
    progress(0.0, "reading the data")
    with files_of(inputs["data"]) as entries:
        found = read(name, entries, specs, how, settings.get("classes"))
        splits = _checked(name, found, specs, settings.get("classes"), progress)
        splits, notes = _cut(name, splits, settings["seed"])
        splits, taken_out = _disjoint(name, splits)
        progress(0.6, "writing the splits")
        digests = _write(out / DATA, splits)
    if any(taken_out.values()):
        counts = ", ".join(f"{count:,} of {split}" for split, count in taken_out.items() if count)
        notes.append(f"rows that were in a split they must not be in were taken out: {counts}")
    progress(1.0, ", ".join(f"{split} {len(part.kept):,}" for split, part in splits.items()))
    return {
        "splits": {
            split: {
                "rows": len(part.kept),
                "digest": digests[split],
                "labelled": part.labels is not None,
                "taken_out": taken_out[split],
            }
            for split, part in splits.items()
        },
        "labels": list(found.classes),
        "preprocessing": None if found.preprocessing is None else msgspec.to_builtins(found.preprocessing),
        "trainable": _trainable(splits),
        "notes": notes,
    }


def _checked(
    name: str, found: Found, specs: Sequence[InputSpec], classes: int | None, progress: Progress
) -> dict[str, _Split]:
    splits = {}
    for at, (split, part) in enumerate(found.parts.items()):
        progress(0.05 + 0.5 * at / len(found.parts), f"checking {split or 'the rows'}")
        columns = inputs_of(part, specs)
        rows = next(iter(columns.values())).shape[0]
        labels = labels_of(part, rows, classes)
        splits[split] = _Split(columns, labels, np.zeros(0, np.uint64), np.arange(rows))
    size = sum(column.nbytes for part in splits.values() for column in part.inputs.values())
    if size > LIMITS.data_bytes:
        raise DataError(
            f"{name} takes {size // 10**6} MB as the model reads it; at most {LIMITS.data_bytes // 10**6} MB are taken"
        )
    return {split: part._replace(keys=keys_of(part.inputs, len(part.kept))) for split, part in splits.items()}


def keys_of(inputs: Mapping[str, Fitted], rows: int) -> cut.Keys:
    """64 bits of BLAKE2b over each row's inputs: equal for equal rows, and by chance once in 10^19 pairs otherwise."""
    found = np.zeros(rows, np.uint64)
    for column in inputs.values():
        at = 0
        for chunk in column.chunks():
            flat = chunk.reshape(len(chunk), -1)
            before = found[at : at + len(chunk)].tobytes()
            content, size = flat.data.cast("B"), flat.shape[1] * flat.itemsize
            hashed = [
                hashlib.blake2b(
                    content[row * size : (row + 1) * size], digest_size=8, salt=before[8 * row : 8 * row + 8]
                )
                for row in range(len(chunk))
            ]
            found[at : at + len(chunk)] = np.frombuffer(b"".join(part.digest() for part in hashed), np.uint64)
            at += len(chunk)
    return found


def _cut(name: str, splits: dict[str, _Split], seed: int) -> tuple[dict[str, _Split], list[str]]:
    """With the missing splits cut from what is there, and a note that says so; in the order of SPLITS."""
    notes = []
    try:
        planned = cut.plan({split: part.labels is not None for split, part in splits.items()})
        if planned is not None:
            donor = splits.pop(planned.donor)
            parts = cut.cut(donor.keys, planned.shares, seed)
            splits |= {split: donor.of(rows) for split, rows in parts.items()}
            shares = ", ".join(f"{len(rows):,} {split}" for split, rows in parts.items())
            notes.append(f"split by seed {seed} from the {len(donor.kept):,} rows of {planned.donor or name}: {shares}")
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error
    return {split: splits[split] for split in SPLITS if split in splits}, notes


def _disjoint(name: str, splits: dict[str, _Split]) -> tuple[dict[str, _Split], dict[str, int]]:
    masks = cut.disjoint({split: part.keys[part.kept] for split, part in splits.items()})
    taken_out = {split: int((~mask).sum()) for split, mask in masks.items()}
    for split, count in taken_out.items():
        rows = len(masks[split])
        if count > MOST_SHARED * rows:
            others = "calibration, validation or test" if split == "train" else "test"
            raise DataError(
                f"{name}: {count:,} of {rows:,} rows of {split} are in {others} too; what is learned or chosen by "
                "must not judge: give splits that share no rows, or rows that are not split yet"
            )
    return {split: part.of(np.flatnonzero(masks[split])) for split, part in splits.items()}, taken_out


def _write(path: Path, splits: Mapping[str, _Split]) -> dict[str, str]:
    """An uncompressed .npz, equal for equal rows byte by byte; returns the digest of every split."""
    digests = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for split, part in splits.items():
            digest = hashlib.sha256()
            for name, column in part.inputs.items():
                shape = (len(part.kept), *column.shape[1:])
                digest.update(signature(name, column.dtype, shape))
                wanted = np.zeros(column.shape[0], bool)
                wanted[part.kept] = True
                # A plain name gives the entry a fixed date.
                with archive.open(f"{split}/{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array_header_1_0(file, _header(column.dtype, shape))
                    for chunk in column.chunks(None if wanted.all() else wanted):
                        content = np.ascontiguousarray(chunk).data.cast("B")
                        file.write(content)
                        digest.update(content)
            if part.labels is not None:
                labels = np.ascontiguousarray(part.labels[part.kept])
                digest.update(signature("labels", labels.dtype, labels.shape) + labels.tobytes())
                with archive.open(f"{split}/labels.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, labels, version=(1, 0), allow_pickle=False)
            digests[split] = digest.hexdigest()
    return digests


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> dict[str, Any]:
    return {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}


def _trainable(splits: Mapping[str, _Split]) -> bool:
    """Rows of train, or more of calibration than it takes to calibrate."""
    calibration = splits.get("calibration")
    return "train" in splits or (calibration is not None and len(calibration.kept) > LIMITS.calibration_rows)
