"""What a server of the Open Inference Protocol tells about its models."""

from __future__ import annotations

import pytest

from agent.contract import oip_models, stored_numbers
from agent.contract.tensors import TensorSpec

X, IDS = TensorSpec("x", "int8", (4,), 0.1, 3), TensorSpec("ids", "int32", (8,))


def test_metadata_names_the_types_that_a_caller_sends_and_how_an_input_is_stored() -> None:
    x, ids = oip_models.infos((X, IDS), stored_numbers.common([(X, IDS)]))
    assert (x.datatype, x.shape) == ("FP32", (-1, 4))
    assert x.parameters == {"stored_datatype": "INT8", "scale": 0.1, "zero_point": 3}
    assert (ids.datatype, ids.shape, ids.parameters) == ("INT32", (-1, 8), {})


def test_a_batch_is_what_fits_into_a_request() -> None:
    told = oip_models.config("m", oip_models.infos((X, IDS), {}), (), 100 * (4 * 4 + 8 * 4))
    assert told["max_batch_size"] == 100
    assert told["input"] == [
        {"name": "x", "data_type": "TYPE_FP32", "dims": (4,)},
        {"name": "ids", "data_type": "TYPE_INT32", "dims": (8,)},
    ]


def test_a_request_to_the_repository_may_be_empty_and_nonsense_is_refused() -> None:
    assert not oip_models.wanted(b" ").ready
    assert oip_models.wanted(b'{"ready": true}').ready
    for nonsense in (b"[]", b'{"ready": 3}', b"{" * 5000):
        with pytest.raises(ValueError, match="repository extension"):
            oip_models.wanted(nonsense)
