"""Endpoint of classifiers of recordings and texts."""

import json
import time
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from ..config import DEFAULT_TOP_K
from ..outputs import Classification
from .errors import ApiError, engine_error, require_complete
from .fields import CLASSIFY, read_fields
from .models import ServedModel, ServedModels
from .openapi import operation
from .parameters import bounds
from .requests import note_result
from .settings import ServerSettings
from .uploads import read_form

MAX_INPUTS = 1024  # texts of one request
MAX_JSON_BYTES = 8 << 20  # of one request's texts

Text = str | tuple[str, str]


def classify_routes(models: ServedModels, settings: ServerSettings) -> APIRouter:
    """Route of the endpoint."""
    routes = APIRouter()

    @routes.post(CLASSIFY, **operation(CLASSIFY, "create_classification"))
    async def classify(request: Request) -> JSONResponse:
        """Labels of a recording, sent as a form, or of texts, sent as JSON."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
            return await _classify_texts(request, models, settings)
        return await _classify_recording(request, models, settings)

    return routes


async def _classify_recording(
    request: Request, models: ServedModels, settings: ServerSettings
) -> JSONResponse:
    form = await read_form(request, settings)
    try:
        values = read_fields(form.fields, CLASSIFY)
        model = _find(models, values.get("model"))
        if model.classifies_texts:
            message = f"{model.name} classifies texts; send them as JSON, in the field 'input'"
            raise ApiError(400, message, "file", "unsupported_value")
        if form.file is None:
            raise ApiError(400, "there is no file; send the recording in the field 'file'", "file")
        top_k = values.get("top_k", DEFAULT_TOP_K)
        return await _answer(request, model, [form.file.content], top_k, bounds(settings))
    finally:
        form.close()


async def _classify_texts(request: Request, models: ServedModels, settings: ServerSettings) -> JSONResponse:
    body = await _read_json(request)
    known = ("model", "input", "top_k", "truncate")
    for given in body:
        if given not in known:
            message = f"{given[:64]!r} is no field of {CLASSIFY}; there are {', '.join(known)}"
            raise ApiError(400, message, given[:64], "unknown_parameter")
    name, top_k = body.get("model"), body.get("top_k", DEFAULT_TOP_K)
    if not isinstance(name, str | None):
        raise _invalid("model", name, "a name of GET /v1/models")
    if top_k is not None and (type(top_k) is not int or top_k < 1):
        raise _invalid("top_k", top_k, "a number of labels from 1, or null for all")
    truncate = body.get("truncate", False)
    if not isinstance(truncate, bool):
        raise _invalid("truncate", truncate, "true or false")
    texts = _texts(body.get("input"))
    model = _find(models, name)
    if not model.classifies_texts:
        message = f"{model.name} classifies recordings; send one as a form, in the field 'file'"
        raise ApiError(400, message, "input", "unsupported_value")
    return await _answer(request, model, texts, top_k, {"truncate": truncate} | bounds(settings))


async def _answer(
    request: Request, model: ServedModel, sources: list[Any], top_k: int | None, options: dict[str, Any]
) -> JSONResponse:
    """Classify sources in the batches of the engine; one that fails fails all."""
    handles = []
    try:
        for source in sources:  # all labels, for `probs`
            handles.append(model.engine.submit(source, stream=False, top_k=None, **options))
        results: list[Any] = [require_complete(await handle) for handle in handles]
    except Exception as error:
        raise engine_error(error, model.engine, request, ("top_k", "truncate")) from error
    finally:
        for handle in handles:
            handle.cancel()
    for result in results:
        note_result(request, model.name, result)
    body: dict[str, Any] = {
        "id": f"classify-{uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model.name,
        "data": [_item(index, result, model, top_k) for index, result in enumerate(results)],
    }
    if not model.classifies_texts:
        body["usage"] = {"type": "duration", "seconds": round(results[0].duration, 3)}
    return JSONResponse(body)


def _item(index: int, result: Classification, model: ServedModel, top_k: int | None) -> dict[str, Any]:
    """JSON object of a result: vLLM's label, probs and num_classes, and the best labels with their scores."""
    names = model.engine.engine.model.config.id2label
    scores = {one.label: one.score for one in result.labels}
    return {
        "index": index,
        "label": result.labels[0].label,
        "probs": [scores[str(names[place])] for place in sorted(names)],
        "num_classes": len(result.labels),
        "labels": [{"label": one.label, "score": one.score} for one in result.labels[:top_k]],
    }


def _find(models: ServedModels, name: str | None) -> ServedModel:
    """Classifier of a name. Raises ApiError for an unknown one, and for a model that transcribes."""
    model = models.find(name or None)
    if model.transcribes:
        message = f"{model.name} transcribes; send its recordings to /v1/audio/transcriptions"
        raise ApiError(400, message, "model", "unsupported_value")
    return model


async def _read_json(request: Request) -> dict[str, Any]:
    """JSON object of a request's body. Raises ApiError."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_JSON_BYTES:
            message = f"the body is larger than {MAX_JSON_BYTES >> 20} MiB; send fewer texts a request"
            raise ApiError(413, message, "input", "body_too_large")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(body, dict):
        message = f"the body is a {type(body).__name__}; send an object with a field 'input'"
        raise ApiError(400, message, code="invalid_json")
    return body


def _texts(given: Any) -> list[Text]:
    """Texts of the field `input`: one, several, or several pairs. Raises ApiError."""
    if isinstance(given, str):
        return [given]
    accepted = "a text, a list of texts, or a list of pairs of texts"
    if not isinstance(given, list) or not given:
        raise _invalid("input", given, accepted)
    if len(given) > MAX_INPUTS:
        raise _invalid("input", f"{len(given)} texts", f"at most {MAX_INPUTS} a request")
    texts = list[Text]()
    for index, one in enumerate(given):
        if isinstance(one, str):
            texts.append(one)
        elif isinstance(one, list) and len(one) == 2 and all(isinstance(text, str) for text in one):
            texts.append((one[0], one[1]))
        else:
            raise _invalid(f"input[{index}]", one, "a text, or a pair of texts")
    return texts


def _invalid(param: str, value: Any, accepted: str) -> ApiError:
    message = f"{param} is {str(value)[:64]!r}; it must be {accepted}"
    return ApiError(400, message, param, "invalid_value")
