"""The Open Inference Protocol: JSON and binary tensors, in and out."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.contract.messages import UserTensor
from agent.contract.tensors import Tensor
from controller import oip

NUMBERS = ["int8", "uint8", "int16", "int32", "int64", "float32", "float64", "bool"]
arrays = st.sampled_from(NUMBERS).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else None,
    )
)


def json_body(array: np.ndarray, **more: object) -> bytes:
    item = {"name": "x", "shape": list(array.shape), "datatype": oip.datatype(array.dtype.name), "data": array.tolist()}
    return json.dumps({"inputs": [item], **more}).encode()


def binary_body(array: np.ndarray, **more: object) -> tuple[bytes, str]:
    item = {
        "name": "x",
        "shape": list(array.shape),
        "datatype": oip.datatype(array.dtype.name),
        "parameters": {"binary_data_size": array.nbytes},
    }
    header = json.dumps({"inputs": [item], **more}).encode()
    return header + array.tobytes(), str(len(header))


@given(array=arrays)
def test_json_and_binary_mean_the_same_tensor(array: np.ndarray) -> None:
    binary, length = binary_body(array)
    from_json = oip.decode(json_body(array), None).tensors
    from_binary = oip.decode(binary, length).tensors
    assert from_json == from_binary
    [tensor] = from_binary
    assert np.array_equal(np.frombuffer(tensor.data, tensor.dtype).reshape(tensor.shape), array)


@given(array=arrays, raw=st.booleans())
def test_an_answer_can_be_read_back(array: np.ndarray, raw: bool) -> None:
    request = oip.decode(json_body(array, parameters={"binary_data_output": raw}), None)
    body, header = oip.encode(request, (Tensor("y", array.dtype.name, array.shape, array.tobytes()),), {"id": "1"})
    assert (header is not None) == raw
    parsed = json.loads(body[:header])
    [output] = parsed["outputs"]
    values = np.frombuffer(body[header:], array.dtype) if raw else np.array(output["data"], array.dtype)
    assert np.array_equal(values.reshape(output["shape"]), array)
    assert parsed["id"] == "1"


def test_nested_data_is_read_like_flat_data() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert oip.decode(json_body(array), None).tensors[0].shape == (2, 3)


def test_one_output_can_be_asked_for_and_an_unknown_one_is_refused_by_name() -> None:
    array = np.ones((1, 2), np.float32)
    outputs = tuple(Tensor(name, "float32", (1, 2), array.tobytes()) for name in ("a", "b"))
    asked = oip.decode(json_body(array, outputs=[{"name": "b"}]), None)
    body, _ = oip.encode(asked, outputs, {})
    assert [o["name"] for o in json.loads(body)["outputs"]] == ["b"]
    unknown = oip.decode(json_body(array, outputs=[{"name": "c"}]), None)
    with pytest.raises(oip.ProtocolError, match="no output is called c; this model has a, b"):
        oip.encode(unknown, outputs, {})


def test_null_is_read_as_the_number_that_json_lacks() -> None:
    [tensor] = oip.decode(json_body(ONE).replace(b"1.0, 1.0", b"null, 1.0"), None).tensors
    assert np.array_equal(np.frombuffer(tensor.data, np.float32), [np.nan, 1], equal_nan=True)


def test_numbers_that_json_lacks_become_null() -> None:
    array = np.array([[np.nan, np.inf, 1.0]], np.float32)
    request = oip.decode(json_body(np.ones((1, 1), np.float32)), None)
    body, _ = oip.encode(request, (Tensor("y", "float32", (1, 3), array.tobytes()),), {})
    assert json.loads(body)["outputs"][0]["data"] == [None, None, 1.0]


ONE = np.ones((1, 2), np.float32)


@pytest.mark.parametrize(
    ("body", "length", "complaint"),
    [
        (b"no json", None, "not an inference request"),
        (b"{}", None, "not an inference request"),
        (b"[" * 100_000, None, "not an inference request"),
        (b'{"inputs": []}', None, "no tensors"),
        (json_body(ONE), "999999", "does not fit a body"),
        (json_body(ONE), "-1", "does not fit a body"),
        (json_body(ONE).replace(b"FP32", b"BYTES"), None, "datatype 'BYTES'; allowed"),
        (json_body(ONE).replace(b"[1, 2]", b"[1, 3]"), None, "does not fill FP32"),
        (json_body(ONE).replace(b"1.0, 1.0", b'"a", "b"'), None, "does not fill FP32"),
        (json_body(ONE).replace(b"[1, 2]", b"[-1, 2]").replace(b"1.0, 1.0", b"1.0, 1.0, 1.0"), None, "does not fill"),
        (json_body(ONE).replace(b"FP32", b"INT8").replace(b"1.0, 1.0", b"1.5, 1.0"), None, "does not fit the type"),
        (json_body(ONE).replace(b"FP32", b"INT8").replace(b"1.0, 1.0", b"1, 300"), None, "does not fit the type"),
        (json_body(ONE).replace(b"FP32", b"UINT8").replace(b"1.0, 1.0", b"1, -1"), None, "does not fit the type"),
        (json_body(ONE).replace(b"1.0, 1.0", b"1.0, 1e300"), None, "does not fill FP32"),
        (json_body(ONE, outputs=[{"name": "y", "parameters": {"classification": 3}}]), None, "for labels"),
        (json_body(ONE, outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]), None, "shared memory"),
        (b'{"inputs": [%b, %b]}' % ((json_body(ONE)[12:-2],) * 2), None, "an input comes twice"),
        (binary_body(ONE)[0] + b"x", binary_body(ONE)[1], "1 bytes follow"),
        (binary_body(ONE)[0][:-1], binary_body(ONE)[1], "7 bytes are left"),
    ],
)
def test_what_is_not_of_the_protocol_is_refused_with_a_reason(body: bytes, length: str | None, complaint: str) -> None:
    with pytest.raises(oip.ProtocolError, match=complaint):
        oip.decode(body, length)


@given(garbage=st.binary(max_size=200), length=st.one_of(st.none(), st.text(max_size=5)))
def test_garbage_never_breaks_the_decoder(garbage: bytes, length: str | None) -> None:
    with contextlib.suppress(oip.ProtocolError):
        oip.decode(garbage, length)


def test_a_request_by_mqtt_gives_the_same_tensor() -> None:
    tensor = UserTensor(name="x", shape=(1, 2), data=[1.0, 1.0])
    assert oip.from_user((tensor,)) == oip.decode(json_body(ONE), None).tensors
    with pytest.raises(oip.ProtocolError):
        oip.from_user(())
