"""`lepta recipe`: what a run does, pass by pass. Needs no controller."""

from __future__ import annotations

from typing import Annotated

import typer

from controller.commands import common

app = typer.Typer(help="Recipes: which passes a run takes.", no_args_is_help=True)


@app.command("ls")
def list_recipes() -> None:
    """The recipes that come with Lepta."""
    import tomllib

    from controller import recipes

    rows = [(name, str(tomllib.loads(recipes.text_of(name)).get("description", ""))) for name in recipes.names()]
    common.screen().table(("recipe", "what it does"), rows)


@app.command()
def show(name: Annotated[str, typer.Argument(help="A builtin recipe's name.")]) -> None:
    """A recipe as TOML: to read, or to begin one of your own with."""
    from controller import recipes

    typer.echo(recipes.text_of(name), nl=False)
