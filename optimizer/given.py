"""What a Python program gives to `optimize`, turned into files that a run can be told about."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent.contract.manifest import Preprocessing as Preprocessing
from firmware_profiles.profile import Profile
from optimizer.errors import RefusedError
from optimizer.recipe import Recipe, find, parse, plain
from optimizer.toml import to_toml

DEFAULT = "default"


def model_file(model: Any, folder: Path) -> Path:
    """A path as it is; a Keras 3 model is saved into `folder`, without its optimizer's state."""
    if isinstance(model, str | os.PathLike):
        return Path(model).expanduser().absolute()
    origins = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    if "tf_keras" in origins:
        raise RefusedError("a model of Keras 2 (tf_keras); save it as a SavedModel and give the folder's path")
    if "keras" not in origins or not hasattr(model, "save"):
        raise RefusedError(f"model is {_kind(model)}; give the path of a model, or a model of Keras 3")
    path = folder / "model.keras"
    try:
        model.save(path, include_optimizer=False)
    except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
        raise RefusedError(f"the model cannot be saved: {error}") from error
    return path


def data_file(data: Any, folder: Path) -> Path:
    """A path as it is; arrays become an `.npz` file in `folder`, in the names that optimizer/dataset knows."""
    if isinstance(data, str | os.PathLike):
        return Path(data).expanduser().absolute()
    if isinstance(data, Mapping):
        arrays = {_name(name): value for name, value in data.items()}
    elif isinstance(data, tuple):
        if len(data) != 2:
            raise RefusedError(f"data is a tuple of {len(data)}; give (x, labels), x alone, or a mapping of arrays")
        arrays = {"x": data[0], "labels": data[1]}
    else:
        arrays = {"x": data}
    if not arrays:
        raise RefusedError("data holds no arrays")
    return _write(folder / "data.npz", arrays)


def recipe_name(recipe: str | os.PathLike[str] | Recipe, folder: Path) -> str:
    """What a run calls the recipe: "" for the default one, a name, or the path of a file, made here for text."""
    if isinstance(recipe, Recipe):
        return _text(to_toml(plain(recipe)), folder / "recipe.toml")
    if isinstance(recipe, os.PathLike):
        return str(Path(recipe).absolute())
    if not isinstance(recipe, str):
        raise RefusedError(f"recipe is {_kind(recipe)}; give a name, a path, TOML text or a Recipe")
    if recipe == DEFAULT:
        # As far as the source can follow it: a .tflite file is quantized, and not pruned.
        return ""
    if "\n" in recipe or "=" in recipe or not recipe.strip():
        parse(recipe, "recipe")
        return _text(recipe, folder / "recipe.toml")
    if recipe.endswith(".toml"):
        return str(Path(recipe).absolute())
    find(recipe)
    return recipe


def profile_names(
    profiles: str | os.PathLike[str] | Profile | Sequence[str | os.PathLike[str] | Profile], folder: Path
) -> list[str]:
    """Names, or paths of files, made here for Profile objects. One alone may be given as it is."""
    if isinstance(profiles, str | os.PathLike | Profile):
        profiles = [profiles]
    names = []
    for profile in profiles:
        if isinstance(profile, Profile):
            names.append(_text(to_toml(plain(profile)), folder / f"{profile.name}.toml"))
        elif isinstance(profile, str):
            names.append(str(Path(profile).absolute()) if profile.endswith(".toml") else profile)
        elif isinstance(profile, os.PathLike):
            names.append(str(Path(profile).absolute()))
        else:
            raise RefusedError(f"a profile is {_kind(profile)}; give names, paths or Profile objects")
    return names


def preprocessing_of(given: Preprocessing | Mapping[str, Any] | None) -> dict[str, Any] | None:
    if given is None:
        return None
    built: dict[str, Any] = plain(given) if isinstance(given, Preprocessing) else dict(given)
    unknown = sorted(set(built) - set(Preprocessing.__struct_fields__))
    if unknown:
        raise RefusedError(
            f"preprocessing: unknown {unknown[0]!r}; known: {', '.join(Preprocessing.__struct_fields__)}"
        )
    try:
        msgspec.convert(built, Preprocessing)
    except msgspec.ValidationError as error:
        raise RefusedError(f"preprocessing: {error}") from error
    return built


def _write(path: Path, arrays: Mapping[str, Any]) -> Path:
    """Not numpy.savez: it takes names as keywords, and would pickle what is no array of numbers."""
    import numpy as np

    try:
        with zipfile.ZipFile(path, "w") as archive:
            for name, value in arrays.items():
                array = np.asarray(value)
                if array.dtype.kind not in "fiub" or array.ndim == 0:
                    raise RefusedError(f"data: {name} is {_kind(value)} of dtype {array.dtype}; give arrays of numbers")
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
    except ValueError as error:
        raise RefusedError(f"data: {name} is no array of numbers: {error}") from error
    return path


def _name(name: object) -> str:
    if not isinstance(name, str) or not name or name.startswith(("/", ".")) or "\\" in name or ".." in name:
        raise RefusedError(f"data: {name!r} is no name of an array; names are such as train/x, train/labels")
    return name


def _text(text: str, path: Path) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
