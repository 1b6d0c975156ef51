"""The house: imports point down, and a model family is one folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from tritone.models.registry import FAMILIES

ROOT = Path(__file__).parents[1]


def test_imports_point_down_and_run_in_no_circle():
    # In a process of its own: import-linter disables the loggers of the one that it runs in.
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    done = subprocess.run(
        [*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_top_of_models_is_the_shared_rooms_and_a_folder_for_each_family():
    entries = {
        path.name for path in (ROOT / "models").iterdir() if not path.name.startswith(("__pycache__", "."))
    }
    shared = {"__init__.py", "auto.py", "family.py", "registry.py"}
    shared |= {"checkpoints", "core", "processors", "tokenizers", "digits", "digit_classifier"}
    assert entries == shared | {family.folder for family in FAMILIES}


@pytest.mark.parametrize("folder", ["engine", "kernels", "models", "scheduler", "tritone"])
def test_a_file_has_460_lines_at_most(folder):
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).glob("**/*.py")
    }
    assert {str(path): length for path, length in lengths.items() if length > 460} == {}
