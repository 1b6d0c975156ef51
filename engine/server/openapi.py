"""OpenAPI document: requests and answers of the endpoints, of which forms are read without FastAPI's help."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response

from ..config import DEFAULT_TOP_K
from .fields import CLASSIFY, FIELDS, TRANSCRIPTIONS, TRANSLATIONS

MODELS, MODEL = "/v1/models", "/v1/models/{model}"
_FORMATS = "flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav or webm"

_TEXT, _NUMBER, _WHOLE = {"type": "string"}, {"type": "number"}, {"type": "integer"}


def _object(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": dict(items)}


def _const(value: str) -> dict[str, Any]:
    return {"type": "string", "const": value}


def _schema(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [dict(schema), {"type": "null"}]}


_LOG_PROBS = {"logprobs": _list(_schema("LogProb"))}
_ERROR = _object({"message": _TEXT, "type": _TEXT, "param": _nullable(_TEXT), "code": _nullable(_TEXT)})
SCHEMAS: dict[str, Any] = {
    "Error": _object({"error": _ERROR}),
    "LogProb": _object({"token": _TEXT, "bytes": _list(_WHOLE), "logprob": _NUMBER}),
    "DurationUsage": _object({"type": _const("duration"), "seconds": _NUMBER}),
    "TokenUsage": _object(
        {
            "type": _const("tokens"),
            "input_tokens": _WHOLE,
            "input_token_details": _object({"text_tokens": _WHOLE, "audio_tokens": _WHOLE}),
            "output_tokens": _WHOLE,
            "total_tokens": _WHOLE,
        }
    ),
    "Transcription": _object({"text": _TEXT, "usage": _schema("DurationUsage")}, _LOG_PROBS),
    "VerboseTranscription": _object(
        {
            "task": {"type": "string", "enum": ["transcribe", "translate"]},
            "language": _TEXT,
            "duration": _NUMBER,
            "text": _TEXT,
            "usage": _schema("DurationUsage"),
        },
        {"segments": _list(_schema("Segment")), "words": _list(_schema("Word"))},
    ),
    "Segment": _object(
        {
            "id": _WHOLE,
            "seek": _WHOLE,
            "start": _NUMBER,
            "end": _NUMBER,
            "text": _TEXT,
            "tokens": _list(_WHOLE),
            "temperature": _NUMBER,
            "avg_logprob": _NUMBER,
            "compression_ratio": _NUMBER,
            "no_speech_prob": _NUMBER,
        }
    ),
    "Word": _object({"word": _TEXT, "start": _NUMBER, "end": _NUMBER}),
    "TextDelta": _object({"type": _const("transcript.text.delta"), "delta": _TEXT}),
    "TextDone": _object(
        {"type": _const("transcript.text.done"), "text": _TEXT, "usage": _schema("TokenUsage")}, _LOG_PROBS
    ),
    "ErrorEvent": _object({"type": _const("error"), "error": _ERROR}),
    "Event": {
        "type": "object",
        "properties": {
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {
                    "oneOf": [_schema(name) for name in ("TextDelta", "TextDone", "ErrorEvent")]
                },
            }
        },
        "required": ["data"],
        "description": "Deltas of the text, then one TextDone or ErrorEvent.",
    },
    "Model": _object(
        {
            "id": _TEXT,
            "object": _const("model"),
            "created": _WHOLE,
            "owned_by": _TEXT,
            "task": {"type": "string", "enum": ["transcription", "classification"]},
            "timestamp_granularities": _list({"type": "string", "enum": ["word", "segment"]}),
        },
    ),
    "ModelList": _object({"object": _const("list"), "data": _list(_schema("Model"))}),
    "TextsToClassify": _object(
        {
            "input": {
                "description": "A text, several texts, or several pairs of texts.",
                "oneOf": [
                    _TEXT,
                    _list({"oneOf": [_TEXT, _list(_TEXT) | {"minItems": 2, "maxItems": 2}]})
                    | {"minItems": 1, "maxItems": 1024},
                ],
            }
        },
        {
            "model": _nullable(_TEXT),
            "top_k": _nullable({"type": "integer", "minimum": 1}) | {"default": DEFAULT_TOP_K},
            "truncate": {"type": "boolean", "default": False},
        },
    ),
    "Classification": _object(
        {
            "id": _TEXT,
            "object": _const("list"),
            "created": _WHOLE,
            "model": _TEXT,
            "data": _list(
                _object(
                    {
                        "index": _WHOLE,
                        "label": _TEXT,
                        "probs": _list(_NUMBER),
                        "num_classes": _WHOLE,
                        "labels": _list(_object({"label": _TEXT, "score": _NUMBER})),
                    }
                )
            ),
        },
        {"usage": _schema("DurationUsage")},
    ),
}

_PLAIN = {"text/plain": {"schema": _TEXT}, "text/vtt": {"schema": _TEXT}}
_VERBOSE = {"anyOf": [_schema("Transcription"), _schema("VerboseTranscription")]}
_EVENTS = {"text/event-stream": {"schema": _schema("Event")}}
_ANSWERS: dict[str, dict[str, Any]] = {
    TRANSCRIPTIONS: {"application/json": {"schema": _VERBOSE}, **_PLAIN, **_EVENTS},
    TRANSLATIONS: {"application/json": {"schema": _VERBOSE}, **_PLAIN},
    CLASSIFY: {"application/json": {"schema": _schema("Classification")}},
    MODELS: {"application/json": {"schema": _schema("ModelList")}},
    MODEL: {"application/json": {"schema": _schema("Model")}},
}
_ERRORS = {
    "400": "A field is wrong: `param` names it.",
    "401": "The API key is missing or wrong.",
    "404": "There is no such model.",
    "413": "The recording is too large.",
    "429": "Too many requests wait; `Retry-After` has the seconds until the next try.",
    "503": "The model has stopped, or the server is stopping.",
    "504": "The result was not there in time.",
    "default": "Any other error.",
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


def form_schema(endpoint: str) -> dict[str, Any]:
    """JSON schema of an endpoint's form."""
    file = {"type": "string", "format": "binary", "description": f"Recording, in {_FORMATS}; by its content."}
    properties: dict[str, Any] = {"file": file}
    for field in FIELDS:
        if endpoint in field.of:
            schema = {**field.schema, "description": field.about}
            properties[field.shown] = _list(schema) if field.repeats else schema
    return {
        "type": "object",
        "properties": properties,
        "required": ["file"],
        "additionalProperties": False,
    }


