"""A .pt2 file of torch.export: plain JSON and raw numbers, if nothing in it is pickled.

torch.export.load unpickles, by the file's own word: weights and constants whose entry says `use_pickle`, whole
legacy dictionaries, custom objects, and sample inputs (these with `weights_only`, and with anything if that fails).
Sample inputs are never read: a copy without them is loaded.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from optimizer.settings import LIMITS
from optimizer.sources.archive import check_bounds, check_whole, opened
from optimizer.sources.specs import SourceError

_PLAIN = {"archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id"}
_CONFIGS = {"data/weights/model_weights_config.json", "data/constants/model_constants_config.json"}
_RAW = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_MODEL = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"
# Sizes are expressions that torch evaluates as Python: symbols, numbers and these functions alone.
_EXPRESSION = re.compile(r"[\w\s+\-*/(),<>=]{0,500}")
_NAME = re.compile(r"[A-Za-z_]\w*")
_SYMBOL = re.compile(r"(s|u|zuf|zf)\d+")
_FUNCTIONS = {
    "FloorDiv",
    "CeilDiv",
    "CleanDiv",
    "Mod",
    "PythonMod",
    "ModularIndexing",
    "Max",
    "Min",
    "Where",
    "Identity",
}
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|higher_order)\.(?!from_file)\w+(\.\w+)?|math\.\w+|torch\.sym_\w+"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|pos|and_|or_|lt|le|gt|ge|eq|ne)"
)
HINT = "save it again by torch.export.save with plain tensors, or, if you made it yourself, add --trust"


def check_torch(path: Path, trust: bool) -> None:
    """Refuse what could run code while it is loaded. With `trust` only bounds and wholeness are checked."""
    with opened(path) as archive:
        names = check_bounds(path, archive)
        check_whole(path, archive)
        if trust:
            return
        root = PurePosixPath(next(iter(sorted(names)))).parts[0]
        inner = {name.removeprefix(f"{root}/") for name in names}
        strange = sorted(
            name for name in inner - _PLAIN - _CONFIGS - {_MODEL, SAMPLES} if not _RAW.fullmatch(name) or name in names
        )
        if strange:
            raise SourceError(f"{path.name} holds {strange[0]}, which may be unpickled when it is loaded; {HINT}")
        for config in sorted(_CONFIGS & inner):
            for entry in _json(path, archive, f"{root}/{config}").get("config", {}).values():
                _check_payload(path, entry)
        _check_program(path, _json(path, archive, f"{root}/{_MODEL}"))


def _check_payload(path: Path, entry: Any) -> None:
    plain = isinstance(entry, dict) and entry.get("use_pickle") is False
    if not plain or not re.fullmatch(r"(weight|tensor)_\d+", str(entry.get("path_name"))):
        raise SourceError(f"{path.name} holds a pickled weight or object, which runs code when it is loaded; {HINT}")


def _check_program(path: Path, program: Any) -> None:
    for key, value in _texts(program, 0):
        if key in ("target", "as_operator") and not _TARGET.fullmatch(value):
            raise SourceError(f"{path.name} calls {value[:80]}, which is none of PyTorch's own operators; {HINT}")
        if key == "expr_str" and not _is_size(value):
            raise SourceError(f"{path.name} has a size that is an expression of its own: {value[:80]!r}; {HINT}")


def _is_size(value: str) -> bool:
    names = _NAME.findall(value)
    return bool(_EXPRESSION.fullmatch(value)) and all(_SYMBOL.fullmatch(n) or n in _FUNCTIONS for n in names)


def _texts(value: Any, depth: int) -> Iterator[tuple[str, str]]:
    """Every text with the key that it stands under."""
    if depth > LIMITS.config_depth:
        raise SourceError(f"the program is nested more than {LIMITS.config_depth} deep")
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str):
                yield key, inner
            else:
                yield from _texts(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, depth + 1)


def _json(path: Path, archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    try:
        if archive.getinfo(name).file_size > LIMITS.config_bytes:
            raise SourceError(f"{path.name} has a {name} of more than {LIMITS.config_bytes} bytes")
        found = json.loads(archive.read(name))
    except KeyError as error:
        raise SourceError(f"{path.name} has no {name}: it is not of the PyTorch that Lepta knows; {HINT}") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path.name}: {name} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise SourceError(f"{path.name}: {name} is not a JSON object")
    return found
