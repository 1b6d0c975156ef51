"""Inputs of a command: recordings and texts that arguments and standard input name."""

import codecs
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .manifest import References, read_manifest
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
    problem: Exception | None = None  # error found before the engine receives it
    reference: str | None = None  # text that a transcript is scored by


class Inputs(NamedTuple):
    """Items of a command."""

    items: list[Item]
    others: int = 0  # files of other kinds in the folders

    def share(self, shard: str | None) -> "Inputs":
        """Share of the inputs that "2/8" names: every 8th, from the 2nd on; all of them for None."""
        if shard is None:
            return self
        number, slash, count = shard.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            refuse(f"--shard {shard!r}: give NUMBER/COUNT, such as 1/8 to 8/8")
        return self._replace(items=self.items[int(number) - 1 :: int(count)])

    def with_references(self, references: References) -> "Inputs":
        """The same items with the references of their names."""
        return self._replace(
            items=[item._replace(reference=references.of_name(item.name)) for item in self.items]
        )


def find_inputs(
    paths: Sequence[str] | None, manifest: Path | None, ref: str | None, null: bool, headerless: bool
) -> Inputs:
    """Items for the recordings of a call: those of its arguments, or of a manifest."""
    if manifest is not None:
        if paths:
            refuse("--manifest has the paths, and so has the call; leave one of them out")
        return find_in_manifest(manifest, ref)
    if not paths:
        refuse(
            "Missing argument PATH: name recordings, folders or globs, - for standard input, or --manifest"
        )
    found = find_recordings(paths, null, headerless)
    return found if ref is None else found.with_references(References(ref, set()))


def find_in_manifest(manifest: Path, ref: str | None) -> Inputs:
    """Items for the rows of a manifest, each recording once, with references if `ref` says where they are."""
    rows, columns = read_manifest(manifest)
    references = None if ref is None else References(ref, columns)
    items: dict[Name, Item] = {}
    for row in rows:
        item = Item(row.path, row.path, None, None if references is None else references.of_row(row))
        if items.setdefault(row.path, item).reference != item.reference:
            refuse(f"{row.where}: {row.path} is there before, with another reference; leave one of them out")
    return Inputs(list(items.values()))


def find_recordings(paths: Sequence[str], null: bool = False, headerless: bool = False) -> Inputs:
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
    return Inputs(list(recordings.values()), search.others)


def find_texts(texts: Sequence[str], pairs: bool) -> Inputs:
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
        return Inputs([Item(text, text) for text in found])
    return Inputs([Item(text, tuple(text.split("\t")), _pair_problem(text)) for text in found])


def is_several(paths: Sequence[str] | None, inputs: Inputs) -> bool:
    """Check whether arguments may name several recordings, so that each result needs its path."""
    if paths is None or len(paths) > 1:
        return True
    return not (
        os.path.isfile(paths[0]) or any(isinstance(item.source, StandardInput) for item in inputs.items)
    )


def _pair_problem(text: str) -> Exception | None:
    count = text.count("\t")
    if count == 1:
        return None
    return ValueError(f"{text!r:.40}: with --pairs two texts have one tab between them, here are {count}")


def _from_stdin(null: bool, headerless: bool) -> Iterator[Item]:
    """Items of standard input: a recording, or those of a list of paths."""
    stdin = StandardInput()
    if not null and stdin.is_audio(headerless):
        yield Item(Path("-"), stdin)
        return
    for line in stdin.lines(b"\0" if null else b"\n"):
        # A blank line is none, and a carriage return is the line end's, unless a file has that very name.
        if not null and (not line or line[-1:].isspace()) and not os.path.lexists(line):
            line = line.removesuffix(b"\r")
        if line if null else line.strip():
            path = Path(os.fsdecode(line))
            yield Item(path, path)


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
