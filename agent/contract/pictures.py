"""A picture as a model's input. Needs Pillow, which the base install lacks: extra `image`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from agent.contract.golden import Array
from agent.contract.manifest import Preprocessing

MAX_PIXELS = 50_000_000
"""A picture that unpacks to more is refused; Pillow's own limit only warns below twice this."""
_MODES = {1: "L", 3: "RGB"}


class PictureError(ValueError):
    """It cannot be read; the message says why."""


def to_array(
    source: bytes | Path | BinaryIO, how: Preprocessing, kinds: tuple[str, ...] | None = None, most: int = MAX_PIXELS
) -> Array:
    """Resize to (height, width), take `channels`, invert if asked, then value * scale + offset.

    Values are 0 to 255 before scaling. Returns float32 of shape (1, height, width, channels). `kinds` are those that
    are read, as Pillow calls them; None: every one. `most` pixels are unpacked. Raises PictureError, and ImportError
    where Pillow is not installed.
    """
    from PIL import Image, UnidentifiedImageError

    mode = _MODES.get(how.channels)
    if mode is None:
        raise PictureError(f"pictures with {how.channels} channels are not supported; 1 (grey) or 3 (RGB) are")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=kinds) as picture:
            if picture.width * picture.height > most:
                raise PictureError(f"it has {picture.width} x {picture.height} pixels; at most {most:,} are read")
            plain = _on_white(picture).convert(mode)
            if plain.size != (how.width, how.height):
                plain = plain.resize((how.width, how.height), Image.Resampling.BILINEAR)
            values = np.asarray(plain, dtype=np.float32)
    except PictureError:
        raise
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(_plain(error)) from error
    if how.invert:
        values = 255.0 - values
    scaled: Array = (values * how.scale + how.offset).astype(np.float32)
    return scaled.reshape(1, how.height, how.width, how.channels)


def _on_white(picture: Any) -> Any:
    """Transparent pixels become paper, not ink."""
    from PIL import Image

    if not picture.has_transparency_data:
        return picture
    layered = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)


def _plain(error: Exception) -> str:
    text = str(error)
    return "no kind of picture that is known" if "cannot identify" in text else text or type(error).__name__
