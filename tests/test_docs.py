"""Every snippet of the README and the docs runs as written, from the repository root."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n)?```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(page: Path, language: str) -> list[str]:
    """The snippets of a page in one language, without those marked as not run."""
    return [code for skip, kind, code in BLOCK.findall(page.read_text()) if kind == language and not skip]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if snippets(page, "python")], ids=lambda page: page.name
)
def test_the_python_of_a_page_runs(page: Path) -> None:
    code = "\n".join(snippets(page, "python"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{page.name}:\n{done.stderr}"


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page, "sh")], ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for block in snippets(page, "sh"):
        # Tritone is installed already, so start behind `pip install`; an extra's command is left out.
        command = block.strip().removeprefix("pip install -e . && ")
        if command.startswith("pip install"):
            continue
        command = command.replace("/tmp/", f"{tmp_path}/")  # or an earlier run's file would be continued
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=ROOT,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{page.name}: {command}\n{done.stderr}"
