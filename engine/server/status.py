"""Endpoints for those that watch the server: /health, /ready and /metrics."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from .models import ServedModels
from .state import ServerState

_STATUSES = ("ok", "degraded", "failed")  # from the best to the worst


def status_routes(models: ServedModels, state: ServerState) -> APIRouter:
    """Routes of the endpoints."""
    routes = APIRouter()

    @routes.get("/health", include_in_schema=False)
    async def health() -> JSONResponse:
        """Health of each model; 503 where one has failed, which only a new process mends."""
        found = _health(models)
        return JSONResponse(found, 503 if found["status"] == "failed" else 200)

    @routes.get("/ready", include_in_schema=False)
    async def ready() -> JSONResponse:
        """Readiness for requests; 503 while the server stops, and where a model has failed."""
        if state.is_draining:
            return JSONResponse({"status": "draining"}, 503)
        failed = _health(models)["status"] == "failed"
        return JSONResponse({"status": "failed" if failed else "ready"}, 503 if failed else 200)

    @routes.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        """Metrics in Prometheus's text format."""
        return Response(state.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})

    return routes


def _health(models: ServedModels) -> dict[str, Any]:
    """Worst status of the models, and each one's with its reason."""
    each = {name: engine.health() for name, engine in models.engines.items()}
    return {
        "status": max((one.status for one in each.values()), key=_STATUSES.index),
        "models": {name: {"status": one.status, "reason": one.reason} for name, one in each.items()},
    }
