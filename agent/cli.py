"""`lepta-agent`: the edge agent. Imports nothing heavy before it knows that it is needed."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from agent import VERSION
from agent.service.arguments import add_parsers

OK, USAGE, DATA, UNREACHABLE, REFUSED = 0, 2, 3, 4, 5
_EPILOG = (
    "Exit status: 0 stopped as asked, 2 wrong usage or configuration, 3 data folder, 4 controller unreachable, "
    "5 enrolment refused."
)


class CliError(Exception):
    """One line for people, and the exit status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand: its parser names the function that takes the options and returns the exit status."""
    options = _parser().parse_args(arguments)
    module, _, function = options.handler.partition(":")
    try:
        status: int = getattr(importlib.import_module(module), function)(options)
    except CliError as error:
        print(f"lepta-agent: {error}", file=sys.stderr)
        return error.status
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lepta-agent", description="Lepta's edge agent.", epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"lepta-agent {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="join a controller and serve its models", epilog=_EPILOG)
    run.add_argument("--controller", metavar="URL", help="needed for the first start only")
    run.add_argument("--token-file", type=Path, metavar="FILE", help="holds the claim token for the first start")
    run.add_argument("--name", help="the device's name; without it the controller gives one")
    run.set_defaults(handler="agent.start:run")
    facts = commands.add_parser("facts", help="show what this device is and which profiles fit it")
    facts.set_defaults(handler="agent.start:show_facts")
    for command in (run, facts):
        command.add_argument("--config", type=Path, metavar="agent.toml")
        command.add_argument("--data", type=Path, metavar="DIR", help="where the agent keeps its data")
        command.add_argument("--runtime", choices=["ai-edge-litert", "tflite-runtime"], help="only this one")
    add_parsers(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
