"""What a version asks of its devices beyond what it was built with: said where it is deployed, released or signed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from agent.contract.manifest import Manifest, Shadow, Target, Watch
from controller.errors import UserError
from firmware_profiles.allowed import describe, unknown_key

T = TypeVar("T", bound=msgspec.Struct)
_PARTS: dict[str, type[msgspec.Struct]] = {"target": Target, "watch": Watch, "shadow": Shadow}
_Version = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=40)]


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """None leaves what the manifest says; of `watch` and `runtime_minimum` only what is named counts in its place."""

    expires_at: Annotated[int, Meta(ge=0)] | None = None
    """Seconds since 1970; from then on nobody installs it anew."""
    target: Target | None = None
    runtime_minimum: dict[str, _Version] | None = None
    watch: Watch | None = None
    shadow: Shadow | None = None

    @property
    def given(self) -> bool:
        return self != NO_TERMS

    def applied(self, manifest: Manifest) -> Manifest:
        told = {field: value for field in self.__struct_fields__ if (value := getattr(self, field)) is not None}
        if self.watch is not None:
            told["watch"] = msgspec.structs.replace(manifest.watch, **_named(self.watch))
        if self.runtime_minimum is not None:
            told["runtime_minimum"] = {**manifest.runtime_minimum, **self.runtime_minimum}
        return msgspec.structs.replace(manifest, **told)


NO_TERMS = Terms()


def terms_of(manifest: Manifest) -> Terms:
    """Everything in it that whoever signs it may say."""
    return Terms(**{field: getattr(manifest, field) for field in Terms.__struct_fields__})


def read(raw: Mapping[str, Any], schema: type[T]) -> T:
    """Terms, or one part of them, from outside. Raises UserError naming the key and what is allowed."""
    parts = _PARTS if schema is Terms else {}
    named = [(part, each, raw[part]) for part, each in parts.items() if isinstance(raw.get(part), dict)]
    inner = (unknown_key(value, each, f"{part}.") for part, each, value in named)
    problem = next(filter(None, (unknown_key(raw, schema), *inner)), None)
    if problem is not None:
        raise UserError(problem)
    try:
        found = msgspec.convert(raw, schema)
    except msgspec.ValidationError as error:
        raise UserError(describe(error, schema)) from error
    shadow = found if isinstance(found, Shadow) else getattr(found, "shadow", None)
    if shadow is not None and shadow.bad >= shadow.good:
        raise UserError(f"shadow: bad ({shadow.bad}) must be less than good ({shadow.good})")
    return found


def from_pairs(pairs: Iterable[str], option: str, schema: type[T]) -> T | None:
    """A part of the terms as `KEY=VALUE` on a command line; None without any. Raises UserError."""
    raw = dict(_pair(pair, option) for pair in pairs)
    if not raw:
        return None
    try:
        return read({key: _number(value) for key, value in raw.items()}, schema)
    except UserError as error:
        raise UserError(f"--{option}: {error.message}") from error


def from_options(
    *,
    expires_at: int | None,
    devices: Sequence[str],
    groups: Sequence[str],
    runtimes: Sequence[str],
    watch: Sequence[str],
    shadow: Sequence[str],
) -> Terms:
    """What the commands' options say. Raises UserError."""
    for group in groups:
        if not group.partition("=")[1]:
            raise UserError(f"{group!r} is no group", "KEY=VALUE, as `lepta device label` sets them")
    told = Terms(
        expires_at=expires_at,
        target=Target(tuple(devices), tuple(groups)) if devices or groups else None,
        runtime_minimum=dict(_pair(each, "runtime") for each in runtimes) or None,
        watch=from_pairs(watch, "watch", Watch),
        shadow=from_pairs(shadow, "shadow", Shadow),
    )
    return read(plain(told), Terms)


def plain(terms: msgspec.Struct | None) -> dict[str, Any]:
    """As JSON would have it, without what was not said."""
    if terms is None:
        return {}
    return {key: value for key, value in msgspec.to_builtins(terms).items() if value is not None}


def _named(watch: Watch) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(watch).items() if value is not None}


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--{option} {text!r}: NAME=VALUE is expected")
    return key, value


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
