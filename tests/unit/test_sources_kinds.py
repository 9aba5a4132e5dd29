"""A source is known by its content, and refused by what it is."""

from __future__ import annotations

import contextlib
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.sources import SourceError, check_static, kind_of
from tests import builders
from tests.keras_files import DENSE, model_of, write
from tests.model_files import float_tflite, graph, message, node, onnx, program, pt2, saved_model


def zipped(path: Path, folder: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(one for one in folder.rglob("*") if one.is_file()):
            archive.write(file, f"{inside}{file.relative_to(folder)}")
    return path


def test_every_kind_is_known_whatever_the_file_is_called(tmp_path: Path) -> None:
    model = saved_model(tmp_path / "sm", graph(node("Relu")))
    (tmp_path / "flat").write_bytes(float_tflite())
    (tmp_path / "old").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert kind_of(write(tmp_path / "k", model_of([DENSE]))) == "keras"
    assert kind_of(model) == "saved-model"
    assert kind_of(zipped(tmp_path / "a", model)) == "saved-model"
    assert kind_of(zipped(tmp_path / "b", model, "inner/")) == "saved-model"
    assert kind_of(tmp_path / "flat") == "tflite"
    assert kind_of(tmp_path / "old") == "h5"
    assert kind_of(pt2(tmp_path / "p", program())) == "torch"
    assert kind_of(onnx(tmp_path / "o")) == "onnx"


def test_what_is_no_source_is_named_for_what_it_is(tmp_path: Path) -> None:
    def refusal(content: bytes) -> str:
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(SourceError) as caught:
            check_static(tmp_path / "file")
        return str(caught.value)

    assert "a pickle, which runs code" in refusal(pickle.dumps({"weight": 1}))
    assert "the file is empty" in refusal(b"")
    assert "no model that Lepta knows" in refusal(b"plain words")
    assert "already quantized" in refusal(builders.classifier())
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("w/data.pkl", b"")
    with pytest.raises(SourceError, match=r"pickled PyTorch weights.*torch\.export\.save"):
        check_static(tmp_path / "w.pth")
    np.savez(tmp_path / "data.npz", x=np.zeros(3))
    with pytest.raises(SourceError, match="is data, not a model"):
        check_static(tmp_path / "data.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no SavedModel"):
        check_static(tmp_path / "empty")


def test_an_h5_file_needs_its_owners_word(tmp_path: Path) -> None:
    (tmp_path / "m.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(SourceError, match="--trust"):
        check_static(tmp_path / "m.h5")
    assert check_static(tmp_path / "m.h5", trust=True) == "h5"


def test_two_files_of_one_name_in_an_archive_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.keras", model_of([DENSE]))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", "{}")
    with pytest.raises(SourceError, match="two files of one name"):
        check_static(path)


def test_a_tflite_of_unknown_operators_or_cut_off_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(builders.custom_operator())
    with pytest.raises(SourceError, match="LeptaUnknown, which no device has"):
        check_static(tmp_path / "m.tflite")
    (tmp_path / "m.tflite").write_bytes(float_tflite()[:3000])
    with pytest.raises(SourceError, match="damaged"):
        check_static(tmp_path / "m.tflite")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("samples")
    model = saved_model(folder / "sm", graph(node("Relu", "x"), node("Identity", "Relu")))
    tensor = message((1, 1), (2, 1), (8, "w"), (9, b"1234"))
    paths = [
        zipped(folder / "sm.zip", model),
        onnx(folder / "m.onnx", nodes=(message((4, "Relu"), (7, "")),), tensors=(tensor,)),
        pt2(folder / "m.pt2", program("torch.ops.aten.relu.default")),
    ]
    return [*(path.read_bytes() for path in paths), float_tflite(units=2)]


@given(which=st.integers(0, 3), at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.booleans())
def test_damage_is_refused_or_harmless_but_never_another_error(
    tmp_path_factory: pytest.TempPathFactory, samples: list[bytes], which: int, at: float, value: int, cut: bool
) -> None:
    path, content = tmp_path_factory.getbasetemp() / "damaged", bytearray(samples[which])
    position = int(at * len(content))
    content[position] = value
    path.write_bytes(content[:position] if cut else content)
    with contextlib.suppress(SourceError):
        check_static(path)
