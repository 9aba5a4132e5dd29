"""How Lepta starts its own child processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def command(module: str) -> list[str]:
    """Run `module.main()` in a fresh interpreter that never imports from the user's current folder.

    Not `python -m`: that puts the working directory first, where somebody's `agent.py` would shadow ours, and
    PYTHONSAFEPATH, which prevents it, is not known to Python 3.10.
    """
    safe_path = "import sys; sys.path[:] = [p for p in sys.path if p not in ('', '.')]"
    code = f"{safe_path}; from {module} import main; sys.exit(main())"
    return [sys.executable, "-c", code]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a child: ours, with numeric libraries kept to one thread each."""
    quiet = {"PYTHONSAFEPATH": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **quiet, **(extra or {})}
