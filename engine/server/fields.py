"""Fields of the forms: names, JSON schemas and readers, from which requests are read and documented."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import DEFAULT_TOP_K
from .errors import ApiError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?\d{1,19}")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}

TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
CLASSIFY = "/v1/classify"
BOTH = (TRANSCRIPTIONS, TRANSLATIONS)


@dataclass(frozen=True, slots=True)
class Field:
    """Field of a form.

    Args:
        name: its name, without brackets.
        schema: JSON schema of a value.
        about: meaning, for the documentation.
        read: function of a value that is not empty, which raises ValueError with what is accepted.
        of: endpoints that take it.
        repeats: True where it may be given several times, as NAME[] too, for a list of values.
        is_own: True for one that OpenAI's API is without.
    """

    name: str
    schema: Mapping[str, Any]
    about: str
    read: Callable[[str], Any]
    of: Sequence[str] = BOTH
    repeats: bool = False
    is_own: bool = False

    @property
    def shown(self) -> str:
        """Name as the form has it."""
        return f"{self.name}[]" if self.repeats else self.name


def _text(name: str, about: str, **more: Any) -> Field:
    return Field(name, {"type": "string"}, about, str, **more)


def _choice(name: str, accepted: Sequence[str], about: str, **more: Any) -> Field:
    def read(value: str) -> str:
        if value not in accepted:
            raise ValueError(", ".join(accepted))
        return value

    return Field(name, {"type": "string", "enum": list(accepted)}, about, read, **more)


def _number(name: str, low: float, high: float, about: str, **more: Any) -> Field:
    def read(value: str) -> float:
        if not _NUMBER.fullmatch(value) or not low <= float(value) <= high:
            raise ValueError(f"a number from {low} to {high}")
        return float(value)

    return Field(name, {"type": "number", "minimum": low, "maximum": high}, about, read, **more)


def _whole(name: str, low: int, high: int, about: str, **more: Any) -> Field:
    def read(value: str) -> int:
        if not _WHOLE.fullmatch(value) or not low <= int(value) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return Field(name, {"type": "integer", "minimum": low, "maximum": high}, about, read, **more)


def _flag(name: str, about: str, **more: Any) -> Field:
    def read(value: str) -> bool:
        if value.lower() not in _BOOLEANS:
            raise ValueError("true or false")
        return _BOOLEANS[value.lower()]

    return Field(name, {"type": "boolean"}, about, read, **more)


FORMATS = ("json", "text", "srt", "verbose_json", "vtt")

# Settings of server_vad with the one value of each that the voice activity detector works with.
VAD_SETTINGS = {"threshold": 0.5, "prefix_padding_ms": 400, "silence_duration_ms": 2000}
_CHUNKING = "auto, or an object such as " + json.dumps({"type": "server_vad"} | VAD_SETTINGS)


def _read_chunking(value: str) -> dict[str, Any]:
    """Object of a chunking strategy; its settings are checked by the caller, which names them."""
    if value == "auto":
        return {"type": "auto"}
    try:
        found = json.loads(value)
    except ValueError:
        raise ValueError(_CHUNKING) from None
    except RecursionError:
        raise ValueError(_CHUNKING) from None
    if not isinstance(found, dict) or found.get("type") != "server_vad":
        raise ValueError(_CHUNKING)
    return found


FIELDS = (
    _text("model", "Name of a model of GET /v1/models; by default the server's first.", of=(*BOTH, CLASSIFY)),
    _text("language", "Language that is spoken, as ISO-639-1 code or English name; by default detected."),
    _text(
        "prompt",
        "Text that goes before, for its style and names; of Whisper, which reads its last tokens, about 220.",
    ),
    _choice("response_format", FORMATS, "Format of the answer; json by default."),
    _number("temperature", 0.0, 1.0, "0 (default) takes the likeliest tokens, above it they are drawn."),
    _choice(
        "timestamp_granularities",
        ("word", "segment"),
        "Times in verbose_json; segment by default. Words have times from Whisper and CTC models.",
        of=(TRANSCRIPTIONS,),
        repeats=True,
    ),
    _choice(
        "include",
        ("logprobs",),
        "logprobs adds the log-probability of each token, to json and to events of a stream.",
        of=(TRANSCRIPTIONS,),
        repeats=True,
    ),
    _flag("stream", "true answers with server-sent events while the text is decoded.", of=(TRANSCRIPTIONS,)),
    Field(
        "chunking_strategy",
        {
            "oneOf": [
                {"type": "string", "enum": ["auto"]},
                {
                    "type": "object",
                    "properties": {"type": {"type": "string", "enum": ["server_vad"]}}
                    | {name: {"type": "number", "enum": [value]} for name, value in VAD_SETTINGS.items()},
                    "required": ["type"],
                    "additionalProperties": False,
                },
            ]
        },
        "auto cuts a long recording at pauses; server_vad also leaves out what is no speech. By default "
        "Whisper's windows follow each other, and other models cut at pauses.",
        _read_chunking,
        of=(TRANSCRIPTIONS,),
    ),
    _whole("num_beams", 1, 64, "Hypotheses of a beam search; 1 by default, which is greedy.", is_own=True),
    _whole("seed", 0, 2**63 - 1, "Seed of the draws of a temperature above 0.", is_own=True),
    _flag("vad_filter", "true decodes only what is speech.", is_own=True),
    _text("hotwords", "Words that may be said, such as names; of Whisper.", is_own=True),
    _whole(
        "top_k", 1, 2**31 - 1, f"Labels of a result, best first; {DEFAULT_TOP_K} by default.", of=(CLASSIFY,)
    ),
)
BY_NAME = {field.name: field for field in FIELDS}

# Fields of OpenAI's API that are refused, with the remedy.
REFUSED = {
    "languages": "give one language in the field 'language', or leave it out to have it detected",
    "keywords": "give them to Whisper in the field 'hotwords'",
    "known_speaker_names": "transcripts here have no speakers; leave it out",
    "known_speaker_references": "transcripts here have no speakers; leave it out",
}
DIARIZED = "diarized_json"
NO_SPEAKERS = "transcripts here have no speakers; take verbose_json"


def read_fields(fields: Sequence[tuple[str, str]], endpoint: str) -> dict[str, Any]:
    """Values of a form's fields by name: lists of those that may repeat, without empty ones.

    Args:
        fields: names and values in their order.
        endpoint: path of the endpoint.

    Raises:
        ApiError: an unknown or refused field, one given twice, or a value that is not accepted.
    """
    found: dict[str, Any] = {}
    given = set()
    for raw, value in _joined(fields):
        name = raw.removesuffix("[]")
        if name in REFUSED and endpoint == TRANSCRIPTIONS:
            raise ApiError(400, f"{raw} is not supported: {REFUSED[name]}", raw, "unsupported_parameter")
        field = BY_NAME.get(name)
        if field is None or endpoint not in field.of or (name != raw and not field.repeats):
            known = ", ".join(["file", *(one.shown for one in FIELDS if endpoint in one.of)])
            message = f"{raw[:64]!r} is no field of {endpoint}; there are {known}"
            raise ApiError(400, message, raw[:64], "unknown_parameter")
        if not field.repeats and name in given:
            raise ApiError(400, f"{name} is given twice; give it once", name, "repeated_parameter")
        given.add(name)
        if not value:  # as a page's form or a client's None has it
            continue
        if value == DIARIZED and name == "response_format":
            raise ApiError(400, f"{DIARIZED} is not supported: {NO_SPEAKERS}", name, "unsupported_value")
        try:
            read = field.read(value)
        except ValueError as error:
            message = f"{raw} is {value[:64]!r}; it must be {error}"
            raise ApiError(400, message, raw, "invalid_value") from None
        if field.repeats:
            found.setdefault(name, []).append(read)
        else:
            found[name] = read
    return found


def _joined(fields: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Fields with the settings of a chunking strategy, which OpenAI's client sends one by one, as one."""
    prefix, parts, others = "chunking_strategy[", dict[str, str | float](), list[tuple[str, str]]()
    for name, value in fields:
        if not (name.startswith(prefix) and name.endswith("]")):
            others.append((name, value))
            continue
        key = name[len(prefix) : -1]
        if key in parts:
            raise ApiError(400, f"{name} is given twice; give it once", name[:64], "repeated_parameter")
        parts[key] = float(value) if _NUMBER.fullmatch(value) else value
    return [*others, ("chunking_strategy", json.dumps(parts))] if parts else others
