"""What a kind of source cannot do is said before work starts."""

from __future__ import annotations

import pytest

from optimizer.recipe import Compare, Distill, Override, Prune, Quantize, Recipe, Sparsify, find
from optimizer.sources import CAN, Kind, SourceError, check_recipe, suited
from optimizer.sources.extras import check_installed

_FIXED: tuple[Kind, ...] = ("saved-model", "tflite", "torch", "onnx")


@pytest.mark.parametrize("kind", _FIXED)
@pytest.mark.parametrize(
    ("recipe", "part"),
    [
        (Recipe(prune=Prune()), r"cannot be pruned \(the recipe's \[prune\]\)"),
        (Recipe(distill=Distill(), sparsify=Sparsify()), "distilled and sparsified"),
        (Recipe(quantize=Quantize(qat="always")), "cannot be trained"),
        (Recipe(profiles={"rpi4": Override(quantize=Quantize(qat="always"))}), "cannot be trained"),
    ],
)
def test_a_source_that_cannot_be_trained_refuses_by_the_table_and_names_a_way(
    kind: Kind, recipe: Recipe, part: str
) -> None:
    with pytest.raises(SourceError, match=part) as caught:
        check_recipe(kind, recipe, "net.bin")
    assert "net.bin" in str(caught.value)
    assert "ptq" in str(caught.value)


@pytest.mark.parametrize("kind", _FIXED)
def test_a_recipe_that_nobody_asked_for_loses_what_the_source_cannot_do(kind: Kind) -> None:
    found = suited(kind, find("default"))
    check_recipe(kind, found, "net.bin")
    assert found.prune is None
    assert found.quantize.qat == "never"
    assert found.compare == Compare(tfmot=False, scratch=False)
    check_recipe(kind, find("ptq"), "net.bin")


def test_keras_models_do_everything() -> None:
    assert CAN["keras"] == CAN["h5"] == {"distill", "prune", "sparsify", "quantize"}
    assert suited("keras", find("default")) == find("default")
    check_recipe("h5", find("default"), "net.h5")


def test_a_kind_whose_tools_are_missing_says_what_to_type_or_where_they_exist() -> None:
    with pytest.raises(SourceError, match=r"m\.pt2 needs torch: pip install 'lepta\[all,torch\]'"):
        check_installed("torch", "m.pt2", lambda _: False, ("linux", "x86_64"))
    with pytest.raises(SourceError, match="cannot be converted on linux aarch64"):
        check_installed("onnx", "m.onnx", lambda module: module != "litert_torch", ("linux", "aarch64"))
    check_installed("onnx", "m.onnx", lambda _: True, ("linux", "aarch64"))
    check_installed("tflite", "m.tflite", lambda _: False)
