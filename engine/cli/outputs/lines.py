"""Lines of results in text or JSON: one for each recording or text, with the names that a later run knows."""

import json
import os
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ...outputs import Classification, Segment, Transcription
from ..terminal import CONTROLS

# All characters that some programs take for the end of a line; JSON escapes the first half by itself.
_LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_JSON_ESCAPES = str.maketrans({control: f"\\u{ord(control):04x}" for control in CONTROLS})
# In a text file each line is one request, and its first tab ends the path or text. On Windows a path has no
# such characters, and a backslash is a separator there.
_ESCAPES = str.maketrans({special: repr(special)[1:-1] for special in "\\\t" + _LINE_ENDS})
_PATH_ESCAPES = _ESCAPES if os.sep == "/" else {}

Name = Path | str  # name of a result: the recording's path, or the text itself
Result = Transcription | Classification


class LineFormat(StrEnum):
    """Format of result lines: plain text or JSON Lines."""

    TEXT = "text"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Origin:
    """Model and options that produced a result; all lines of a results file share them."""

    model: str  # absolute path of a checkpoint's folder, or its name
    options: dict[str, Any]  # options that change results, by name

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in ({"model": self.model} | self.options).items())


def json_line(
    name: Name,
    result: Result,
    origin: Origin,
    ascii_only: bool = False,
    *,
    channels: int = 1,
    reference: str | None = None,
) -> str:
    """Format a result or failure as one line with a JSON object; one of a channel has their number too."""
    record: dict[str, Any] = {name_key(name): name_text(name)}
    if result.channel is not None:
        record |= {"channel": result.channel, "channels": channels}
    if isinstance(result, Transcription):
        record["text"] = None if result.error is not None else result.text
        if reference is not None:
            record["reference"] = reference
        record["token_ids"] = list(result.token_ids)
    else:
        record["labels"] = None if result.error is not None else [asdict(label) for label in result.labels]
    record["finish_reason"] = str(result.finish_reason)
    if isinstance(name, Path):
        record["duration"] = round(result.duration, 3)
    if isinstance(result, Transcription):
        if result.speech_duration is not None:
            record["speech_duration"] = round(result.speech_duration, 3)
        record["score"] = result.score
        if result.language is not None:
            record["language"] = result.language
    record["error"] = message_of(result.error) if result.error is not None else None
    if result.warnings:
        record["warnings"] = list(result.warnings)
    if isinstance(result, Transcription) and result.words is not None:
        record["words"] = [
            {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
            | ({} if word.confidence is None else {"confidence": round(word.confidence, 3)})
            | ({} if word.speaker is None else {"speaker": word.speaker})
            for word in result.words
        ]
    if isinstance(result, Transcription) and result.segments is not None:
        record["segments"] = [_segment(segment) for segment in result.segments]
    line = json.dumps(record | asdict(origin), ensure_ascii=ascii_only, allow_nan=False)
    return line.translate(_JSON_ESCAPES)


def _segment(segment: Segment) -> dict[str, Any]:
    """Fields of a segment, its times in milliseconds' precision."""
    times = {"start": round(segment.start, 3), "end": round(segment.end, 3)}
    record = asdict(segment) | times | {"token_ids": list(segment.token_ids)}
    del record["token_log_probs"]  # no option of the command
    if segment.speaker is None:
        del record["speaker"]
    return record


def text_line(name: Name | None, result: Result, channels: int = 1) -> str:
    """Format a result as one line of text: name, tab, then the transcript or the labels and scores.

    The result of a channel begins with it and their number: 0/2, tab.

    Without a name the line begins after the tab. Labels and scores are separated by tabs. A backslash, tab or
    line end in a name or label is written as Python writes it: \\\\, \\t, \\n.
    """
    if isinstance(result, Transcription):
        text = " ".join(result.text.split())
    else:
        text = "\t".join(f"{label.label.translate(_ESCAPES)}\t{label.score:.6f}" for label in result.labels)
    if result.channel is not None:
        text = f"{result.channel}/{channels}\t{text}"
    return text if name is None else f"{escaped(name)}\t{text}"


def message_of(error: Exception) -> str:
    """Message of an error, or its `repr` where the message is empty."""
    return str(error) or repr(error)


def name_key(name: Name) -> str:
    """Key of a name in a JSON line."""
    return "path" if isinstance(name, Path) else "text"


def name_text(name: Name) -> str:
    """Text of a name: bytes that are not UTF-8 as lone surrogates, which `os.fsencode` turns back."""
    if isinstance(name, Path) and os.sep == "/":
        # Through bytes: in a locale of another encoding the same file must have the same name.
        return os.fsencode(name).decode("utf-8", "surrogateescape")
    return str(name)


def escaped(name: Name) -> str:
    """Text of a name in a text line, with tabs and line ends escaped."""
    return name_text(name).translate(_PATH_ESCAPES if isinstance(name, Path) else _ESCAPES)


def encoded(line: str) -> bytes:
    """Bytes of a line in a file."""
    # A path that is no UTF-8 holds surrogates, which backslashreplace writes as JSON's own escapes.
    return line.encode("utf-8", "backslashreplace")
