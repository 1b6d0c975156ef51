"""Inputs of a command: recordings and texts that arguments and standard input name."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .outputs.lines import Name
from .terminal import note, refuse

# Bytes of a line of standard input. Escaped, a longer text would not fit a line of results.
MAX_INPUT_LINE = 1 << 19


class Item(NamedTuple):
    """One recording or text that a command processes."""

    name: Name  # name in the results
    source: Any  # input that the engine takes
    problem: Exception | None  # error found before the engine receives it


def find_recordings(paths: Sequence[str]) -> list[Item]:
    """Items for the recordings that arguments name, each once; a bad argument is an item with an error."""
    from ..audio.finder import AudioSearch

    if "" in paths:
        refuse("an empty PATH (''); name a recording or folder, . for the current folder")
    search = AudioSearch()
    recordings: dict[Path, Exception | None] = {}
    for given in paths:
        if given == "-":
            recordings |= dict.fromkeys(_listed_paths())
        else:
            recordings |= search.find(given)
    return [Item(path, path, problem) for path, problem in recordings.items()]


def find_texts(texts: Sequence[str], pairs: bool) -> list[Item]:
    """Items for texts from arguments and standard input; with `pairs` each text is split at its tab."""
    found: list[str] = []
    for given in texts:
        if given == "-":
            lines = (line.removesuffix(b"\r") for line in _stdin_lines() if line.strip())
            found += [line.decode("utf-8", "surrogateescape") for line in lines]
        else:
            found.append(given)
    if not pairs:
        return [Item(text, text, None) for text in found]
    return [Item(text, tuple(text.split("\t")), _pair_problem(text)) for text in found]


def is_several(paths: Sequence[str]) -> bool:
    """Check whether arguments may name several recordings, so that each result needs its path."""
    return len(paths) > 1 or not os.path.isfile(paths[0])


def _pair_problem(text: str) -> Exception | None:
    count = text.count("\t")
    if count == 1:
        return None
    return ValueError(f"{text!r:.40}: with --pairs two texts have one tab between them, here are {count}")


def _listed_paths() -> Iterator[Path]:
    for line in _stdin_lines():
        # A blank line is none, and a carriage return is the line end's, unless a file has that very name.
        if (not line or line[-1:].isspace()) and not os.path.lexists(line):
            line = line.removesuffix(b"\r")
            if not line.strip():
                continue
        yield Path(os.fsdecode(line))


def _stdin_lines() -> Iterator[bytes]:
    """Lines of standard input without their line feeds, as bytes: file names need not be valid text."""
    if sys.stdin is None:
        refuse("- stands for lines on standard input, which is closed; give them as arguments")
    count = 0
    try:
        while line := sys.stdin.buffer.readline(MAX_INPUT_LINE + 1):
            count += 1
            if len(line) > MAX_INPUT_LINE:
                refuse(f"-: line {count} of standard input is longer than {MAX_INPUT_LINE} bytes; split it")
            yield line.removesuffix(b"\n")
    except OSError as error:  # for instance a folder
        refuse(f"-: standard input cannot be read ({error.strerror}); redirect a file or pipe to it")
    if not count:
        note("-: standard input is empty")
