"""Endpoints of OpenAI's audio API: transcriptions and translations."""

import asyncio
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ..handle import Handle
from ..outputs import Transcription
from .errors import ApiError, engine_error, require_complete
from .events import TranscriptStream
from .fields import TRANSCRIPTIONS, TRANSLATIONS
from .models import ServedModels
from .openapi import operation
from .parameters import Parameters, bounds, read_parameters
from .requests import note_result
from .responses import answer
from .settings import ServerSettings
from .uploads import Form, read_form

_LONG = 300.0  # seconds of audio; subtitles of three hours take half a second, for which others would wait


def transcription_routes(models: ServedModels, settings: ServerSettings) -> APIRouter:
    """Routes of the endpoints."""
    routes = APIRouter()

    @routes.post(TRANSCRIPTIONS, **operation(TRANSCRIPTIONS, "create_transcription"))
    async def transcribe(request: Request) -> Response:
        """Transcript of a recording."""
        return await _respond(request, TRANSCRIPTIONS, models, settings)

    @routes.post(TRANSLATIONS, **operation(TRANSLATIONS, "create_translation"))
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
        handle = _submit(request, form, parameters, settings)
        if parameters.stream:
            opening = TranscriptStream(
                handle,
                parameters,
                lambda error: _error(error, request, form, parameters),
                lambda result: note_result(request, parameters.model.name, result),
                form.close,
            )
            try:
                await opening.open()
            except Exception as error:
                raise _error(error, request, form, parameters) from error
            stream = opening
            return stream
        try:
            result = require_complete(await handle)
        except Exception as error:
            raise _error(error, request, form, parameters) from error
        note_result(request, parameters.model.name, result)
        if result.duration > _LONG:
            return await asyncio.to_thread(answer, result, parameters)
        return answer(result, parameters)
    finally:
        if stream is None:
            form.close()


def _submit(
    request: Request, form: Form, parameters: Parameters, settings: ServerSettings
) -> Handle[Transcription]:
    """Submit the recording of a form to the engine. Raises ApiError."""
    if form.file is None:
        raise ApiError(400, "there is no file; send the recording in the field 'file'", "file")
    options = parameters.options | bounds(settings)
    try:
        return parameters.model.engine.submit(form.file.content, stream=parameters.stream, **options)
    except Exception as error:
        raise _error(error, request, form, parameters) from error


def _error(error: Exception, request: Request, form: Form, parameters: Parameters) -> ApiError:
    found = engine_error(error, parameters.model.engine, request, parameters.fields)
    return found if form.file is None else replace(found, message=form.file.named(found.message))
