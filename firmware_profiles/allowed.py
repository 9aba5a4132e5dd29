"""What a key of a configuration file may hold, said in words: for errors that name the key and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect


def unknown_key(raw: Mapping[str, Any], schema: type[msgspec.Struct], above: str = "") -> str | None:
    """The first key of `raw` that `schema` does not have, as a sentence; None if it has them all."""
    fields = {field.encode_name: field.type for field in _fields(inspect.type_info(schema))}
    for key, value in raw.items():
        if key not in fields:
            return f"unknown key {above}{key}; allowed here: {', '.join(fields)}"
        inner = fields[key]
        if isinstance(inner, inspect.StructType) and isinstance(value, Mapping):
            problem = unknown_key(value, inner.cls, f"{above}{key}.")
            if problem is not None:
                return problem
    return None


def describe(error: msgspec.ValidationError, schema: type[msgspec.Struct]) -> str:
    """A validation error as a sentence that names the key and what is allowed there."""
    what, _, where = str(error).partition(" - at `$")
    missing = re.search("missing required field `([^`]+)`", what)
    keys = re.findall(r"\.?([A-Za-z_]+)", where)
    if missing:
        keys.append(missing.group(1))
    if not keys:
        return what
    allowed = _in_words(_type_at(keys, inspect.type_info(schema)))
    return f"key {'.'.join(keys)}: {what}; allowed: {allowed}"


def _type_at(keys: list[str], found: inspect.Type) -> inspect.Type:
    """The type of a key; of the innermost table on the way to it that has named keys."""
    for key in keys:
        found = next((field.type for field in _fields(found) if field.encode_name == key), found)
    return found


def _fields(found: inspect.Type) -> tuple[inspect.Field, ...]:
    """The keys of a table, also of one that may be left out."""
    if isinstance(found, inspect.UnionType):
        return tuple(field for inner in found.types for field in _fields(inner))
    return found.fields if isinstance(found, inspect.StructType) else ()


def _in_words(allowed: inspect.Type) -> str:
    """What a value of this type looks like."""
    match allowed:
        case inspect.LiteralType():
            words = " | ".join(repr(value) for value in allowed.values)
        case inspect.VarTupleType():
            at_least = f"at least {allowed.min_length} of " if allowed.min_length else ""
            words = f"a list of {at_least}{_in_words(allowed.item_type)}"
        case inspect.BoolType():
            words = "true | false"
        case inspect.IntType():
            words = "a whole number" + _bounds(allowed.ge, allowed.le)
        case inspect.FloatType():
            words = "a number" + _bounds(allowed.ge, allowed.le)
        case inspect.StrType():
            words = f"text that matches {allowed.pattern}" if allowed.pattern else "text"
        case inspect.StructType():
            words = f"a table with {', '.join(field.encode_name for field in allowed.fields)}"
        case _:
            words = "a value of another kind"
    return words


def _bounds(low: float | None, high: float | None) -> str:
    parts = [f"{sign} {bound:g}" for sign, bound in ((">=", low), ("<=", high)) if bound is not None]
    return (" " + " and ".join(parts)) if parts else ""
