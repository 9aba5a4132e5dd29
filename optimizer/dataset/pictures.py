"""Pictures as rows: decoded when they are read, as `lepta infer` would for the same preprocessing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from agent.contract.manifest import Preprocessing
from optimizer.data import DataError
from optimizer.dataset.columns import UNREADABLE, Array
from optimizer.dataset.tree import Entry
from optimizer.settings import LIMITS
from optimizer.sources import InputSpec
from optimizer.sources.specs import first_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_MODES = {1: "L", 3: "RGB"}
_CHUNK_BYTES = 8 << 20


def preprocessing_for(spec: InputSpec) -> Preprocessing:
    """Where none was given: the input's own size; value / 255 for real inputs, the value itself for whole numbers."""
    shape = (*spec.shape, 1) if len(spec.shape) == 2 else spec.shape
    if len(shape) != 3 or shape[2] not in _MODES:
        raise DataError(
            f"input {spec.name!r} has shape {list(spec.shape)}, which is no picture; "
            "say by preprocessing how a picture becomes that, or give arrays"
        )
    scale = 1 / 255 if np.dtype(spec.dtype).kind == "f" else 1.0
    return Preprocessing(height=shape[0], width=shape[1], channels=shape[2], scale=scale)


class PictureColumn:
    """Picture files as the rows of one input. Errors name the file."""

    def __init__(self, name: str, entries: Sequence[Entry], spec: InputSpec, how: Preprocessing) -> None:
        if how.channels not in _MODES:
            raise DataError(f"pictures with {how.channels} channels are not supported; 1 (grey) or 3 (RGB) are")
        if how.height * how.width * how.channels != int(np.prod(spec.shape)):
            raise DataError(
                f"pictures of {how.height} x {how.width} x {how.channels} do not fit input {spec.name!r} "
                f"of shape {list(spec.shape)}; correct the preprocessing"
            )
        self.name = name
        self.shape = (len(entries), *spec.shape)
        self.dtype: np.dtype[Any] = np.dtype(spec.dtype)
        self._entries, self._how = entries, how

    def chunks(self, wanted: npt.NDArray[np.bool_] | None = None) -> Iterator[Array]:
        entries = self._entries if wanted is None else [self._entries[at] for at in map(int, np.flatnonzero(wanted))]
        step = max(1, _CHUNK_BYTES // (4 * int(np.prod(self.shape[1:]))))
        for at in range(0, len(entries), step):
            rows = [decode(entry, self._how).reshape(self.shape[1:]) for entry in entries[at : at + step]]
            yield self._stored(np.stack(rows))

    def _stored(self, rows: Array) -> Array:
        if self.dtype.kind == "f":
            return rows.astype(self.dtype, copy=False)
        limits = np.iinfo(self.dtype)
        return np.clip(np.round(rows), limits.min, limits.max).astype(self.dtype)


class Classes:
    """The class of every picture, as a column."""

    def __init__(self, name: str, labels: Sequence[int]) -> None:
        self.name = name
        self.shape: tuple[int, ...] = (len(labels),)
        self.dtype: np.dtype[Any] = np.dtype(np.int64)
        self._labels = np.asarray(labels, np.int64)

    def chunks(self, wanted: npt.NDArray[np.bool_] | None = None) -> Iterator[Array]:
        yield self._labels if wanted is None else self._labels[wanted]


def decode(entry: Entry, how: Preprocessing) -> Array:
    """One picture: resized to (height, width), in `channels`, inverted if asked, then value * scale + offset, float32.

    Shape (height, width, channels). Raises DataError that names the file.
    """
    try:
        with warnings.catch_warnings(), entry.open() as file:
            warnings.simplefilter("ignore")  # of pillow, about size: the check below is stricter
            with Image.open(file, formats=_FORMATS) as picture:
                values = _values(entry, picture, how)
    except (*UNREADABLE, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{entry.name} is no picture that can be read: {first_line(error)}") from error
    if how.invert:
        values = 255.0 - values
    scaled: Array = (values * how.scale + how.offset).astype(np.float32)
    return scaled.reshape(how.height, how.width, how.channels)


def _values(entry: Entry, picture: Any, how: Preprocessing) -> Array:
    if picture.width * picture.height > LIMITS.picture_pixels:
        raise DataError(
            f"{entry.name} has {picture.width} x {picture.height} pixels; at most {LIMITS.picture_pixels:,} are read"
        )
    plain = _on_white(picture).convert(_MODES[how.channels])
    if plain.size != (how.width, how.height):
        plain = plain.resize((how.width, how.height), Image.Resampling.BILINEAR)
    return np.asarray(plain, dtype=np.float32)


def _on_white(picture: Any) -> Any:
    """Transparent pixels become paper, not ink."""
    if not picture.has_transparency_data:
        return picture
    layered = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)
