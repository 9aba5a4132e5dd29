"""PURE: the text of a new `agent.toml`."""

from __future__ import annotations

import json
from typing import NamedTuple


class Fleet(NamedTuple):
    """What a machine needs to join by itself at its first start. Empty where it has joined, or is joined by hand."""

    controller: str = ""
    token_file: str = ""
    ca_fingerprint: str = ""

    @property
    def complete(self) -> bool:
        return bool(self.controller and self.token_file)


def config_text(fleet: Fleet, log_file: str = "") -> str:
    """Only what differs from the defaults. `log_file`: where no service manager collects what the agent says."""
    told = {**fleet._asdict(), "log_file": log_file}
    lines = [f"{key} = {_string(value)}" for key, value in told.items() if value]
    return "\n".join([*_HEAD, *lines]) + "\n"


_HEAD = [
    "# Lepta's edge agent. It holds no secret, so everybody may read it.",
    "# Other keys: name, runtime, fetch, log_level, and the tables facts, labels, limits.",
]


def _string(value: str) -> str:
    """A TOML basic string; JSON's escapes are a part of TOML's."""
    return json.dumps(value, ensure_ascii=True)
