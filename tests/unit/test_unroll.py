"""Unrolled recurrent layers answer as they did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from optimizer.unroll import unrolled
from tests import prune_zoo as zoo
from tests.prune_zoo import answers, built, rows_for


@pytest.mark.parametrize("build", [zoo.gru, zoo.recurrent])
def test_an_unrolled_model_answers_alike(build: Callable[[], Any]) -> None:
    model = built(build)
    rows = rows_for(model)
    np.testing.assert_allclose(answers(unrolled(model), rows)[0], answers(model, rows)[0], rtol=1e-5, atol=1e-6)


def test_a_model_without_recurrent_layers_is_left_as_it_is() -> None:
    model = built(zoo.mobile)
    assert unrolled(model) is model
