"""Endpoints of OpenAI's audio API: transcriptions and translations."""

from typing import Any

from fastapi import APIRouter, Request

from ..audio.errors import AudioError
from .errors import ApiError
from .models import ServedModels
from .requests import note_result
from .settings import ServerSettings
from .uploads import read_form


def transcription_routes(models: ServedModels, settings: ServerSettings) -> APIRouter:
    """Routes of the endpoints."""
    routes = APIRouter()

    @routes.post("/v1/audio/transcriptions")
    async def transcribe(request: Request) -> Any:
        form = await read_form(request, settings)
        try:
            fields = dict(form.fields)
            name, engine = models.find(fields.get("model"))
            if form.file is None:
                raise ApiError(400, "there is no file; send the recording in the field 'file'", "file")
            try:
                result = await engine.transcribe(form.file.content)
            except AudioError as error:
                raise ApiError(400, str(error), "file") from error
            note_result(request, name, result)
            return {"text": result.text}
        finally:
            form.close()

    return routes
