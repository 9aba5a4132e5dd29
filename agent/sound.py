"""Features of a window of samples, with numpy alone.

Mel scale, filters and cosine transform as in S. Davis and P. Mermelstein, "Comparison of parametric representations for
monosyllabic word recognition", IEEE TASSP 28 (1980), with the mel formula of O'Shaughnessy, 2595 log10(1 + f / 700).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from agent.contract.bindings import Audio
from agent.contract.golden import Array

_LOWEST_HZ = 20.0
_FLOOR = 1e-6
"""Energies below this count as silence."""


def features(audio: Audio, window: bytes) -> Array:
    """Float32: (window,) samples from -1 to 1, or (frames, bands) or (frames, coefficients)."""
    samples = _samples(audio, window)
    if audio.features == "samples":
        return samples
    energies = _energies(audio, samples)
    logs: Array = np.log(np.maximum(energies, _FLOOR)).astype(np.float32)
    if audio.features == "log-mel":
        return logs
    return logs @ _cosines(audio.bands, audio.coefficients)


def _samples(audio: Audio, window: bytes) -> Array:
    if audio.sample == "int16":
        return np.frombuffer(window, "<i2").astype(np.float32) / np.float32(32768)
    return np.frombuffer(window, "<f4").astype(np.float32)


def _energies(audio: Audio, samples: Array) -> Array:
    """Power in each mel band, per frame: (frames, bands)."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, audio.frame)[:: audio.step]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(audio.frame), axis=1)) ** 2 / audio.frame
    energies: Array = spectrum @ _filters(audio.rate, audio.frame, audio.bands).T
    return energies


@lru_cache(maxsize=8)
def _filters(rate: int, frame: int, bands: int) -> Array:
    """Triangles over the bins of a spectrum: (bands, frame // 2 + 1)."""
    mels = np.linspace(_mel(_LOWEST_HZ), _mel(rate / 2), bands + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    bins = np.arange(frame // 2 + 1) * rate / frame
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    filters: Array = np.maximum(0.0, np.minimum(rising, falling))
    return filters


@lru_cache(maxsize=8)
def _cosines(bands: int, coefficients: int) -> Array:
    """The orthonormal cosine transform of type II: (bands, coefficients)."""
    at = (np.arange(bands)[:, None] + 0.5) * np.arange(coefficients) * np.pi / bands
    scaled = np.cos(at) * np.sqrt(2 / bands)
    scaled[:, 0] /= np.sqrt(2)
    table: Array = scaled.astype(np.float32)
    return table


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))
