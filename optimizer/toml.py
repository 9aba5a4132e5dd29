"""TOML text from plain values: the standard library reads TOML and writes none."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(table: Mapping[str, Any]) -> str:
    """The table as TOML. What is None is left out: TOML has no word for it."""
    return "\n\n".join(_blocks(table, "")) + "\n"


def _blocks(table: Mapping[str, Any], path: str) -> list[str]:
    plain = {key: value for key, value in table.items() if value is not None and not isinstance(value, Mapping)}
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    if path and (lines or not inner):
        lines.insert(0, f"[{path}]")
    blocks = ["\n".join(lines)] if lines else []
    for key, value in inner.items():
        blocks += _blocks(value, f"{path}.{_key(key)}" if path else _key(key))
    return blocks


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return (
            f"{{ {', '.join(f'{_key(key)} = {_value(inner)}' for key, inner in value.items() if inner is not None)} }}"
        )
    return repr(value)


def _string(text: str) -> str:
    # JSON's escapes are TOML's too, but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
