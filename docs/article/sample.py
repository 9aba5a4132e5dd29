"""The article's sample as it can run: a small network on pictures, half of its weights pruned by magnitude, then int8.

    uv run python docs/article/sample.py

Each remark that begins with "Here" says in what it differs from the article's listing, and why.
"""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np

import optimizer
from agent.contract.golden import accuracy
from agent.runtime import load, predict
from optimizer.lines import LineReader
from optimizer.steps import ForkedSteps, Work

FASHION = Path("/usr/share/datasets/fashion-mnist")
RUNTIMES = ("ai-edge-litert", "tflite-runtime")


def main(folder: Path) -> None:
    splits = pictures()
    np.savez(
        folder / "data.npz", **{f"{split}/{name}": part for split, parts in splits.items() for name, part in parts}
    )
    model = network(splits["train"][0][1].shape[1])
    # Here the network is trained before it is pruned: what is small says nothing before.
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    (_, train), (_, labels) = splits["train"]
    model.fit(train, labels, batch_size=32, epochs=6, verbose=2)
    save(model, folder / "source.keras")
    # Here the network is trained on without pruning too: what the pruned one gains by its training is no gain of zeros.
    slower = keras.optimizers.schedules.CosineDecay(1e-3, 6 * -(-len(train) // 32))
    model.compile(keras.optimizers.Adam(slower), "sparse_categorical_crossentropy")
    model.fit(train, labels, batch_size=32, epochs=6, verbose=2)
    save(model, folder / "longer.keras")
    done = passes(folder)
    show(folder, splits["test"], done)


def save(model: Any, path: Path) -> None:
    """Without what its optimizer remembers, which would make the file three times as large."""
    plain = network(model.inputs[0].shape[1])
    plain.set_weights(model.get_weights())
    plain.save(path)


def network(size: int) -> Any:
    """784 -> 128 -> 10: 101,770 parameters."""
    pixels = keras.Input((size,), name="pixels")
    hidden = keras.layers.Dropout(0.2)(keras.layers.Dense(128, activation="relu", name="hidden")(pixels))
    # Here the loss is told nothing of logits: the listing's softmax meets from_logits=True, a second softmax in effect.
    return keras.Model(pixels, keras.layers.Dense(10, activation="softmax", name="scores")(hidden))


def passes(folder: Path) -> dict[str, Any]:
    """Both passes, each in a child process of its own kind; returns what the first says of itself."""
    # Here the model is one of Keras 3: the pass makes its counterpart in Keras 2, the only one that the library takes.
    # Here the schedule goes where the library looks for it: the second argument is no dictionary of settings.
    # Here the callback that counts steps is there: without UpdatePruningStep the library ends with an error.
    # Here wrappers go by strip_pruning: remove_pruning_wrapper does not exist.
    # Here training lasts over 10,000 steps: 1,000 rows give 320, which end before step 1,000, where pruning begins.
    recipe = optimizer.find_recipe("article")
    sparse = msgspec.to_builtins(recipe.sparsify)
    reading, writing = os.pipe()
    steps = ForkedSteps(LineReader(reading), lambda message: False)
    try:
        inputs = {"source": folder / "source.keras", "data": folder / "data.npz"}
        pruned = run(steps, Work("sparsify", inputs, sparse, made(folder, "pruned")))
        # Here the pruned model becomes int8 too: zeros alone make no file smaller.
        numbers = {"weights": "per-channel", "input": "int8", "output": "int8"}
        for name, source in (("int8", "source.keras"), ("pruned-int8", "pruned/model.keras")):
            run(steps, Work("quantize", {**inputs, "source": folder / source}, numbers, made(folder, name)))
    finally:
        steps.close()
        os.close(writing)
    return pruned


def run(steps: ForkedSteps, work: Work) -> dict[str, Any]:
    last = ""

    def progress(fraction: float, detail: str) -> None:
        nonlocal last
        if detail != last:
            print(f"{work.name}: {detail}", flush=True)
        last = detail

    return steps.run(work, progress).result


def made(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def show(folder: Path, test: list[tuple[str, Any]], done: dict[str, Any]) -> None:
    """One line per model: accuracy on test, zeros, bytes as they lie and compressed."""
    print(f"{done['parameters']:,} parameters, {done['steps']:,} steps in {done['wall_s']:.0f} s")
    print(f"{'':24}accuracy   zeros      bytes  compressed")
    files = {"float": "source.keras", "float, trained on": "longer.keras", "pruned": "pruned/model.keras"}
    for name, place in {**files, "int8": "int8/model.tflite", "pruned, int8": "pruned-int8/model.tflite"}.items():
        content = (folder / place).read_bytes()
        scores = answers(folder / place, test[0][1])
        zeros = f"{done['zeros']:6.1%}" if "pruned" in name else "     -"
        share = accuracy(test[1][1], scores)
        print(f"{name:24}{share:8.2%}  {zeros}  {len(content):9,}  {len(zlib.compress(content, 9)):10,}")


def answers(path: Path, inputs: Any) -> Any:
    if path.suffix == ".keras":
        return keras.saving.load_model(path).predict(inputs, verbose=0)
    return next(iter(predict(load(path.read_bytes(), runtimes=RUNTIMES), {"pixels": inputs}).values()))


def pictures() -> dict[str, list[tuple[str, Any]]]:
    """Rows of pixels from 0 to 1 and their classes, in three disjoint splits."""
    if FASHION.is_dir():
        train, labels = fashion("train")
        test = fashion("t10k")
        return {
            "train": named(train[:54_000], labels[:54_000]),
            "validation": named(train[54_000:], labels[54_000:]),
            "test": named(*test),
        }
    print("Fashion-MNIST is not here (`apt install dataset-fashion-mnist`): scikit-learn's digits instead")
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows, labels = (digits.data / 16).astype(np.float32), digits.target.astype(np.int64)
    return {
        # Here rows are repeated, so that there are as many steps as the schedule asks for.
        "train": named(np.tile(rows[:1100], (49, 1)), np.tile(labels[:1100], 49)),
        "validation": named(rows[1100:1400], labels[1100:1400]),
        "test": named(rows[1400:], labels[1400:]),
    }


def fashion(part: str) -> tuple[Any, Any]:
    images = np.frombuffer(gzip.decompress((FASHION / f"{part}-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    labels = np.frombuffer(gzip.decompress((FASHION / f"{part}-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
    return (images.reshape(-1, 784) / 255).astype(np.float32), labels.astype(np.int64)


def named(rows: Any, labels: Any) -> list[tuple[str, Any]]:
    return [("pixels", rows), ("labels", labels)]


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keras.utils.set_random_seed(0)
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
