"""Errors operator by operator: what is at fault is found, and left float it is at fault no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pytest

from agent.contract.golden import faithfulness
from agent.runtime import predict
from firmware_profiles.profile import Gate
from optimizer.data import Array
from optimizer.errors import RefusedError
from optimizer.layer_errors import Found, compare, find_errors
from optimizer.quantize import Made, made_from
from optimizer.quantize_guard import check
from optimizer.quantize_options import Options
from tests.quantized import drawn_out, float_answers, forked, opened, rows_of, sqnr_db

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

GATE = Gate()


def chain() -> Any:
    """Image (8, 8, 1) through five layers to scores (10,)."""
    keras.utils.set_random_seed(1)
    flow = image = keras.Input((8, 8, 1), name="image")
    for at in range(4):
        flow = keras.layers.Conv2D(12, 3, padding="same", activation="relu", name=f"conv{at}")(flow)
    pooled = keras.layers.Flatten(name="flat")(keras.layers.MaxPooling2D(4, name="pool")(flow))
    return keras.Model(image, keras.layers.Dense(10, name="scores")(pooled), name="chain")


def compared(made: Made, rows: dict[str, Array]) -> Found:
    assert made.floating is not None
    return compare(made.floating, made.content, rows, 60.0, lambda *_: None)


@pytest.fixture(scope="module")
def broken() -> Any:
    """A model that int8 breaks: one channel of conv1 is 3,000 times as large as the others."""
    model = chain()
    drawn_out(model, "conv1", "conv2", 3000.0)
    return model


def test_every_operator_has_its_figures_in_execution_order() -> None:
    model = forked()
    rows = rows_of(model)
    found = compared(made_from(model, rows, Options()), rows)
    layers = {layer.name: layer for layer in found.layers}
    assert list(layers) == ["wide", "conv", "depth", "pool", "both", "alpha", "zulu/fully_connected", "zulu/softmax"]
    conv = layers["conv"]
    assert (conv.operator, conv.macs, conv.bytes) == ("CONV_2D", 8 * 8 * 8 * 9, 8 * 9 + 4 * 8)
    assert all(layer.sqnr_db is not None and layer.sqnr_db > 25 for layer in found.layers)
    assert all(layer.own_sqnr_db is not None and layer.own_sqnr_db > 30 for layer in found.layers)
    assert all(layer.max_error is not None and layer.max_error < 0.2 for layer in found.layers)
    assert set(found.interface) == {"zebra", "apple", "zulu", "alpha"}


@pytest.mark.parametrize("port", ["int8", "float32"])
def test_the_operators_around_a_huge_channel_are_at_fault_although_their_own_signal_looks_sound(
    broken: Any, port: Any
) -> None:
    rows = rows_of(broken)
    found = compared(made_from(broken, rows, Options(input=port, output=port)), rows)
    layers = {layer.name: layer for layer in found.layers}
    assert layers["conv1"].sqnr_db is not None
    assert layers["conv1"].own_sqnr_db is not None
    assert layers["conv1"].sqnr_db > 30
    assert layers["conv1"].own_sqnr_db < 5
    assert found.worst[:2] == ["conv1", "conv2"]


def test_the_worst_operators_left_float_bring_a_broken_model_through_the_gate(broken: Any) -> None:
    """Agreement and SQNR before and after; the other operators stay int8."""
    rows = rows_of(broken, 64)
    exact = float_answers(broken, rows)
    made = made_from(broken, rows, Options())
    before = faithfulness(exact, predict(opened(made.content), rows))
    assert before.agreement < GATE.agreement
    assert before.sqnr_db < GATE.sqnr_db
    options = Options(keep_float=tuple(compared(made, rows).worst[:2]))
    mended = made_from(broken, rows, options)
    after = faithfulness(exact, predict(opened(mended.content), rows))
    assert after.sqnr_db > GATE.sqnr_db + 10
    assert after.agreement > before.agreement
    assert check(mended.content, options, mended.kept).float_operators == ("conv1", "conv2")


def test_of_a_mixed_artifact_only_what_is_rounded_errs(broken: Any) -> None:
    rows = rows_of(broken)
    found = compared(made_from(broken, rows, Options(keep_float=("conv1", "conv2"))), rows)
    layers = {layer.name: layer for layer in found.layers}
    own = layers["conv1"].own_sqnr_db
    assert own is None or own > 60
    assert "conv1" not in found.worst[:2]


def test_the_pass_writes_what_it_tells_and_needs_a_float_graph(broken: Any, tmp_path: Path) -> None:
    rows = rows_of(broken)
    made = made_from(broken, rows, Options())
    assert made.floating is not None
    arrays: dict[str, Any] = {f"{split}/image": rows["image"] for split in ("calibration", "validation", "test")}
    np.savez(tmp_path / "data.npz", **arrays)
    (tmp_path / "model.tflite").write_bytes(made.content)
    inputs = {"artifact": tmp_path / "model.tflite", "data": tmp_path / "data.npz", "source": tmp_path / "model.keras"}
    with pytest.raises(RefusedError, match="float graph"):
        find_errors(inputs, {}, tmp_path, lambda *_: None)
    (tmp_path / "float.tflite").write_bytes(made.floating)
    told = find_errors(inputs, {}, tmp_path, lambda *_: None)
    assert msgspec.json.decode((tmp_path / "errors.json").read_bytes()) == told
    assert told["worst"][:2] == ["conv1", "conv2"]


def test_a_value_that_several_operators_move_about_is_rounded_once() -> None:
    """Pooling and flattening share the scale of what they move: their error is that of the value."""
    model = chain()
    rows = rows_of(model)
    content = made_from(model, rows, Options())
    own = {layer.name: layer.own_sqnr_db for layer in compared(content, rows).layers}
    assert own["pool"] == own["flat"]
    assert sqnr_db(float_answers(model, rows), content.content, rows) > 20
