"""The tree of commands, and how their errors become text and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Protocol, runtime_checkable

import typer

from controller import endings
from controller.commands import (
    answers,
    binding,
    client,
    deploy,
    device,
    example,
    infer,
    job,
    key,
    model,
    optimize,
    profile,
    pubsub,
    recipe,
    release,
    rollout,
    runs,
    top,
    up,
)
from controller.commands import demo as demo_command
from controller.errors import LeptaError
from firmware_profiles.profile import ProfileError

app = typer.Typer(
    name="lepta",
    help="Shrink models, ship them to a fleet of light agents, and run work there. `lepta demo` shows it all.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("demo", short_help="The whole flow on this machine, in two minutes.")(demo_command.demo)
app.command("up")(up.up)
app.command("deploy", short_help="Optimize a model for the fleet, roll it out, wait.")(deploy.deploy)
app.command("infer")(infer.infer)
app.command("trace", short_help="The way of a request, with the time of each step.")(infer.trace)
app.command("optimize", short_help="A model to int8 .tflite files, without a controller.")(optimize.optimize)
app.command("top", short_help="The devices live: load, models, rate, p95.")(top.top)
app.command("sub")(pubsub.sub)
app.command("pub")(pubsub.pub)
app.add_typer(model.app, name="model")
app.add_typer(runs.app, name="run")
app.add_typer(release.app, name="release")
app.add_typer(rollout.app, name="rollout")
app.add_typer(device.app, name="device")
app.add_typer(job.app, name="job")
app.add_typer(answers.app, name="answers")
app.add_typer(profile.app, name="profile")
app.add_typer(recipe.app, name="recipe")
app.add_typer(example.app, name="example")
app.add_typer(key.app, name="key")
app.add_typer(client.app, name="client")
app.add_typer(binding.app, name="binding")


@runtime_checkable
class _Usage(Protocol):
    """What typer raises for wrong usage, whichever click it carries."""

    exit_code: int

    def format_message(self) -> str: ...


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Options before any command."""


def run(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name; returns the exit code."""
    try:
        result = app(list(arguments), prog_name="lepta", standalone_mode=False)
    except LeptaError as error:
        return endings.fail(error.message, error.hint)
    except ProfileError as error:
        return endings.fail(str(error), "lepta profile ls")
    except (KeyboardInterrupt, typer.Abort):
        result = endings.INTERRUPTED
    except Exception as error:
        if not isinstance(error, _Usage):
            raise
        return _wrong_usage(error)
    if result == endings.INTERRUPTED:
        # Newer versions of typer turn Ctrl-C into this status by themselves.
        print("stopped", file=sys.stderr)
    return result if isinstance(result, int) else 0


def _wrong_usage(error: _Usage) -> int:
    text = error.format_message()
    if text.startswith("Usage:"):
        # A group without a command: its help is the answer.
        print(text, file=sys.stderr)
        return endings.USAGE
    context = getattr(error, "ctx", None)
    return endings.fail(text, f"{context.command_path if context else 'lepta'} --help", endings.USAGE)
