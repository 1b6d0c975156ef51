"""The server's application: routes, errors, and the engines' lifetime."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from ... import __version__
from .classify import classify_routes
from .errors import add_error_handlers
from .models import ServedModels, model_routes
from .openapi import document
from .operation import add_operation
from .page import page_routes
from .settings import ServerSettings
from .transcriptions import transcription_routes


def create_app(models: ServedModels, settings: ServerSettings | None = None) -> FastAPI:
    """Application that serves models; the engines are closed when it ends.

    Args:
        models: engines by name.
        settings: limits and switches; by default all defaults.
    """
    settings = settings or ServerSettings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await models.close()

    app = FastAPI(title="Tritone", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    add_error_handlers(app)
    add_operation(app, models, settings)
    app.include_router(model_routes(models))
    app.include_router(transcription_routes(models, settings))
    app.include_router(classify_routes(models, settings))
    app.include_router(page_routes())
    document(app, needs_key=bool(settings.api_keys))
    return app
