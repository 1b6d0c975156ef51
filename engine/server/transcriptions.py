"""Endpoints of OpenAI's audio API: transcriptions and translations."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ...scheduler.request import FinishReason
from ..handle import Handle
from ..outputs import Transcription
from .errors import ApiError, engine_error, unavailable
from .events import TranscriptStream
from .fields import TRANSCRIPTIONS, TRANSLATIONS
from .models import ServedModels
from .parameters import Parameters, read_parameters
from .responses import answer
from .settings import ServerSettings
from .uploads import Form, read_form


def transcription_routes(models: ServedModels, settings: ServerSettings) -> APIRouter:
    """Routes of the endpoints."""
    routes = APIRouter()

    @routes.post("/v1/audio/transcriptions", operation_id="create_transcription")
    async def transcribe(request: Request) -> Response:
        """Transcript of a recording."""
        return await _respond(request, TRANSCRIPTIONS, models, settings)

    @routes.post("/v1/audio/translations", operation_id="create_translation")
    async def translate(request: Request) -> Response:
        """Translation of a recording into English."""
        return await _respond(request, TRANSLATIONS, models, settings)

    return routes


async def _respond(
    request: Request, endpoint: str, models: ServedModels, settings: ServerSettings
) -> Response:
    form = await read_form(request, settings)
    stream: TranscriptStream | None = None
    try:
        parameters = read_parameters(form.fields, endpoint, models)
        handle = _submit(request, form, parameters)
        if parameters.stream:
            opening = TranscriptStream(
                handle,
                parameters,
                lambda error: _error(error, request, form, parameters),
                lambda result: _note(request, parameters, result),
                form.close,
            )
            try:
                await opening.open()
            except Exception as error:
                raise _error(error, request, form, parameters) from error
            stream = opening
            return stream
        try:
            result = complete(await handle)
        except Exception as error:
            raise _error(error, request, form, parameters) from error
        _note(request, parameters, result)
        return answer(result, parameters)
    finally:
        if stream is None:
            form.close()


def complete(result: Any) -> Any:
    """Result that is not cut short. Raises ApiError (503) for one that the engine's end has cancelled."""
    if result.finish_reason is FinishReason.CANCELLED:
        raise unavailable("the server is stopping; send the request again")
    return result


def _submit(request: Request, form: Form, parameters: Parameters) -> Handle[Transcription]:
    """Submit the recording of a form to the engine. Raises ApiError."""
    if form.file is None:
        raise ApiError(400, "there is no file; send the recording in the field 'file'", "file")
    try:
        return parameters.model.engine.submit(
            form.file.content, stream=parameters.stream, **parameters.options
        )
    except Exception as error:
        raise _error(error, request, form, parameters) from error


def _note(request: Request, parameters: Parameters, result: Transcription) -> None:
    """Note the result of a request, for the metrics and the log."""


def _error(error: Exception, request: Request, form: Form, parameters: Parameters) -> ApiError:
    return engine_error(error, parameters.model.engine, request, parameters.fields)
