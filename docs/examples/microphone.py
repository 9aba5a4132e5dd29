"""A stream of sound, and two models in a chain: `keyword` hears tones, `intent` acts on what `keyword` heard.

    lepta up                                   # and a device; or: lepta demo --keep
    uv run python docs/examples/microphone.py

Needs no network. Three sine tones stand for three words. Both models are trained here, in seconds, and deployed; the
second one reads the first one's predictions, on the same device and without the controller.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import msgspec
import numpy as np
from player import bind, connected, play

from agent import sound
from agent.contract import topics
from agent.contract.bindings import DEVICE, Audio
from controller.client.follow import follow_deploy
from controller.client.locate import locate
from controller.client.rest import Client
from controller.commands import common

WORDS, TONES_HZ = ("on", "off", "stop"), (440.0, 880.0, 1760.0)
INTENTS, MEANS = ("switch", "halt"), (0, 0, 1)
AUDIO = Audio(rate=8000, window=4096, hop=2048, features="log-mel", frame=512, step=256, bands=24)
TOPIC = "examples/microphone"
SPLITS = {"train": 600, "validation": 200, "test": 400}
Rows = tuple[Any, Any]


def tone(word: int, samples: int, random: np.random.Generator) -> bytes:
    """int16, one tone at some loudness and phase, with noise."""
    angle = 2 * np.pi * TONES_HZ[word] * np.arange(samples) / AUDIO.rate
    wave = random.uniform(0.1, 0.6) * np.sin(angle + random.uniform(0, 6.3)) + random.normal(0, 0.02, samples)
    return bytes((np.clip(wave, -1, 1) * 32767).astype("<i2").tobytes())


def heard(count: int, random: np.random.Generator) -> Rows:
    """Features of that many windows, as a device makes them; and which word each is."""
    words = random.integers(0, len(WORDS), count)
    return np.stack([sound.features(AUDIO, tone(word, AUDIO.window, random)).ravel() for word in words]), words


def meant(count: int, random: np.random.Generator) -> Rows:
    """Scores as `keyword` gives them, more or less sure; and what each means."""
    words = random.integers(0, len(WORDS), count)
    scores = random.dirichlet(np.ones(len(WORDS)), count) * 0.4 + np.eye(len(WORDS))[words] * 0.6
    return scores.astype(np.float32), np.array(MEANS)[words]


def deploy(client: Client, name: str, labels: Sequence[str], splits: dict[str, Rows], folder: Path) -> None:
    """Train a small network on the rows and bring it to every device."""
    (rows, answers) = splits["train"]
    features = keras.Input(rows.shape[1:], name="x")
    scores = keras.layers.Dense(len(labels), activation="softmax", name="scores")(features)
    model = keras.Model(features, scores)
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(rows, answers, epochs=20, verbose=0)
    model.save(folder / f"{name}.keras", include_optimizer=False)
    arrays = {f"{split}/x": rows for split, (rows, _) in splits.items()}
    arrays |= {f"{split}/labels": answers for split, (_, answers) in splits.items()}
    np.savez(folder / f"{name}.npz", **arrays)
    run = client.deploy(folder / f"{name}.keras", folder / f"{name}.npz", name=name, labels=labels, recipe="ptq")
    with common.screen().progress() as progress:
        follow_deploy(client, run, progress)
    print(f"{name} serves", flush=True)


def speech(words: Sequence[int], random: np.random.Generator) -> Iterator[bytes]:
    """Each word for two seconds, in pieces of 0.1 s."""
    for word in words:
        print(f"somebody says {WORDS[word]}", flush=True)
        samples = tone(word, 2 * AUDIO.rate, random)
        yield from (samples[at : at + AUDIO.rate // 5] for at in range(0, len(samples), AUDIO.rate // 5))


def main() -> None:
    random = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    with Client(locate()) as client, tempfile.TemporaryDirectory() as scratch:
        for name, labels, draw in (("keyword", WORDS, heard), ("intent", INTENTS, meant)):
            deploy(client, name, labels, {split: draw(n, random) for split, n in SPLITS.items()}, Path(scratch))
        audio = msgspec.to_builtins(msgspec.structs.replace(AUDIO, coefficients=1))
        bind(client, name="ear", model="keyword", topic=TOPIC, format="pcm", audio=audio, rate=0)
        chained = topics.predictions("keyword", "device").replace("device", DEVICE)
        bind(client, name="mind", model="intent", topic=chained, format="json", rate=0)
        with connected(client, "keyword", "intent") as broker:
            play(broker, TOPIC, speech((0, 2, 1), random), every_s=0.1)


if __name__ == "__main__":
    main()
