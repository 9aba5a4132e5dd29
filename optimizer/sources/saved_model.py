"""A SavedModel, read as bytes: every operation of its graph and of all its functions must only compute.

TensorFlow's graphs can read and write files and call Python when they run; some run while they are loaded.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath

from optimizer.settings import LIMITS
from optimizer.sources.archive import check_bounds, check_whole, opened
from optimizer.sources.kinds import SAVED_MODEL
from optimizer.sources.saved_model_ops import COMPUTE, SAVER, STATE
from optimizer.sources.saved_model_saver import SAVERS, check_caller, check_saver, node_of
from optimizer.sources.specs import SourceError
from optimizer.sources.wire import WireError, fields, inside, texts

_FILES = {SAVED_MODEL, "fingerprint.pb", "keras_metadata.pb"}
# Field numbers of SavedModel, MetaGraphDef, GraphDef, FunctionDef, NodeDef and AttrValue.
_META_GRAPHS = (2,)
_GRAPH, _ASSETS, _OBJECTS = 2, 6, 7
_NODES, _FUNCTIONS = (1,), (2, 1)
_BODY, _FUNCTION_NAME = (3,), (1, 1)
_ATTRIBUTES, _CALLED = (5, 2), (10, 1)
_LISTED = (1, 9, 1)


def check_saved_model(path: Path, name: str = "") -> None:
    """Refuse what does more than compute. `path`: a folder, or a zip of one; `name`: what its owner calls it."""
    name = name or path.name
    graph = _from_folder(path, name) if path.is_dir() else _from_archive(path)
    try:
        _check_graph(name, memoryview(graph))
    except WireError as error:
        raise SourceError(f"{name}: {SAVED_MODEL} is damaged: {error}; save the model again") from error


def unpack(path: Path, folder: Path) -> None:
    """Copy a SavedModel to `folder`, which must not exist; links are not followed."""
    if path.is_dir():
        _from_folder(path, path.name)
        shutil.copytree(path, folder, symlinks=True)
        return
    with opened(path) as archive:
        root = _root(path, check_bounds(path, archive))
        for entry in archive.infolist():
            if not entry.is_dir():
                target = folder / PurePosixPath(entry.filename).relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(entry))


def _from_folder(path: Path, name: str) -> bytes:
    files = []
    for found in path.rglob("*"):
        if found.is_symlink():
            raise SourceError(f"{name} holds a link, {found.name}, which may lead out of it")
        if found.is_file():
            files.append(found)
    total = sum(file.stat().st_size for file in files)
    if total > LIMITS.source_bytes or len(files) > LIMITS.archive_files:
        raise SourceError(f"{name} has {total} bytes in {len(files)} files; at most {LIMITS.source_bytes} are taken")
    _check_files(name, [file.relative_to(path).as_posix() for file in files])
    return (path / SAVED_MODEL).read_bytes()


def _from_archive(path: Path) -> bytes:
    with opened(path) as archive:
        names = check_bounds(path, archive)
        root = _root(path, names)
        files = [name for name in names if not name.endswith("/")]
        strange = [name for name in files if not PurePosixPath(name).is_relative_to(root)]
        if strange:
            raise SourceError(f"{path.name} holds {strange[0]} beside the SavedModel; pack that folder alone")
        _check_files(path.name, [PurePosixPath(name).relative_to(root).as_posix() for name in files])
        check_whole(path, archive)
        return archive.read(_entry(archive, root))


def _entry(archive: zipfile.ZipFile, root: str) -> zipfile.ZipInfo:
    return archive.getinfo(SAVED_MODEL if root == "." else f"{root}/{SAVED_MODEL}")


def _root(path: Path, names: set[str]) -> str:
    """The folder inside an archive in which the model lies: none, or one."""
    found = [str(PurePosixPath(name).parent) for name in names if PurePosixPath(name).name == SAVED_MODEL]
    if len(found) != 1:
        raise SourceError(f"{path.name} holds {len(found)} SavedModels; pack one")
    return found[0]


def _check_files(name: str, files: list[str]) -> None:
    for file in files:
        top, _, rest = file.partition("/")
        if file not in _FILES and not (top == "variables" and rest.startswith("variables.")):
            what = "tables or files that it reads when it runs" if top.startswith("assets") else "no part of a model"
            raise SourceError(f"{name} holds {file}: {what}; export the layers that compute alone")


def _check_graph(name: str, content: memoryview) -> None:
    metas = list(inside(content, *_META_GRAPHS))
    if len(metas) != 1:
        raise SourceError(f"{name} holds {len(metas)} graphs; save it with one set of tags")
    parts = {field.number for field in fields(metas[0])}
    if _OBJECTS not in parts:
        raise SourceError(f"{name} was saved by TensorFlow 1; load it and save it by tf.saved_model.save")
    if _ASSETS in parts:
        raise SourceError(f"{name} reads files of its own (assets), such as vocabularies; export the layers without")
    for graph in inside(metas[0], _GRAPH):
        _check_nodes(name, "", list(inside(graph, *_NODES)))
        for function in inside(graph, *_FUNCTIONS):
            called = " and ".join(texts(function, *_FUNCTION_NAME)) or "a function without a name"
            _check_nodes(name, called, list(inside(function, *_BODY)))
            if called.startswith(SAVERS):
                check_saver(name, function)


def _check_nodes(name: str, function: str, contents: list[memoryview]) -> None:
    """The checkpoint's own functions may save and restore; no other function may do so, or call them."""
    saver = function.startswith(SAVERS)
    nodes = {found.name: found for found in map(node_of, contents)}
    for content in contents:
        node = node_of(content)
        if node.op not in COMPUTE and node.op not in STATE and not (saver and node.op in SAVER):
            where = f" in {function}" if function else ""
            raise SourceError(
                f"{name} holds the operation {node.op}{where}, which does more than compute, or is not known to Lepta; "
                "export the layers that compute alone"
            )
        if any(called.startswith(SAVERS) for called in _called(content)):
            if function:
                raise SourceError(f"{name}: {function} would save or restore files; export the model again")
            check_caller(name, node, nodes)


def _called(node: memoryview) -> list[str]:
    """The functions that a node names."""
    values = list(inside(node, *_ATTRIBUTES))
    return [called for value in values for path in (_CALLED, _LISTED) for called in texts(value, *path)]
