"""What the optimizer gets for a run: its inputs as files whose names have the endings that it goes by, and run.json."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from controller import recipes, records
from controller.catalog import Catalog
from controller.settings import Limits


class RunInputs:
    """Lays out inputs below `folder`, one folder for each run; `cache` is where the optimizer remembers passes."""

    def __init__(self, folder: Path, catalog: Catalog, cache: Path, limits: Limits) -> None:
        self._folder = folder
        self._catalog = catalog
        self._cache = cache
        self._limits = limits

    def out(self, run_id: str) -> Path:
        """Where the optimizer writes what it made."""
        return self._folder / run_id / "out"

    def lay_out(self, run: records.Run, version: records.Version, acceptance: str | None) -> dict[str, Any]:
        """The content of run.json. `acceptance`: digest of the model's acceptance set, if it has one already."""
        inputs = self._folder / run.id / "in"
        inputs.mkdir(parents=True, exist_ok=True)
        source = self._link(version.source, inputs / "model" / Path(version.source_name).name)
        data = self._link(version.data, inputs / "data" / _data_name(version)) if version.data else None
        previous = self._link(acceptance, inputs / "acceptance.npz") if acceptance else None
        return {
            "model": run.model,
            "version": run.version,
            "source": str(source),
            "data": str(data) if data else None,
            "profiles": list(run.profiles),
            "strict": run.strict,
            "labels": list(version.labels),
            "preprocessing": msgspec.to_builtins(version.preprocessing),
            "previous_acceptance": str(previous) if previous else None,
            "seed": 0,
            "recipe": self._recipe(run, inputs / "recipe.toml"),
            "compare": run.compare,
            "trust": run.trust,
            "cache": str(self._cache),
            "cache_bytes": self._limits.optimizer_cache_bytes,
        }

    def _recipe(self, run: records.Run, path: Path) -> str:
        if not run.recipe or recipes.is_name(run.recipe):
            return run.recipe
        path.write_text(run.recipe, encoding="utf-8")
        return str(path)

    def _link(self, digest: str, path: Path) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        try:
            os.link(self._catalog.path(digest), path)
        except OSError:
            shutil.copyfile(self._catalog.path(digest), path)
        return path


def _data_name(version: records.Version) -> str:
    return Path(version.data_name).name or "data.npz"
