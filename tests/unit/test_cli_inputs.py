"""Files to arrays, answers to words, payloads to text."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from agent.contract.golden import Array
from agent.contract.manifest import Preprocessing
from agent.contract.oip_models import TensorInfo
from agent.contract.signing import PrivateKey, seal
from controller.client.answers import describe
from controller.client.mqtt import readable
from controller.client.oip import Answer
from controller.client.preprocess import read_inputs
from controller.commands.layout import aligned
from controller.errors import UserError
from controller.inputs import image_to_array

IMAGE = (TensorInfo(name="image", datatype="INT8", shape=(-1, 8, 8, 1)),)
HOW = Preprocessing(height=8, width=8, scale=1 / 16, offset=-0.5)


def _picture(path: Path, values: Array) -> Path:
    Image.fromarray(values).save(path)
    return path


def test_a_picture_is_resized_scaled_and_shifted_as_the_version_says(tmp_path: Path) -> None:
    path = _picture(tmp_path / "grey.png", np.full((32, 20), 160, np.uint8))
    array = image_to_array(path, HOW)
    assert array.shape == (1, 8, 8, 1)
    assert array.dtype == np.float32
    assert np.allclose(array, 160 / 16 - 0.5)


def test_a_picture_of_the_right_size_keeps_its_pixels(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    array = image_to_array(_picture(tmp_path / "exact.png", values), Preprocessing(height=8, width=8, scale=1.0))
    assert np.array_equal(array[0, :, :, 0], values)


def test_ink_and_paper_change_places_where_the_version_says_so(tmp_path: Path) -> None:
    path = _picture(tmp_path / "dark.png", np.zeros((8, 8), np.uint8))
    how = Preprocessing(height=8, width=8, scale=1.0, invert=True)
    assert np.all(image_to_array(path, how) == 255)


def test_a_transparent_ground_is_paper(tmp_path: Path) -> None:
    path = _picture(tmp_path / "clear.png", np.zeros((8, 8, 4), np.uint8))
    assert np.all(image_to_array(path, Preprocessing(height=8, width=8, scale=1.0)) == 255)


def test_colour_keeps_its_channels(tmp_path: Path) -> None:
    path = _picture(tmp_path / "red.png", np.tile(np.array([255, 0, 0], np.uint8), (8, 8, 1)))
    array = image_to_array(path, Preprocessing(height=8, width=8, channels=3, scale=1.0))
    assert array[0, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.png", b"not a picture", "no picture"),
        ("a.npy", b"not an array", "no .npy"),
        ("a.json", b"{", "no JSON"),
        ("a.json", b'{"other": [1]}', "the model takes image"),
        ("a.json", b'["x"]', "no array of numbers"),
        ("a.json", b"[1, 2, 3]", "rows of"),
        ("a.txt", b"7", ".txt files are not known"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_name(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        read_inputs(tmp_path / name, IMAGE, HOW)
    assert name in str(caught.value)


def test_a_picture_needs_a_version_that_says_how(tmp_path: Path) -> None:
    path = _picture(tmp_path / "a.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match="how a picture becomes its input"):
        read_inputs(path, IMAGE, None)


def test_one_row_and_many_rows_are_both_taken(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros((8, 8, 1)))
    np.save(tmp_path / "many.npy", np.zeros((5, 8, 8, 1), np.float64))
    assert read_inputs(tmp_path / "one.npy", IMAGE, None)["image"].shape == (1, 8, 8, 1)
    assert read_inputs(tmp_path / "many.npy", IMAGE, None)["image"].dtype == np.float32


def test_values_in_the_models_own_type_stay_as_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "raw.npy", np.full((1, 8, 8, 1), -7, np.int8))
    assert read_inputs(tmp_path / "raw.npy", IMAGE, None)["image"].dtype == np.int8


def test_several_inputs_come_by_name(tmp_path: Path) -> None:
    infos = (TensorInfo(name="a", datatype="FP32", shape=(-1, 2)), TensorInfo(name="b", datatype="FP32", shape=(-1, 1)))
    (tmp_path / "two.json").write_text(json.dumps({"a": [[1, 2]], "b": [[3]]}))
    inputs = read_inputs(tmp_path / "two.json", infos, None)
    assert inputs["b"].tolist() == [[3]]


def _answer(*rows: list[float]) -> Answer:
    return Answer({"scores": np.array(rows, np.float32)}, "r", 1, "a", "d", "x")


def test_the_best_class_is_named_with_its_share() -> None:
    assert describe(_answer([0.02, 0.98], [0.75, 0.25]), ["no", "yes"]) == ["yes (0.98)", "no (0.75)"]


def test_scores_that_are_no_shares_are_called_scores() -> None:
    assert describe(_answer([-3.0, 12.0]), []) == ["1 (score 12)"]


def test_numbers_that_are_none_are_no_answer() -> None:
    assert describe(_answer([float("nan"), 1.0]), []) == ["no answer: the model gave numbers that are none"]


def test_a_model_without_classes_shows_its_numbers() -> None:
    answer = Answer({"y": np.array([[1.5], [2.5]], np.float32)}, "r", 1, "a", "d", "x")
    assert describe(answer, []) == ["y [1.5]", "y [2.5]"]


def test_payloads_are_shown_as_text_whatever_they_are() -> None:
    assert readable(b'{"a":1}') == '{"a":1}'
    assert readable(msgspec.msgpack.encode({"data": b"12345", "n": [1]})) == '{"data":"<5 bytes>","n":[1]}'
    assert readable(b"hello") == "hello"
    assert readable(b"\xff\xfe\x00") == "<3 bytes>"
    assert readable(b"") == ""


def test_a_signed_envelope_is_shown_with_what_it_says() -> None:
    envelope = seal(b'{"agent": "pi-1"}', "application/x", PrivateKey.generate())
    assert readable(envelope) == '{"signed":{"agent":"pi-1"}}'
    assert readable(b'{"payload": "!!", "payloadType": "x", "signatures": []}')


def test_columns_are_aligned() -> None:
    assert aligned([("a", "1"), ("bbb", "22")], right=(1,)) == ["a     1", "bbb  22"]
    assert aligned([]) == []
