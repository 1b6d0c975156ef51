"""OpenAI's published types of the audio API, field by field, beside the fields of this server.

`python tests/support/openai_schema.py` writes the tables into docs/server.md.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from openai.types import Model, audio
from openai.types.audio import (
    transcription,
    transcription_create_params,
    transcription_diarized,
    transcription_text_delta_event,
    transcription_text_done_event,
    transcription_verbose,
    translation_create_params,
)

from tritone.engine.server.fields import (
    BY_NAME,
    CLASSIFY,
    FIELDS,
    REFUSED,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    VAD_SETTINGS,
)
from tritone.engine.server.openapi import SCHEMAS

PAGE = Path(__file__).parents[2] / "docs" / "server.md"
MARK = "<!-- {} of python tests/support/openai_schema.py -->\n"

_GPT_TRANSCRIBE = "of gpt-transcribe; `verbose_json` has the language"
_SPEAKERS = "transcripts here have no speakers"
# Reasons for fields that are not sent: a closed list, so that a new field fails the test until it has one.
LACKS = {
    ("Transcription", "languages"): _GPT_TRANSCRIBE,
    ("TranscriptionTextDoneEvent", "languages"): _GPT_TRANSCRIBE,
    ("TranscriptionTextDeltaEvent", "logprobs"): "all are in `transcript.text.done`",
    ("TranscriptionTextDeltaEvent", "segment_id"): _SPEAKERS,
    ("Model", "shutdown_date"): "OpenAI's models alone have one",
}
# Types that are never sent as a whole.
UNSENT = {
    audio.TranscriptionDiarized: _SPEAKERS,
    audio.TranscriptionDiarizedSegment: _SPEAKERS,
    audio.TranscriptionTextSegmentEvent: _SPEAKERS,
    transcription_diarized.UsageTokens: _SPEAKERS,
    transcription_diarized.UsageTokensInputTokenDetails: _SPEAKERS,
    transcription_diarized.UsageDuration: _SPEAKERS,
    audio.TranscriptionLanguage: _GPT_TRANSCRIBE,
    transcription_text_delta_event.Logprob: "all are in `transcript.text.done`",
    transcription.UsageTokens: "of models billed by tokens; JSON has `UsageDuration`",
    transcription.UsageTokensInputTokenDetails: "of models billed by tokens; JSON has `UsageDuration`",
}
# Types that are sent, with the schemas of this server.
SENT = {
    audio.Transcription: "Transcription",
    transcription.Logprob: "LogProb",
    transcription.UsageDuration: "DurationUsage",
    audio.TranscriptionVerbose: "VerboseTranscription",
    transcription_verbose.Usage: "DurationUsage",
    audio.TranscriptionSegment: "Segment",
    audio.TranscriptionWord: "Word",
    audio.TranscriptionTextDeltaEvent: "TextDelta",
    audio.TranscriptionTextDoneEvent: "TextDone",
    transcription_text_done_event.Logprob: "LogProb",
    transcription_text_done_event.Usage: "TokenUsage",
    transcription_text_done_event.UsageInputTokenDetails: "TokenUsage.input_token_details",
    audio.Translation: "Transcription",
    audio.TranslationVerbose: "VerboseTranscription",
    Model: "Model",
}
# Types of requests, with the endpoints that read them.
REQUESTS = {
    "transcriptions": (
        TRANSCRIPTIONS,
        [
            transcription_create_params.TranscriptionCreateParamsBase,
            transcription_create_params.TranscriptionCreateParamsNonStreaming,
            transcription_create_params.TranscriptionCreateParamsStreaming,
        ],
    ),
    "translations": (TRANSLATIONS, [translation_create_params.TranslationCreateParams]),
}


class Row(NamedTuple):
    """Field of a type of OpenAI's.

    Args:
        type, field: names, the type of a request with its endpoint.
        here: "read", "refused", "sent" or "not sent".
        note: reason, remedy or limits; empty for none.
    """

    type: str
    field: str
    here: str
    note: str = ""


def rows() -> list[Row]:
    """All fields of the types; KeyError for one that this server neither has nor gives a reason for."""
    return [*_request_rows(), *_answer_rows()]


def tables() -> dict[str, str]:
    """Markdown of the tables of the page by their names."""
    return {"fields": _own_fields(), "types": _types()}


def _own_fields() -> str:
    """Table of the fields of forms."""
    lines = ["| Field | Values | Meaning |\n|---|---|---|\n"]
    for field in FIELDS:
        if field.of == (CLASSIFY,):
            continue
        values = _values(field.schema)
        where = "" if TRANSLATIONS in field.of else " Of transcriptions."
        mark = "*" if field.is_own else ""
        lines.append(f"| `{field.shown}`{mark} | {values} | {field.about}{where} |\n")
    return "".join(lines)


def _values(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(schema["enum"])
    if schema.get("type") == "boolean":
        return "true, false"
    if "oneOf" in schema:
        return "auto, or an object"
    if "maximum" in schema:
        high = "2^63 - 1" if schema["maximum"] == 2**63 - 1 else f"{schema['maximum']:g}"
        return f"{schema['minimum']:g} to {high}"
    return "text"


def _types() -> str:
    """Table of the fields of OpenAI's types."""
    head = "| OpenAI's type | Field | Here | Note |\n|---|---|---|---|\n"
    return head + "".join(f"| {row.type} | `{row.field}` | {row.here} | {row.note} |\n" for row in rows())


