"""The subcommands that manage the installed service. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any


def add_parsers(commands: argparse._SubParsersAction[Any]) -> None:
    """Register them; each parser sets `handler` ("module:function"), which is imported when it is chosen."""
