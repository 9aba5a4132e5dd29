"""Model files: what is refused before anything of them is loaded."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.sources import SourceError, check_static
from tests.keras_files import DENSE, model_of, write


def test_a_model_of_known_layers_passes_however_it_was_compiled(tmp_path: Path) -> None:
    own_loss = {"module": "mine", "class_name": "function", "config": "loss", "registered_name": "loss"}
    check_static(write(tmp_path / "m.keras", model_of([DENSE], compile_config={"loss": own_loss})))


@pytest.mark.parametrize(
    ("layer", "part"),
    [
        ({**DENSE, "class_name": "Lambda"}, "Lambda layer, which runs code"),
        ({**DENSE, "class_name": "TFSMLayer"}, "TFSMLayer"),
        ({**DENSE, "config": {"activation": {"class_name": "__lambda__", "config": {}}}}, "__lambda__"),
        ({"module": "os", "class_name": "system", "config": {}}, "system of os, which is not part of Keras"),
        ({"module": "builtins", "class_name": "eval", "config": {}}, "eval of builtins"),
        ({"module": "keras.utils", "class_name": "get_file", "config": {}}, "get_file of keras.utils"),
        ({"class_name": "Dense", "config": {}}, "not part of Keras"),
        ({**DENSE, "registered_name": "mine>Dense"}, "mine>Dense"),
        ({**DENSE, "config": {"kernel_initializer": {"module": "mine", "class_name": "Init"}}}, "Init of mine"),
    ],
)
def test_a_class_that_could_run_code_is_refused_by_name(tmp_path: Path, layer: dict[str, Any], part: str) -> None:
    with pytest.raises(SourceError) as caught:
        check_static(write(tmp_path / "m.keras", model_of([DENSE, layer])))
    assert part in str(caught.value)


def test_what_is_no_keras_archive_is_refused_with_what_it_seems_to_be(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.keras", model_of([DENSE])).read_bytes()
    for content, part in [
        (b"", "empty"),
        (b"hello, I am no model", r"model.save('x.keras')"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (whole[: len(whole) // 2], "cut off"),
    ]:
        (tmp_path / "m.keras").write_bytes(content)
        with pytest.raises(SourceError) as caught:
            check_static(tmp_path / "m.keras")
        assert part in str(caught.value)
    with pytest.raises(SourceError, match="cannot be read"):
        check_static(tmp_path / "none.keras")


def test_an_archive_of_another_kind_or_of_keras_2_or_with_a_way_out_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(SourceError, match=r"it has hello\.txt"):
        check_static(tmp_path / "other.keras")
    with pytest.raises(SourceError, match=r"saved by Keras 2\.15\.0"):
        check_static(write(tmp_path / "old.keras", model_of([DENSE]), {"keras_version": "2.15.0"}))
    with pytest.raises(SourceError, match="outside of itself"):
        check_static(write(tmp_path / "out.keras", model_of([DENSE]), **{"../../evil": "x"}))
    with pytest.raises(SourceError, match="not a JSON object"):
        check_static(write(tmp_path / "list.keras", [1, 2]))


def test_a_configuration_nested_too_deep_is_refused(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(150):
        deep = {"config": deep}
    with pytest.raises(SourceError, match="nested"):
        check_static(write(tmp_path / "m.keras", model_of([deep])))


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_is_refused_or_harmless_but_never_another_error(
    tmp_path_factory: pytest.TempPathFactory, at: float, bit: int, cut: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.keras"
    content = bytearray(write(path, model_of([DENSE])).read_bytes())
    position = int(at * len(content))
    content[position] ^= 1 << bit
    path.write_bytes(content[:position] if cut else content)
    with contextlib.suppress(SourceError):
        check_static(path)