def schema(name: str) -> dict[str, Any]:
    """Schema of this server by its name; a dot leads to one of its properties."""
    name, _, inner = name.partition(".")
    found: dict[str, Any] = SCHEMAS[name]
    return found["properties"][inner] if inner else found


def qualified(model: type) -> str:
    """Name of a type, with the one that it is part of."""
    file = model.__module__.rpartition(".")[2]
    owner = "".join(part.capitalize() for part in file.split("_"))
    return model.__name__ if owner == model.__name__ else f"{owner}.{model.__name__}"


def _request_rows() -> Iterator[Row]:
    for name, (endpoint, kinds) in REQUESTS.items():
        for field in sorted({field for kind in kinds for field in get_type_hints(kind)}):
            if field == "file":
                yield Row(name, field, "read", "any format that FFmpeg decodes, by its content")
            elif field in BY_NAME and endpoint in BY_NAME[field].of:
                yield Row(name, field, "read", _limits(field, endpoint))
            else:
                yield Row(name, field, "refused", REFUSED[field])
    vad = transcription_create_params.ChunkingStrategyVadConfig
    for field in sorted(get_type_hints(vad)):
        note = "" if field == "type" else f"{VAD_SETTINGS[field]} alone"
        yield Row("transcriptions, server_vad", field, "read", note)


def _limits(field: str, endpoint: str) -> str:
    """Note on a field of a request that is read, but not for all its values."""
    if field == "response_format" and endpoint == TRANSCRIPTIONS:
        return "`diarized_json` is refused"
    if field == "model":
        return "may be left out"
    return ""


def _answer_rows() -> Iterator[Row]:
    for model, name in SENT.items():
        properties = schema(name)["properties"]
        for field in model.model_fields:
            if field in properties and (model.__name__, field) not in LACKS:
                yield Row(qualified(model), field, "sent")
            else:
                yield Row(qualified(model), field, "not sent", LACKS[model.__name__, field])
    for model, reason in UNSENT.items():
        for field in model.model_fields:
            yield Row(qualified(model), field, "not sent", reason)


def literals(model: type, field: str) -> tuple[Any, ...]:
    """Values of a field that has a closed list of them; none for any other."""
    return get_args(get_type_hints(model)[field])


def written(page: str) -> dict[str, str]:
    """Tables in a page's text by their names."""
    return {name: page.split(MARK.format(name))[1] for name in tables()}


if __name__ == "__main__":
    page = PAGE.read_text()
    for name, table in tables().items():
        before, _, after = page.split(MARK.format(name))
        page = MARK.format(name).join([before, table, after])
    PAGE.write_text(page)
