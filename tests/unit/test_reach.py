"""--base-install leaves out exactly the test files that need more than the agent's own libraries."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reach import beyond_the_base_install


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    return tmp_path


def _write(root: Path, name: str, text: str) -> Path:
    path = root / "tests" / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "beyond"),
    [
        ("import agent.worker\nimport numpy", False),
        ("from agent.contract import topics", False),
        ("import controller.store", True),
        ("from optimizer import pipeline", True),
        ("def f():\n    import tensorflow as tf\n", True),
        ("from httpx import Client", True),
        ("command = ['-c', 'from controller.cli import main']", True),
        ("text = 'the controller. It waits'", False),
    ],
)
def test_a_file_is_judged_by_its_own_imports(root: Path, text: str, beyond: bool) -> None:
    assert beyond_the_base_install(_write(root, "test_a.py", text), root) is beyond


@pytest.mark.parametrize("line", ["import tests.helper", "from tests import helper", "from tests.helper import start"])
def test_a_file_is_judged_by_what_its_helpers_import(root: Path, line: str) -> None:
    _write(root, "helper.py", "import tests.deeper")
    _write(root, "deeper.py", "import fastapi\nimport tests.helper")
    assert beyond_the_base_install(_write(root, "test_a.py", line), root)


def test_helpers_that_import_each_other_do_no_harm(root: Path) -> None:
    _write(root, "helper.py", "import tests.deeper")
    _write(root, "deeper.py", "import tests.helper")
    assert not beyond_the_base_install(_write(root, "test_a.py", "import tests.helper"), root)
