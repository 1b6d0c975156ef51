"""Inputs of a command: recordings and texts that arguments and standard input name."""

import codecs
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .outputs.lines import Name
from .terminal import note, refuse

# Bytes of a line of standard input. Escaped, a longer text would not fit a line of results.
MAX_INPUT_LINE = 1 << 19
_HEAD_BYTES = 1 << 16  # of standard input, by which a recording is told from a list
_AMR = b"#!AMR"  # the one format whose first bytes may lack a NUL


class Item(NamedTuple):
    """One recording or text that a command processes."""

    name: Name  # name in the results
    source: Any  # input that the engine takes
    problem: Exception | None  # error found before the engine receives it


def find_recordings(paths: Sequence[str], null: bool = False, headerless: bool = False) -> list[Item]:
    """Items for the recordings that arguments name, each once; a bad argument is an item with an error.

    The argument - is standard input: a recording, or else a list of paths, with `null` ended by NULs;
    with `headerless` the recording may be one without a header.
    """
    from ..audio.finder import AudioSearch

    if "" in paths:
        refuse("an empty PATH (''); name a recording or folder, . for the current folder")
    search = AudioSearch()
    recordings: dict[Name, Item] = {}
    for given in paths:
        found = (Item(path, path, problem) for path, problem in search.find(given))
        recordings |= {item.name: item for item in (_from_stdin(null, headerless) if given == "-" else found)}
    return list(recordings.values())


def find_texts(texts: Sequence[str], pairs: bool) -> list[Item]:
    """Items for texts from arguments and standard input; with `pairs` each text is split at its tab."""
    found: list[str] = []
    for given in texts:
        if given == "-":
            lines = StandardInput().lines()
            found += [
                line.removesuffix(b"\r").decode("utf-8", "surrogateescape") for line in lines if line.strip()
            ]
        else:
            found.append(given)
    if not pairs:
        return [Item(text, text, None) for text in found]
    return [Item(text, tuple(text.split("\t")), _pair_problem(text)) for text in found]


def is_several(paths: Sequence[str], items: Sequence[Item]) -> bool:
    """Check whether arguments may name several recordings, so that each result needs its path."""
    if len(paths) > 1:
        return True
    return not (os.path.isfile(paths[0]) or any(isinstance(item.source, StandardInput) for item in items))


def _pair_problem(text: str) -> Exception | None:
    count = text.count("\t")
    if count == 1:
        return None
    return ValueError(f"{text!r:.40}: with --pairs two texts have one tab between them, here are {count}")


def _from_stdin(null: bool, headerless: bool) -> Iterator[Item]:
    """Items of standard input: a recording, or those of a list of paths."""
    stdin = StandardInput()
    if not null and stdin.is_audio(headerless):
        yield Item(Path("-"), stdin, None)
        return
    for line in stdin.lines(b"\0" if null else b"\n"):
        # A blank line is none, and a carriage return is the line end's, unless a file has that very name.
        if not null and (not line or line[-1:].isspace()) and not os.path.lexists(line):
            line = line.removesuffix(b"\r")
        if line if null else line.strip():
            path = Path(os.fsdecode(line))
            yield Item(path, path, None)


class StandardInput:
    """Standard input as a binary file object that tells a recording from a list of lines.

    Its bytes may be any, since file names need not be valid text.
    """

    name = "-"  # in the engine's messages

    def __init__(self) -> None:
        if sys.stdin is None:
            refuse("- stands for standard input, which is closed; give arguments")
        self._ahead = self._read(_HEAD_BYTES)
        if not self._ahead:
            note("-: standard input is empty")

    def is_audio(self, headerless: bool) -> bool:
        """Check whether the first bytes are no list of paths: these have no NUL, and line feeds.

        A list beside `headerless` recordings is UTF-8, since their bytes may be any.
        """
        head = self._ahead
        if headerless:
            try:
                codecs.getincrementaldecoder("utf-8")().decode(head)
            except UnicodeDecodeError:
                return True
        is_binary = b"\0" in head or (len(head) == _HEAD_BYTES and b"\n" not in head)
        return (is_binary and any(head)) or head.startswith(_AMR)

    def read(self, size: int) -> bytes:
        """Next bytes, at most `size` or those that were read ahead; none at the end."""
        ahead, self._ahead = self._ahead, b""
        return ahead or self._read(size)

    def lines(self, end: bytes = b"\n") -> Iterator[bytes]:
        """Lines without their ends."""
        rest, count = b"", 0
        while block := self.read(_HEAD_BYTES):
            *lines, rest = (rest + block).split(end)
            for line in (*lines, rest):
                if len(line) > MAX_INPUT_LINE:
                    where = f"-: line {count + 1} of standard input"
                    refuse(f"{where} is longer than {MAX_INPUT_LINE} bytes; split it")
                count += line is not rest
            yield from lines
        if rest:
            yield rest

    def _read(self, size: int) -> bytes:
        try:
            return sys.stdin.buffer.read(size)
        except OSError as error:  # for instance a folder
            refuse(f"-: standard input cannot be read ({error.strerror}); redirect a file or pipe to it")
