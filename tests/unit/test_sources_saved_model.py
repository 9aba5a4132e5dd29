"""SavedModels: what does more than compute is refused, wherever in the graph it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from optimizer.sources import SourceError, check_static
from tests.model_files import function, graph, message, node, saved_model

_SAVE, _RESTORE = "__inference__traced_save_1", "__inference__traced_restore_2"
_SAVER = function(
    _SAVE,
    node("StringJoin", "file_prefix", "Const"),
    node("ShardedFilename", "StringJoin:output:0"),
    node("SaveV2", "ShardedFilename:filename:0"),
    node("Pack", "ShardedFilename:filename:0", "^SaveV2"),
    node("MergeV2Checkpoints", "Pack:output:0", "file_prefix"),
)
_RESTORER = function(_RESTORE, node("RestoreV2", "file_prefix"))
_CALL = node("StatefulPartitionedCall", "saver_filename", calls=_SAVE)
_NAME = node("Placeholder", name="saver_filename")


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        check_static(path)
    return str(caught.value)


def test_a_model_with_the_usual_saver_passes(tmp_path: Path) -> None:
    content = graph(_NAME, _CALL, node("MatMul"), functions=(_SAVER, _RESTORER, function("f", node("Relu"))))
    assert check_static(saved_model(tmp_path / "m", content)) == "saved-model"


@pytest.mark.parametrize(
    "op", ["ReadFile", "WriteFile", "PyFunc", "EagerPyFunc", "InitializeTableFromTextFileV2", "New"]
)
def test_an_operation_that_is_not_known_to_compute_is_refused_by_name(tmp_path: Path, op: str) -> None:
    assert op in refusal(saved_model(tmp_path / "m", graph(node(op))))
    inside = graph(node("Relu"), functions=(function("f", node("Add"), node(op)),))
    assert f"{op} in f" in refusal(saved_model(tmp_path / "m", inside))


def test_an_operation_named_twice_is_not_the_harmless_one(tmp_path: Path) -> None:
    two = message((1, "x"), (2, "Relu"), (2, "WriteFile"))
    assert "Relu and WriteFile" in refusal(saved_model(tmp_path / "m", graph(two)))


@pytest.mark.parametrize(
    "content",
    [
        graph(node("SaveV2", "file_prefix")),
        graph(functions=(function("f", node("SaveV2", "file_prefix")),)),
        graph(functions=(function(_SAVE, node("Const"), node("SaveV2", "Const:output:0")),)),
        graph(functions=(function(_RESTORE, node("Const"), node("RestoreV2", "Const:output:0")),)),
        graph(functions=(function(_SAVE, node("Const", name="../../x"), node("SaveV2", "file_prefix")),)),
        graph(functions=(_SAVER, function("f", node("PartitionedCall", "x", calls=_SAVE)))),
        graph(node("Const", name="saver_filename"), _CALL, functions=(_SAVER,)),
        graph(node("StatefulPartitionedCall", "x", calls=_SAVE), functions=(_SAVER,)),
    ],
)
def test_files_are_saved_and_restored_by_the_checkpoints_own_functions_alone(tmp_path: Path, content: bytes) -> None:
    assert "save" in refusal(saved_model(tmp_path / "m", content)).lower()


def test_assets_strange_files_links_and_old_models_are_refused(tmp_path: Path) -> None:
    plain = graph(node("Relu"))
    assert "(assets)" in refusal(saved_model(tmp_path / "a", plain, (6, b"")))
    strange = saved_model(tmp_path / "b", plain)
    (strange / "assets").mkdir()
    (strange / "assets" / "words.txt").write_text("a")
    assert "assets/words.txt" in refusal(strange)
    linked = saved_model(tmp_path / "c", plain)
    (linked / "variables" / "variables.data-00000-of-00001").symlink_to("/etc/hostname")
    assert "link" in refusal(linked)
    old = saved_model(tmp_path / "d", plain)
    (old / "saved_model.pb").write_bytes(message((2, message((2, plain)))))
    assert "TensorFlow 1" in refusal(old)
    cut = saved_model(tmp_path / "e", plain)
    (cut / "saved_model.pb").write_bytes((cut / "saved_model.pb").read_bytes()[:-3])
    assert "damaged" in refusal(cut)
