"""Files of PyTorch and ONNX: what could run code, or reads other files, is refused before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optimizer.sources import SourceError
from optimizer.sources.onnx_file import check_onnx
from optimizer.sources.torch_file import check_torch
from tests.model_files import WEIGHT, Part, message, onnx, program, pt2


def test_a_program_of_plain_numbers_and_known_operators_passes(tmp_path: Path) -> None:
    size = {"as_expr": {"expr_str": "2*s0 + FloorDiv(s1, 4)"}}
    check_torch(pt2(tmp_path / "m", program("torch.ops.aten.linear.default", "_operator.getitem", size=size)), False)


@pytest.mark.parametrize(
    ("inner", "weight", "part"),
    [
        (program("torch.load"), None, "calls torch.load"),
        (program("torch.ops.mine.run.default"), None, "calls torch.ops.mine.run.default"),
        (program("torch.ops.aten.from_file.default"), None, "from_file"),
        (program("_operator.methodcaller"), None, "methodcaller"),
        (program("#mine"), None, "#mine"),
        (program(argument={"as_operator": "torch.hub.load"}), None, "torch.hub.load"),
        (program(size={"expr_str": "eval(s0)"}), None, "an expression of its own"),
        (program(size={"expr_str": "s0.__class__"}), None, "an expression of its own"),
        (program(), {**WEIGHT, "use_pickle": True}, "pickled weight"),
        (program(), {**WEIGHT, "path_name": "custom_obj_0"}, "pickled weight or object"),
    ],
)
def test_a_program_that_could_run_code_needs_its_owners_word(
    tmp_path: Path, inner: dict[str, Any], weight: dict[str, Any] | None, part: str
) -> None:
    path = pt2(tmp_path / "m.pt2", inner, weight)
    with pytest.raises(SourceError) as caught:
        check_torch(path, False)
    assert part in str(caught.value)
    assert "--trust" in str(caught.value)
    check_torch(path, True)


@pytest.mark.parametrize("name", ["data/weights/model.pt", "data/constants/custom_obj_0", "data/aotinductor/m/x.so"])
def test_a_file_that_would_be_unpickled_or_run_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=name):
        check_torch(pt2(tmp_path / "m.pt2", program(), more=name), False)


def test_a_plain_onnx_file_passes(tmp_path: Path) -> None:
    tensor = message((1, 1), (2, 1), (8, "w"), (9, b"1234"))
    check_onnx(onnx(tmp_path / "m.onnx", nodes=(message((4, "Relu"), (7, "")),), tensors=(tensor,)))


_OUTSIDE = message((1, 1), (8, "w"), (13, message((1, "location"), (2, "/etc/passwd"))), (14, 1))


@pytest.mark.parametrize(
    ("parts", "nodes", "tensors", "part"),
    [
        ((), (message((4, "Run"), (7, "mine")),), (), "Run of 'mine'"),
        (((8, message((1, "mine"), (2, 1))),), (), (), "operators of 'mine'"),
        (((25, b""),), (), (), "functions of its own"),
        ((), (), (_OUTSIDE,), "other files"),
        ((), (message((4, "Constant"), (5, message((5, _OUTSIDE)))),), (), "other files"),
        ((), (message((4, "If"), (5, message((6, message((5, _OUTSIDE)))))),), (), "other files"),
    ],
)
def test_an_onnx_file_of_foreign_operators_or_outer_files_is_refused(
    tmp_path: Path, parts: tuple[Part, ...], nodes: tuple[bytes, ...], tensors: tuple[bytes, ...], part: str
) -> None:
    with pytest.raises(SourceError) as caught:
        check_onnx(onnx(tmp_path / "m.onnx", *parts, nodes=nodes, tensors=tensors))
    assert part in str(caught.value)
