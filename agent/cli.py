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
    join = commands.add_parser("join", help="join a controller, as `lepta device add` there says", epilog=_EPILOG)
    join.add_argument("url", metavar="URL", help="of the controller")
    token = join.add_mutually_exclusive_group()
    token.add_argument("--token", metavar="T", help="the claim token; `-` reads it from standard input, unseen by `ps`")
    next_ = join.add_mutually_exclusive_group()
    next_.add_argument("--run", action="store_true", help="and run the agent")
    next_.add_argument("--install", action="store_true", help="and install it as a service of the system")
    join.set_defaults(handler="agent.joining:run")
    run = commands.add_parser("run", help="serve a controller's models; join it first if need be", epilog=_EPILOG)
    run.add_argument("--controller", metavar="URL", help="needed for the first start only")
    run.add_argument("--serve", metavar="HOST:PORT", help="answer programs on this device by HTTP, at 127.0.0.1:8001")
    run.set_defaults(handler="agent.start:run")
    for command, place in ((join, token), (run, run)):
        place.add_argument("--token-file", type=Path, metavar="FILE", help="holds the claim token")
        command.add_argument("--ca-fingerprint", metavar="HEX", help="of the controller's CA: how it is recognized")
        command.add_argument("--name", help="the device's name; without it one is made from the hardware's id")
        command.add_argument("--insecure", action="store_true", help="join another machine over http://, without TLS")
    facts = commands.add_parser("facts", help="show what this device is and which profiles fit it")
    facts.set_defaults(handler="agent.start:show_facts")
    renew = commands.add_parser("renew")  # Without help it is not listed: the agent itself runs it.
    renew.set_defaults(handler="agent.renewal:run")
    for command in (join, run, facts, renew):
        command.add_argument("--config", type=Path, metavar="agent.toml")
        command.add_argument("--data", type=Path, metavar="DIR", help="where the agent keeps its data")
        command.add_argument("--runtime", choices=["ai-edge-litert", "tflite-runtime"], help="only this one")
    add_parsers(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