def operation(endpoint: str, name: str) -> dict[str, Any]:
    """Arguments of a FastAPI route: its name in the document, request, answers and errors."""
    responses: dict[str, Any] = {"200": {"description": "The result.", "content": _ANSWERS[endpoint]}}
    for status, about in _ERRORS.items():
        content = {"application/json": {"schema": _schema("Error")}}
        responses[status] = {"description": about, "content": content}
    responses["429"]["headers"] = _RETRY_AFTER
    extra: dict[str, Any] = {"responses": responses}
    bodies = {}
    if endpoint in (TRANSCRIPTIONS, TRANSLATIONS, CLASSIFY):
        bodies["multipart/form-data"] = {"schema": form_schema(endpoint)}
    if endpoint == CLASSIFY:
        bodies["application/json"] = {"schema": _schema("TextsToClassify")}
    if bodies:
        extra["requestBody"] = {"required": True, "content": bodies}
    if endpoint == MODEL:
        extra["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": _TEXT}]
    return {"operation_id": name, "response_class": Response, "openapi_extra": extra}


def document(app: FastAPI, needs_key: bool) -> None:
    """Let an application's document have the schemas, and the key where one is needed."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = made()
            components = found.setdefault("components", {})
            components.setdefault("schemas", {}).update(SCHEMAS)
            if needs_key:
                components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                found["security"] = [{"key": []}]
        return app.openapi_schema or found

    app.openapi = openapi  # type: ignore[method-assign]
