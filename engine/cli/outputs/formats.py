"""Formats of results, chosen by --format or by an output file's suffix."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from ...outputs import Transcription
from ...subtitles import formats as documents
from ..terminal import refuse
from .lines import LineFormat, Name, Origin, json_line


class Format(StrEnum):
    """Format of results: lines, of any number of results in a file, or documents of one result each."""

    TEXT = "text"
    JSONL = "jsonl"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"
    TSV = "tsv"

    @property
    def is_of_lines(self) -> bool:
        """True for a format of which one file holds any number of results."""
        return self in tuple(LineFormat)

    @property
    def suffix(self) -> str:
        """Suffix of files in this format."""
        return ".txt" if self is Format.TEXT else f".{self}"


ALL = tuple(one for one in Format if one is not Format.JSONL)  # JSON has the same, and is Whisper's
TIMED = (Format.JSON, Format.SRT, Format.VTT, Format.TSV)  # of segments
WITH_WORDS = (Format.JSONL, Format.JSON, Format.SRT, Format.VTT)
SUBTITLES = (Format.SRT, Format.VTT)
_NAMES: dict[str, tuple[Format, ...]] = {
    "all": ALL,
    "txt": (Format.TEXT,),
    **{str(one): (one,) for one in Format},
}
_OF_SUFFIX = {one.suffix: one for one in Format} | {".ndjson": Format.JSONL}


def parse_formats(given: Sequence[str] | None) -> tuple[Format, ...]:
    """Formats that --format names, each once: several with commas between them, or in several options."""
    found: dict[Format, None] = {}
    for name in ",".join(given or ()).split(",") if given else ():
        formats = _NAMES.get(name.strip().lower())
        if formats is None:
            refuse(f"--format {name!r}: not one of {', '.join(Format)}, or all of them but jsonl (all)")
        found |= dict.fromkeys(formats)
    return tuple(found)


def format_of_file(path: Path, given: Sequence[Format]) -> Format:
    """Format of an output file: the one given, else that of its suffix, else JSON Lines.

    Ends the command where several are given, or another than the suffix names.
    """
    of_suffix = _OF_SUFFIX.get(path.suffix.lower())
    if len(given) > 1:
        refuse(
            f"--output {path}: is one file, and --format names {len(given)} formats; -o/--output-dir writes "
            "a file for each"
        )
    if not given:
        return of_suffix or Format.JSONL
    (chosen,) = given
    if of_suffix not in (None, chosen):
        refuse(
            f"--output {path}: has the suffix of {of_suffix}, and --format is {chosen}; leave --format out, "
            f"or name {path.with_suffix(chosen.suffix)}"
        )
    return chosen


def document(
    chosen: Format,
    name: Name,
    result: Transcription,
    origin: Origin,
    layout: dict[str, Any],
    channels: int,
    reference: str | None = None,
) -> str:
    """Content of a file that holds one result.

    Args:
        layout: arguments of `Transcription.to_srt` and `to_vtt`.
        channels: number of the recording's channels that have results.
        reference: text that the transcript is scored by, for JSON lines.
    """
    match chosen:
        case Format.SRT:
            return result.to_srt(**layout)
        case Format.VTT:
            return result.to_vtt(**layout)
        case Format.TSV:
            return result.to_tsv()
        case Format.JSON:
            return result.to_json()
        case Format.JSONL:
            return json_line(name, result, origin, channels=channels, reference=reference) + "\n"
        case Format.TEXT:
            return documents.text(result)
