"""The subcommands that manage the installed service. Imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parsers(commands: argparse._SubParsersAction[Any]) -> None:
    """Register them; each parser sets `handler` ("module:function"), which is imported when it is chosen."""
    made = {
        name: commands.add_parser(name, help=text)
        for name, text in (
            ("install", "install the agent as a service that starts with the machine"),
            ("uninstall", "stop and remove the service; data and configuration stay"),
            ("status", "who this agent is, whether it runs and is connected, and what it serves"),
            ("logs", "what the agent said"),
            ("doctor", "check everything that can be wrong, and say what to do"),
            ("wipe", "remove everything that the agent left on this machine, its identity too"),
        )
    }
    for name, parser in made.items():
        parser.set_defaults(handler=f"agent.service.{name}:run")
        parser.add_argument("--user", action="store_true", help="the service of this user, not of the machine")
        parser.add_argument("--data", type=Path, metavar="DIR", help="where the agent keeps its data")
        parser.add_argument("--config", type=Path, metavar="agent.toml")
    for name in ("install", "uninstall", "wipe"):
        made[name].add_argument("--root", type=Path, metavar="DIR", help="work on the image of a system below DIR")
    _install(made["install"])
    made["logs"].add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    made["logs"].add_argument("-n", "--lines", type=int, default=50, metavar="N", help="the newest N lines (50)")
    made["wipe"].add_argument("--yes", action="store_true", help="do not ask")


def _install(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-start", action="store_true", help="install it, start it with the machine's next start")
    parser.add_argument(
        "--device", action="append", default=[], metavar="/dev/NODE[:GROUP]", help="let the models use this device"
    )
    parser.add_argument(
        "--memory-mb", type=int, default=0, metavar="N", help="most memory of the agent and its workers"
    )
    fleet = parser.add_argument_group("images", "for machines that join by themselves at their first start")
    fleet.add_argument("--controller", metavar="URL")
    fleet.add_argument("--token-file", type=Path, metavar="FILE", help="holds the fleet's claim token; it is copied")
    fleet.add_argument("--ca-fingerprint", metavar="HEX", help="of the controller's CA")
    fleet.add_argument(
        "--program", metavar="FILE", help="where lepta-agent lies in the image; without it, where it lies here"
    )
