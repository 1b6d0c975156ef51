"""House rules of prose that a machine can hold: how docstrings open, and words that have been replaced."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ("engine", "kernels", "models", "scheduler", "tritone")
FILES = sorted(
    path
    for folder in (*LIBRARY, "bench", "examples", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if "tritone" not in path.relative_to(ROOT).parts[:1] or len(path.relative_to(ROOT).parts) == 2
)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPENINGS = re.compile(r"(What|How|Who|Whose|Whom|See|Whether|Which|Where)\b")
# Replaced words: in names, docstrings and comments of the library.
OLD_WORDS = re.compile(
    r"\b(crew|portions?|one[-_ ]shot|Arriving|OneShot\w*|PositionRows|TextDecoder|prepacked"
    r"|paged_(rows|splits)|window_product|waveform_filter|folded_transform|leaders)\b|\b_?MOST_[A-Z]|\b_?LONGEST\b|\b_?LOUDEST\b",
)
BRITISH = re.compile(
    r"\b\w*(normalis|initialis|optimis|specialis|recognis|neighbour|behaviour|colour)\w*", re.IGNORECASE
)


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and text of a file's docstrings."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield getattr(node, "lineno", 1), text


@pytest.mark.parametrize("folder", [*LIBRARY, "bench", "examples", "tests"])
def test_docstrings_open_with_a_noun_or_an_imperative(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in FILES
        if path.relative_to(ROOT).parts[0] == folder
        for line, text in docstrings(path)
        if OPENINGS.match(text)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("pattern", [OLD_WORDS, BRITISH], ids=["replaced", "british"])
def test_replaced_words_are_gone(pattern: re.Pattern[str]) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {found[0]}"
        for path in [*FILES, *PAGES]
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := pattern.search(line))
    ]
    assert not wrong, "\n".join(wrong)
