"""The two golden sets that travel with an artifact, and how an artifact is measured on them.

*Parity set*: inputs with the float model's outputs; was the conversion faithful?
*Acceptance set*: labelled inputs, the same for every version of a model; is this version any good?

Both are `.npz` files without pickles: arrays `input:NAME` and, by kind, `output:NAME` or `labels`. Axis 0 is rows.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
MAX_ROWS = 512


class GoldenError(ValueError):
    """A golden set that cannot be read or does not fit its model."""


class ParitySet(NamedTuple):
    inputs: dict[str, Array]
    outputs: dict[str, Array]


class AcceptanceSet(NamedTuple):
    inputs: dict[str, Array]
    labels: Array
    """Class indices, shape (rows,), integers >= 0."""


class Faithfulness(NamedTuple):
    """How far an artifact's outputs are from the float model's."""

    agreement: float
    """Share of rows with the same top-1 class, 0 to 1; 1.0 where no output has classes."""
    sqnr_db: float
    """Signal-to-quantization-noise ratio in dB over all outputs: 10 log10(sum y^2 / sum (y - y')^2)."""
    cosine: float = 1.0
    """Cosine of the angle between all outputs of the one and of the other, -1 to 1; 0 where one is all zeros."""
    max_error: float = 0.0
    """Largest |y - y'| of any value of any output, in the output's own unit."""


def write_parity(golden: ParitySet) -> bytes:
    return _write({**_prefixed("input", golden.inputs), **_prefixed("output", golden.outputs)})


def read_parity(content: bytes) -> ParitySet:
    arrays = _read(content)
    return ParitySet(_taken("input", arrays), _taken("output", arrays))


def write_acceptance(golden: AcceptanceSet) -> bytes:
    return _write({**_prefixed("input", golden.inputs), "labels": golden.labels})


def read_acceptance(content: bytes) -> AcceptanceSet:
    arrays = _read(content)
    if "labels" not in arrays:
        raise GoldenError("an acceptance set needs an array 'labels'")
    return AcceptanceSet(_taken("input", arrays), arrays["labels"])


def faithfulness(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> Faithfulness:
    """Compare outputs by name; shapes (rows, ...) must be equal."""
    signal = noise = energy = product = worst = 0.0
    agreements = []
    for name, want in expected.items():
        got = actual.get(name)
        if got is None or got.shape != want.shape:
            found = "no such output" if got is None else f"shape {got.shape}"
            raise GoldenError(f"parity set expects output {name!r} of shape {want.shape}, the model gave {found}")
        want64, got64 = want.astype(np.float64), got.astype(np.float64)
        with np.errstate(invalid="ignore"):
            error = want64 - got64
            product += float((want64 * got64).sum())
        signal += float(np.square(want64).sum())
        noise += float(np.square(error).sum())
        energy += float(np.square(got64).sum())
        worst = max(worst, float(np.abs(error).max(initial=0.0)))
        if want.ndim == 2 and want.shape[1] > 1:
            agreements.append(float((want64.argmax(1) == got64.argmax(1)).mean()))
    if not np.isfinite(noise):
        return Faithfulness(min(agreements, default=0.0), float("-inf"), 0.0, float("inf"))
    sqnr = 10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30))
    return Faithfulness(min(agreements, default=1.0), float(sqnr), _cosine(product, signal, energy), worst)


def agreeing(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> int:
    """Rows on which two versions say the same: the same top-1 class; without classes, values within a tenth."""
    agreed: Any = True
    for name, want in expected.items():
        got = actual.get(name)
        if got is None or got.shape != want.shape:
            raise GoldenError(f"output {name!r} is missing or has another shape")
        one, other = (array.reshape(len(array), -1).astype(np.float64) for array in (want, got))
        if want.ndim == 2 and want.shape[1] > 1:
            agreed = agreed & (one.argmax(1) == other.argmax(1)) & np.isfinite(other).all(1)
        else:
            agreed = agreed & (np.linalg.norm(one - other, axis=1) <= 0.1 * np.linalg.norm(one, axis=1) + 1e-9)
    return int(np.sum(agreed))


def accuracy(labels: Array, scores: Array) -> float:
    """Share of rows whose top-1 class is the label. `scores`: (rows, classes), or (rows, 1) for two classes."""
    return float(correct(labels, scores).mean())


def correct(labels: Array, scores: Array) -> npt.NDArray[np.bool_]:
    """Per row: is the top-1 class the label? Shape (rows,). A row with NaN is never correct.

    Scores of another shape are flattened per row, so that a model without classes can be probed all the same.
    """
    scores = scores.reshape(len(scores), -1)
    finite = np.isfinite(scores).all(axis=1)
    guessed = (scores[:, 0] > 0.5).astype(np.int64) if scores.shape[1] == 1 else scores.argmax(axis=1)
    hits: npt.NDArray[np.bool_] = (guessed == labels) & finite
    return hits


def _cosine(product: float, signal: float, energy: float) -> float:
    if signal == 0 or energy == 0:
        return float(signal == energy)
    return min(1.0, max(-1.0, product / float(np.sqrt(signal) * np.sqrt(energy))))


def _prefixed(kind: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{kind}:{name}": array for name, array in arrays.items()}


def _taken(kind: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    found = {name.removeprefix(f"{kind}:"): array for name, array in arrays.items() if name.startswith(f"{kind}:")}
    if not found:
        raise GoldenError(f"a golden set needs at least one array '{kind}:NAME'")
    return found


def _write(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    # The stub of savez_compressed takes `allow_pickle` for one of the arrays.
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _read(content: bytes) -> dict[str, Array]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise GoldenError(f"not a golden set: {error}") from error
    counts = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or not 0 < min(counts) <= MAX_ROWS:
        raise GoldenError(f"every array of a golden set has the same 1 to {MAX_ROWS} rows; found {sorted(counts)}")
    return arrays
