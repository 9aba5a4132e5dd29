"""A float .tflite, read as bytes: what it is, before an interpreter sees it."""

from __future__ import annotations

from pathlib import Path

from optimizer.settings import LIMITS
from optimizer.sources.specs import SourceError, first_line


def check_tflite(path: Path) -> None:
    """Refuse what is too large, damaged, quantized, or made of operators that no device of ours has."""
    size = path.stat().st_size
    if size > LIMITS.source_bytes:
        raise SourceError(f"{path.name} has {size} bytes; at most {LIMITS.source_bytes} are taken")
    check_content(path.name, path.read_bytes())


def check_content(name: str, content: bytes) -> None:
    # numpy and the schema: not needed by those who bring another kind.
    from optimizer.flatfile import Flatfile, FlatfileError, is_quantized

    try:
        file = Flatfile(content)
        operators = list(file.operators())
        quantized = sorted({op.name for op in operators if any(is_quantized(file.tensor(at)) for at in op.outputs)})
        dynamic = any(is_quantized(tensor) for tensor in file.graph.tensors)
        custom = sorted({op.name for op in operators if file.is_custom(op)})
    except FlatfileError as error:
        raise SourceError(f"{name} cannot be used: {error}") from error
    except Exception as error:  # a damaged flatbuffer fails anywhere
        raise SourceError(f"{name} is damaged: {first_line(error)}; convert the model again") from error
    if custom:
        raise SourceError(f"{name} needs {', '.join(custom)}, which no device has; convert it with builtin operators")
    if quantized or dynamic:
        where = f" ({', '.join(quantized[:3])})" if quantized else " (its weights)"
        raise SourceError(f"{name} is already quantized{where}; give the float model that it was made from")
    if not operators:
        raise SourceError(f"{name} holds no operators: there is nothing to compute")
