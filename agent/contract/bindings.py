"""Bindings: a device reads a topic of a user's, runs a model on what comes, and publishes what it found.

The input may be another model's predictions: so models are chained. Part of `desired`, so a binding survives whatever
its device does.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from agent.contract import topics
from agent.contract.fields import Count, Short, Text
from agent.contract.manifest import Preprocessing

FORMATS = ("tensor", "json", "image", "pcm")
"""`tensor`: the bytes of one row, little-endian in C order, in the input's stored dtype or as float32. `json`: an
array, {input: array}, a request of the Open Inference Protocol, or a prediction, whose scores are taken. `image`: JPEG
or PNG. `pcm`: samples of one channel, little-endian, of which windows are cut. Later controllers may know others."""
SAMPLES = {"int16": 2, "float32": 4}
"""Bytes of one sample of `pcm`."""
FEATURES = ("samples", "log-mel", "mfcc")
DEVICE = "{device}"
"""Stands in a topic for the name of the device that reads it."""
MAX_TOPIC = 200
MAX_BOUND = 64
"""Bindings of one device: they travel in one message."""
MAX_WINDOW = 1 << 20
"""Samples of one window."""


class BindingError(ValueError):
    """A binding that cannot be; the message says what to change."""


class Audio(msgspec.Struct, frozen=True, kw_only=True):
    """How samples become a model's input. Samples are first scaled to -1 to 1."""

    rate: Annotated[int, Meta(ge=1)]
    """Samples per second."""
    window: Annotated[int, Meta(ge=1, le=MAX_WINDOW)]
    """Samples of one prediction."""
    hop: Annotated[int, Meta(ge=1)]
    """Samples from the beginning of one window to that of the next."""
    sample: Short = "int16"
    """One of SAMPLES."""
    features: Short = "samples"
    """One of FEATURES: the samples; the logarithm of mel-band energies per frame; the cosine transform of that."""
    frame: Count = 0
    """Samples of one frame of features."""
    step: Count = 0
    """Samples from one frame to the next."""
    bands: Count = 40
    """Mel bands, from 20 Hz to half the rate."""
    coefficients: Count = 10
    """Of the cosine transform, the first ones."""


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """One input of one model on one device."""

    name: Short
    model: Short
    topic: Annotated[str, Meta(max_length=MAX_TOPIC)]
    """Whole, without wildcards."""
    format: Short = "tensor"
    """One of FORMATS."""
    input: Short = ""
    """Name of the model's input; empty: its only one."""
    preprocessing: Preprocessing | None = None
    """Of `image`; None: that of the model's manifest."""
    audio: Audio | None = None
    """Of `pcm`."""
    rate: Annotated[float, Meta(ge=0)] = 10.0
    """Predictions per second, at most; 0: as many as the device can."""
    keep: Annotated[int, Meta(ge=1, le=1024)] = 4
    """Inputs that wait; when one more comes the oldest is dropped."""
    top_k: Annotated[int, Meta(ge=1, le=100)] = 3


class BindingState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a binding stands on a device. Counts are of this process of the agent; windows where there are some."""

    name: Short
    model: Short
    state: Literal["active", "waiting", "refused"]
    """`waiting`: the model does not serve here yet. `refused`: by the device, which cannot read it, or by the broker,
    which does not let it."""
    reason: Text = ""
    """Why it waits or was refused, or what was wrong with the last input that failed."""
    received: Count = 0
    predicted: Count = 0
    dropped: Count = 0
    """Older ones that made room, and those that came while nobody could answer."""
    failed: Count = 0
    """Inputs that are not what was declared, or that the model cannot take."""


def check(binding: Binding) -> None:
    """Raise BindingError unless it can be read; `{device}` may stand in its topic."""
    topics.check_name(binding.name, "binding")
    topics.check_name(binding.model, "model")
    check_topic(binding.topic)
    if source_of(binding.topic) == binding.model:
        raise BindingError(f"model {binding.model} would be asked by its own predictions, without an end")
    if binding.format not in FORMATS:
        raise BindingError(f"format {binding.format!r} is not known here, {', '.join(FORMATS)} are: update this side")
    if (binding.audio is not None) != (binding.format == "pcm"):
        raise BindingError("sample rate, window and hop belong to pcm, which needs all three of them")
    if binding.preprocessing is not None and binding.format != "image":
        raise BindingError("preprocessing belongs to images")
    if binding.preprocessing is not None and binding.preprocessing.channels not in (1, 3):
        raise BindingError(f"images have 1 (grey) or 3 (RGB) channels, not {binding.preprocessing.channels}")
    if binding.audio is not None:
        _check_audio(binding.audio)


def check_topic(topic: str) -> None:
    """Raise BindingError unless it is a topic of a user's, or of predictions."""
    plain = topic.replace(DEVICE, "device")
    if not plain or len(topic) > MAX_TOPIC or plain != plain.strip() or plain.startswith("$"):
        raise BindingError(f"{topic[:80]!r} is no topic to read: 1 to {MAX_TOPIC} characters, not beginning with '$'")
    if any(ord(c) < 32 or ord(c) == 127 or c in "+#%" for c in plain):
        raise BindingError(f"{topic[:80]!r} must name one topic, without '+', '#', '%'; {DEVICE} is the device's name")
    if plain.count("/") > 6:
        raise BindingError(f"{topic[:80]!r} has more than 6 slashes: not every broker takes that")
    inside = plain.split("/")[0] == topics.ROOT.split("/")[0]
    if inside and not source_of(topic):
        raise BindingError(
            f"{topic[:80]!r} is Lepta's own: choose one outside of {topics.ROOT}/, or the predictions of a model, "
            f"{topics.ROOT}/predictions/MODEL/DEVICE"
        )


def check_own_topic(topic: str) -> None:
    """Raise BindingError unless a user's program may be let publish on it: a topic of its own, and no other's."""
    check_topic(topic)
    if source_of(topic) or DEVICE in topic:
        raise BindingError(f"{topic[:80]!r} is not a topic of your own: choose one outside of {topics.ROOT}/")


def source_of(topic: str) -> str:
    """The model whose predictions come on this topic; empty for a topic of a user's."""
    parsed = topics.parse(topic.replace(DEVICE, "device"))
    return parsed.names[0] if parsed is not None and parsed.kind == "predictions" else ""


def _check_audio(audio: Audio) -> None:
    if audio.sample not in SAMPLES:
        raise BindingError(f"samples are {' or '.join(SAMPLES)}, not {audio.sample!r}")
    if audio.features not in FEATURES:
        raise BindingError(f"features {audio.features!r} are not known here: {', '.join(FEATURES)} are")
    if audio.features != "samples" and not (audio.step > 0 and 0 < audio.frame <= audio.window):
        raise BindingError(f"{audio.features} needs a frame that fits into the window, and a step from one to the next")
    if audio.features == "mfcc" and not 0 < audio.coefficients <= audio.bands:
        raise BindingError("mfcc takes at least one coefficient, and at most as many as there are bands")
    if audio.features != "samples" and not 0 < audio.bands <= 256:
        raise BindingError("1 to 256 mel bands")
