"""Operation of an application: its state, what is around each request, and the endpoints of its status."""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from .access import RequireKey
from .metrics import Metrics
from .models import ServedModels
from .requests import TrackRequests
from .settings import ServerSettings
from .state import ServerState
from .status import status_routes


def add_operation(app: FastAPI, models: ServedModels, settings: ServerSettings) -> ServerState:
    """Add the state, keys, request ids, metrics and endpoints of status to an application.

    Returns:
        The state, which is `app.state.server` too.
    """
    state = ServerState(settings, Metrics(models.engines))
    app.state.server = state
    # The last one is the outermost.
    if settings.api_keys:
        app.add_middleware(RequireKey, keys=settings.api_keys, protect_health=settings.protect_health)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
        )
    app.add_middleware(TrackRequests, state=state)
    app.include_router(status_routes(models, state))
    return state
