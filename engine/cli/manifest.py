"""Manifests of recordings: JSON Lines, CSV and TSV, Kaldi's wav.scp, audio folders; and their references."""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .outputs.lines import Name
from .terminal import refuse, visible

FOLDER_FILES = ("metadata.jsonl", "metadata.csv", "metadata.tsv")  # of an audio folder of Hugging Face's
# Names of the column with the path: NeMo's, Hugging Face's, and those of Tritone's own results.
PATH_COLUMNS = ("audio_filepath", "file_name", "path", "audio", "wav", "file", "filename")
PART_COLUMNS = ("offset", "start", "end", "start_time", "end_time")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Row(NamedTuple):
    """Row of a manifest."""

    path: Path
    key: str | None  # Kaldi's id of the utterance
    fields: Mapping[str, Any]  # all columns by name
    where: str  # file and line, for messages


class References:
    """Reference texts by recording: a column of the manifest, or a file.

    The file is a JSON object (name: text), or lines with a name, a blank and the text, as Kaldi's `text`. A
    name is the id in a wav.scp, or the recording's path, file name, or file name without its suffix.

    Args:
        given: value of --ref: name of a column, or path.
        columns: columns of the manifest; empty without one.
    """

    def __init__(self, given: str, columns: set[str]) -> None:
        self._column = given if given in columns else None
        self._texts: dict[str, str] = {}
        if self._column is None:
            if not os.path.isfile(given):
                known = (
                    f"no column of the manifest ({', '.join(map(visible, sorted(columns)))})"
                    if columns
                    else "no file"
                )
                refuse(f"--ref {given}: {known}{' and no file' if columns else ''}; give the reference texts")
            self._texts = dict(_read_references(Path(given)))

    def of_row(self, row: Row) -> str | None:
        """Reference of a row; None where it has none."""
        if self._column is None:
            return self.of_name(row.path, row.key)
        text = row.fields.get(self._column)
        if text is not None and not isinstance(text, str):
            refuse(f"{row.where}: {self._column} is {text!r:.40}, no text; name another column with --ref")
        return text

    def of_name(self, name: Name, key: str | None = None) -> str | None:
        """Reference of a recording; None where there is none."""
        path = Path(name)
        names = (key, str(name), path.name, path.stem)
        return next((self._texts[one] for one in names if one is not None and one in self._texts), None)


def read_manifest(path: Path) -> tuple[list[Row], set[str]]:
    """Read the rows of a manifest, in its order, and the names of its columns.

    Paths are relative to the manifest's folder; in a wav.scp, as Kaldi has it, to the current one. Ends the
    command where the manifest cannot be used.
    """
    if path.is_dir():
        found = [path / name for name in FOLDER_FILES if (path / name).is_file()]
        if not found:
            refuse(
                f"--manifest {path}: no {', '.join(FOLDER_FILES)} in this folder; name the manifest itself"
            )
        path = found[0]
    suffix = path.suffix.lower()
    try:
        if suffix == ".scp":
            rows = list(_kaldi_rows(path))
        elif suffix in _DELIMITERS:
            rows = list(_rows(path, _csv_records(path, _DELIMITERS[suffix])))
        elif suffix in (".jsonl", ".json", ".ndjson"):
            rows = list(_rows(path, _json_records(path)))
        else:
            refuse(
                f"--manifest {path}: its suffix is {suffix!r}; .jsonl, .csv, .tsv, .scp and folders are read"
            )
    except OSError as error:
        refuse(f"--manifest {path}: cannot be read ({error.strerror or error})")
    if not rows:
        refuse(f"--manifest {path}: names no recording")
    return rows, {column for row in rows for column in row.fields}


def _rows(manifest: Path, records: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[Row]:
    for number, record in records:
        where = f"{manifest}: line {number}"
        column = next((name for name in PATH_COLUMNS if name in record), None)
        if column is None:
            columns = ", ".join(map(visible, record))
            refuse(f"{where}: columns {columns}; the path is in one of {', '.join(PATH_COLUMNS)}")
        if not _is_path(record[column]):
            refuse(f"{where}: {column} is {record[column]!r:.40}; give the path of a recording")
        for part in PART_COLUMNS:
            if record.get(part) not in (None, "") and not _is_zero(record[part]):
                refuse(
                    f"{where}: {part} is {record[part]}; recordings are transcribed whole: cut it first "
                    "(ffmpeg -ss START -to END -i IN out.wav), and leave the column out"
                )
        yield Row(manifest.parent / record[column], None, record, where)


def _is_path(value: Any) -> bool:
    try:
        return isinstance(value, str) and value != "" and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half of a pair that JSON's \\ud800 writes
        return False


def _is_zero(value: Any) -> bool:
    try:
        return float(value) == 0
    except (TypeError, ValueError):
        return False


def _csv_records(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter, restkey="")
        try:
            for record in reader:
                if "" in record:
                    refuse(
                        f"{path}: line {reader.line_num} has more fields than the header; put those with "
                        f"{delimiter!r} in quotes"
                    )
                yield reader.line_num, record
        except csv.Error as error:
            refuse(f"{path}: line {reader.line_num} is no CSV ({error})")


def _json_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            refuse(f"{path}: line {number} is no JSON object; a manifest has one a line")
        yield number, record


def _kaldi_rows(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        where = f"{path}: line {number}"
        key, _, name = line.strip().partition(" ")
        name = name.strip()
        if name.endswith("|") or name.startswith("|"):
            refuse(
                f"{where} is a command ({name:.40}); those are not run: write its recordings to files first"
            )
        if not _is_path(name):
            refuse(f"{where} has no path; Kaldi's lines are an id, a blank and the path")
        yield Row(Path(name), key, {}, where)


def _read_references(path: Path) -> Iterator[tuple[str, str]]:
    try:
        if path.suffix.lower() == ".json":
            record = json.loads(path.read_text(encoding="utf-8-sig"))
            if not isinstance(record, dict) or not all(isinstance(text, str) for text in record.values()):
                raise ValueError("no object of names and texts")
            yield from record.items()
            return
        for _, line in _lines(path):
            name, *text = line.split(maxsplit=1)
            yield name, text[0] if text else ""
    except OSError as error:
        refuse(f"--ref {path}: cannot be read ({error.strerror or error})")
    except (ValueError, RecursionError) as error:
        refuse(f"--ref {path}: is not JSON of names and texts ({error})")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbers and texts of lines that are not blank; bytes that are not UTF-8 as in names of files."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.rstrip("\r\n")
