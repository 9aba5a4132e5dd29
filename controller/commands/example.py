"""`lepta example`: real data and a model to start with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controller.commands import common
from controller.commands.layout import share

app = typer.Typer(help="Examples to start with.", no_args_is_help=True)

# What the controller makes, by role, and how the files are called here.
FILES = {"model": "digits.keras", "data": "digits.npz", "batch": "batch.npz", "seven": "seven.png"}


@app.command()
def digits(
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    epochs: Annotated[int, typer.Option(help="How long to train.", min=1, max=200)] = 10,
    seed: Annotated[int, typer.Option(help="Where the training starts.", min=0)] = 1,
) -> None:
    """Train a small CNN on scikit-learn's handwritten digits; writes model, data, a batch, a picture of a seven."""
    from controller.follow import follow_example

    folder = common.new_folder(out)
    screen = common.screen()
    with common.connect() as client, screen.progress() as progress:
        made = follow_example(client, client.start_example("digits", epochs=epochs, seed=seed), progress, "train")
        for role, name in FILES.items():
            client.get_file(made.files[role], folder / name)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in made.labels), encoding="utf-8")
    how = made.preprocessing
    if how is not None:
        common.write_json(folder / "preprocessing.json", {name: getattr(how, name) for name in how.__struct_fields__})
    screen.line(f"{folder}: {', '.join(FILES.values())}; test accuracy {share(made.accuracy)}")
    screen.note("next:")
    screen.note(
        f"  lepta deploy {folder}/digits.keras --data {folder}/digits.npz --labels {folder}/labels.txt "
        f"--preprocessing {folder}/preprocessing.json"
    )
    screen.note(f"  lepta infer digits {folder}/seven.png")
