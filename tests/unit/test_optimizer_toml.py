"""What is written as TOML is read back as it was."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import tomllib
from hypothesis import given
from hypothesis import strategies as st

from firmware_profiles.profile import builtin as profiles
from firmware_profiles.profile import find as find_profile
from optimizer.recipe import builtin, find, parse
from optimizer.toml import to_toml

plain = st.one_of(st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), st.text())
values: st.SearchStrategy[Any] = st.one_of(
    plain, st.lists(plain, max_size=3), st.lists(st.dictionaries(st.text(), plain), max_size=2)
)
tables = st.recursive(
    st.dictionaries(st.text(), values, max_size=4),
    lambda inner: st.dictionaries(st.text(), st.one_of(values, inner), max_size=4),
)


@given(tables)
def test_any_table_is_read_back_as_it_was(table: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(table)) == table


@pytest.mark.parametrize("name", builtin())
def test_every_recipe_is_read_back_as_it_was(name: str) -> None:
    recipe = find(name)
    assert parse(to_toml(msgspec.to_builtins(recipe)), "again") == recipe


def test_every_profile_is_read_back_as_it_was() -> None:
    for profile in map(find_profile, profiles()):
        table = tomllib.loads(to_toml(msgspec.to_builtins(profile)))
        assert msgspec.convert(table, type(profile)) == profile


def test_what_is_none_is_left_out() -> None:
    assert to_toml({"a": None, "b": {"c": None, "d": 1}}) == "[b]\nd = 1\n"
