"""Models of Keras and TensorFlow are opened into the form that the other passes take."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from optimizer.sources import SourceError, check_static, load_source
from optimizer.sources.open_keras import open_h5, open_keras
from optimizer.sources.open_saved_model import open_saved_model
from tests.prune_zoo import answers

_ROWS = [np.random.default_rng(0).standard_normal((3, 6, 2)).astype(np.float32)]

# TensorFlow's arrays and numpy 2: not ours.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def net() -> Any:
    x = keras.Input((6, 2), name="series")
    hidden = keras.layers.Flatten()(keras.layers.Conv1D(4, 3, activation="relu")(x))
    outs = [
        keras.layers.Dense(3, activation="softmax", name="kind")(hidden),
        keras.layers.Dense(1, name="size")(hidden),
    ]
    return keras.Model(x, outs)


def silent(_: float, __: str) -> None:
    pass


def test_keras_and_h5_files_become_the_same_model(tmp_path: Path, net: Any) -> None:
    ways: dict[str, Callable[..., dict[str, Any]]] = {"m.keras": open_keras, "m.h5": open_h5}
    for name, way in ways.items():
        net.save(tmp_path / name)
        # The ending says nothing.
        plain = shutil.move(tmp_path / name, tmp_path / f"{name}-source")
        found = way({"source": Path(plain)}, {"trust": True}, tmp_path, silent)
        assert found == {
            "kind": "keras",
            "inputs": [{"name": "series", "dtype": "float32", "shape": [6, 2]}],
            "outputs": [{"name": "kind", "shape": [3]}, {"name": "size", "shape": [1]}],
            "classes": 0,
        }
        for mine, its in zip(answers(load_source(tmp_path / "model.keras"), _ROWS), answers(net, _ROWS), strict=True):
            np.testing.assert_allclose(mine, its, rtol=1e-6)


def test_an_h5_file_is_not_opened_without_its_owners_word(tmp_path: Path, net: Any) -> None:
    net.save(tmp_path / "m.h5")
    with pytest.raises(SourceError, match="--trust"):
        open_h5({"source": tmp_path / "m.h5"}, {}, tmp_path, silent)


@pytest.mark.parametrize("packed", [False, True])
def test_a_saved_model_is_copied_and_its_signature_told(tmp_path: Path, net: Any, packed: bool) -> None:
    net.export(tmp_path / "exported", verbose=False)
    source = tmp_path / "exported"
    if packed:
        source = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "exported"))
    assert check_static(source) == "saved-model"
    (tmp_path / "out").mkdir()
    found = open_saved_model({"source": source}, {}, tmp_path / "out", silent)
    assert found["kind"] == "saved-model"
    assert found["inputs"] == [{"name": "series", "dtype": "float32", "shape": [6, 2]}]
    assert sorted(tuple(port["shape"]) for port in found["outputs"]) == [(1,), (3,)]
    assert (tmp_path / "out" / "saved_model" / "variables" / "variables.index").exists()


def test_a_saved_model_that_writes_files_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    class Writes(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            tf.io.write_file(str(tmp_path / "written"), "x")
            return x + 1

    tf.saved_model.save(Writes(), str(tmp_path / "m"))
    with pytest.raises(SourceError, match="WriteFile"):
        open_saved_model({"source": tmp_path / "m"}, {}, tmp_path / "out", silent)
    assert not (tmp_path / "written").exists()
