"""`lepta optimize`: a run of the optimizer without a controller."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from controller import recipes
from controller.commands import common
from controller.commands.made import artifacts_of, show_artifacts
from controller.commands.screen import Progress, Screen
from controller.errors import UserError
from controller.progress import detail_of, step_of

# What `lepta optimize` and `lepta deploy` have in common.
Model = Annotated[Path, typer.Argument(help="A .keras, SavedModel (folder or .zip), .tflite, .h5, .pt2 or .onnx.")]
Data = Annotated[Path, typer.Option(help="An .npz (train/, calibration/, validation/, test/), a folder, or a .npy.")]
RecipeOption = Annotated[str | None, typer.Option("--recipe", help="A builtin name, or a .toml file.")]
Compare = Annotated[
    bool | None,
    typer.Option("--compare/--no-compare", help="Compare with other ways, which costs time; default: the recipe's."),
]
Trust = Annotated[bool, typer.Option("--trust", help="Let the model's file run code when it is loaded (.h5).")]


def optimize(
    model: Model,
    data: Data,
    profile: Annotated[list[str], typer.Option(help="Device class: a builtin name or a .toml file; repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder for the artifacts and the report.")],
    name: Annotated[str | None, typer.Option(help="The model's name; default: the file's.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Gate on the 95 % bound of the accuracy loss.")] = False,
    labels: Annotated[str | None, typer.Option(help="Names of the classes: a,b,c or a file.")] = None,
    preprocessing: Annotated[Path | None, typer.Option(help="How pictures become input, JSON.")] = None,
    recipe: RecipeOption = None,
    compare: Compare = None,
    trust: Trust = False,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that remembers passes; default: your cache folder.")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Do every pass anew and remember nothing.")] = False,
) -> int:
    """Turn MODEL into a gated int8 .tflite per profile, without a controller; `lepta model push` brings it to one."""
    recipes.from_option(recipe)
    needs_optimizer()
    from controller.optimizer_client import optimize_folder

    screen = common.screen()
    with screen.progress() as progress:
        report = optimize_folder(
            model,
            data,
            profile,
            out,
            strict,
            lambda event: show_event(progress, event),
            name=name or common.model_name(model),
            labels=common.labels_of(labels),
            preprocessing=common.as_mapping(common.preprocessing_of(preprocessing)),
            recipe=_recipe_path(recipe),
            compare=compare,
            trust=trust,
            cache=None if no_cache else (cache or cache_folder()).resolve(),
        )
    return show_report(screen, report, out)


def needs_optimizer() -> None:
    """Raise UserError where the optimizer's libraries are missing, before anything was started."""
    import importlib.util

    from controller.endings import EXTRAS, install_line

    missing = [name for name in EXTRAS["optimizer"].split() if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"this command needs the extra 'optimizer', which is not installed ({', '.join(missing)} missing)",
            install_line("optimizer"),
        )


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where passes are remembered: below $XDG_CACHE_HOME, else ~/.cache."""
    given = environment.get("XDG_CACHE_HOME", "")
    # A relative one is to be ignored, says the XDG specification.
    return (Path(given) if given.startswith("/") else Path.home() / ".cache") / "lepta" / "optimizer"


def show_event(progress: Progress, event: Mapping[str, Any]) -> None:
    """Show a progress event of the optimizer."""
    step = step_of(str(event.get("step") or "optimize"), str(event.get("profile") or ""))
    progress.update(step, event.get("fraction"), detail_of(str(event.get("detail") or ""), event.get("left_s")))


def show_report(screen: Screen, report: Mapping[str, Any], out: Path) -> int:
    """Show what the optimizer made. Raises UserError where no artifact passed its gate."""
    artifacts, rejected = artifacts_of(report), report.get("rejected") or []
    show_artifacts(screen, artifacts)
    for entry in rejected:
        screen.line(f"  {entry['profile']}: rejected: {'; '.join(entry['reasons'])}")
    page = out / "report.html"
    if not artifacts:
        told = page if page.is_file() else out / "report.json"
        raise UserError("no artifact passed its gate", f"the reasons stand above and in {told}")
    screen.line()
    screen.line(f"  {out}: report.json and {len(artifacts)} artifact{'s' if len(artifacts) > 1 else ''}")
    if page.is_file():
        screen.line(f"  {page}: every figure, what was tried, and how it compares")
    screen.note(f"  next: lepta model push {out}")
    return 0


def _recipe_path(recipe: str | None) -> str:
    return str(Path(recipe).resolve()) if recipe and recipe.endswith(".toml") else recipe or ""
