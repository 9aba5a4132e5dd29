"""Well-known models, random weights, go through pruning and int8 with no rule of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest

from optimizer.data import Array
from optimizer.flatfile import Flatfile
from optimizer.macs import of_keras
from optimizer.prune.coupling import Coupling, couple
from optimizer.prune.importance import by_scales
from optimizer.prune.ledger import size_of
from optimizer.prune.select import select
from optimizer.prune.sensitivity import masked
from optimizer.prune.surgery import cut
from optimizer.quantize import quantize
from tests import prune_zoo as zoo
from tests.prune_zoo import answers, built, rows_for

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def _large(name: str) -> Callable[[], Any]:
    return lambda: getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=5)


LARGE = {name: _large(name) for name in ("MobileNetV2", "ResNet50", "EfficientNetB0")}
SMALL = {"gru": zoo.gru, "transformer": zoo.transformer, "mlp": zoo.mlp, "residual": zoo.residual, "waves": zoo.waves}
# Models with nothing to prune around: every axis but inputs and outputs is free.
BARRIERS: dict[str, set[str]] = {"MobileNetV2": set(), "ResNet50": set(), "EfficientNetB0": set()}


@pytest.fixture(params=list(LARGE))
def large(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    keras.utils.set_random_seed(0)
    model = LARGE[request.param]()
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("gamma", "beta", "bias"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    yield request.param, model
    keras.backend.clear_session()


@pytest.mark.slow
def test_large_models_lose_their_share_everywhere_and_compute_what_the_masked_ones_do(large: tuple[str, Any]) -> None:
    name, model = large
    coupling, rows = couple(model), rows_for(model, 2)
    assert {barrier.path for barrier in coupling.barriers} == BARRIERS[name]
    scores = by_scales(coupling)
    for ratio in (0.0, 0.3, 0.5):
        kept = select(coupling, scores, {group.name: ratio for group in coupling.prunable()})
        smaller = cut(model, coupling, kept)
        _check_shapes(model, smaller, coupling, ratio)
        assert tuple(size_of(coupling, kept)) == (smaller.count_params(), of_keras(smaller.layers))
        with masked(coupling, kept):
            expected = answers(model, rows)[0]
        tolerance = 0.0 if ratio == 0 else 1e-4
        np.testing.assert_allclose(answers(smaller, rows)[0], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
def test_large_models_become_int8_when_half_of_their_channels_went(large: tuple[str, Any]) -> None:
    _, model = large
    _to_int8(model, 0.5, 4)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("build", list(SMALL.values()), ids=list(SMALL))
def test_small_models_become_int8(build: Callable[[], Any], ratio: float) -> None:
    _to_int8(built(build), ratio, 16)


def _to_int8(model: Any, ratio: float, count: int) -> None:
    coupling = couple(model)
    kept = select(coupling, by_scales(coupling), {group.name: ratio for group in coupling.prunable()})
    smaller = cut(model, coupling, kept)
    smaller = (
        smaller if not isinstance(smaller, keras.Sequential) else keras.Model(smaller.inputs[0], smaller.outputs[0])
    )
    rows: list[Array] = rows_for(smaller, count)
    calibration = {tensor.name: part for tensor, part in zip(smaller.inputs, rows, strict=True)}
    content = quantize(smaller, calibration, weights="per-channel", interface=("float32", "float32"))
    assert list(Flatfile(content).operators())
    assert len(content) < 2 * smaller.count_params() + 400_000


def _check_shapes(model: Any, smaller: Any, coupling: Coupling, ratio: float) -> None:
    """Every layer of a prunable group is smaller by its share; the output is not."""
    prunable = {name for group in coupling.prunable() for name in group.axes}
    for before, after in zip(model.layers, smaller.layers, strict=True):
        assert before.name == after.name
        for size in ("filters", "units"):
            if not hasattr(before, size):
                continue
            wide = getattr(before, size)
            gone = int(wide * ratio + 1e-9) if f"{before.name}/{size}" in prunable else 0
            assert getattr(after, size) == wide - gone
    assert smaller.output_shape == model.output_shape
