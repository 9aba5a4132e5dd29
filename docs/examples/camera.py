"""A stream of pictures: handwritten digits as PNG on a topic; every device that runs `digits` says what it sees.

    lepta demo --keep                          # or: lepta up, a device, and `lepta example digits`, `lepta deploy`
    uv run python docs/examples/camera.py

Needs no network. The pictures are those of scikit-learn; the model's own preprocessing makes them its input.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image
from player import bind, connected, play
from sklearn.datasets import load_digits

from controller.client.locate import locate
from controller.client.rest import Client

MODEL, TOPIC = "digits", "examples/camera"


def pictures(count: int, seed: int = 0) -> Iterator[bytes]:
    """PNG, 64 x 64, dark strokes on light ground; says which digit comes."""
    digits = load_digits()
    for at in np.random.default_rng(seed).choice(len(digits.images), count, replace=False):
        grey = (255 - digits.images[at] / 16 * 255).round().astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(grey.repeat(8, axis=0).repeat(8, axis=1)).save(file, "PNG")
        print(f"a picture of a {digits.target[at]}", flush=True)
        yield file.getvalue()


def main(count: int = 12) -> None:
    with Client(locate()) as client:
        bind(client, name="camera", model=MODEL, topic=TOPIC, format="image", rate=20)
        with connected(client, MODEL) as broker:
            play(broker, TOPIC, pictures(count), every_s=0.3)


if __name__ == "__main__":
    main()
