"""Errors of the API, in the form in which OpenAI's clients read them."""

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ...scheduler.request import FinishReason
from ..async_engine import AsyncEngine
from ..audio.errors import AudioError
from ..bounds import DeadlineError, QueueFullError
from ..outputs import R
from ..subtitles.units import clean
from ..tasks.inputs import TextError

_log = logging.getLogger(__name__)

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_FAILED_RETRY = 30  # seconds until a failed or stopping server has a successor, with luck


@dataclass
class ApiError(Exception):
    """Error that answers a request.

    Args:
        status: HTTP status.
        message: problem and remedy.
        param: name of the field that is wrong; None for none.
        code: short name of the error; None for none.
        type: kind of error, by default from the status.
        headers: headers of the answer, such as Retry-After.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """JSON object of the error, of an answer or an event."""
        kind = self.type or _TYPES.get(self.status)
        kind = kind or ("server_error" if self.status >= 500 else "invalid_request_error")
        message, param = clean(self.message), None if self.param is None else clean(self.param)
        return {"error": {"message": message, "type": kind, "param": param, "code": self.code}}

    def event(self) -> bytes:
        """Event that ends a stream with this error."""
        data = json.dumps({"type": "error"} | self.body(), ensure_ascii=False, separators=(",", ":"))
        return f"event: error\ndata: {data}\n\n".encode()

    def response(self) -> JSONResponse:
        """Answer with this error."""
        return JSONResponse(self.body(), self.status, headers=dict(self.headers))


def add_error_handlers(app: FastAPI) -> None:
    """Let the application answer with `ApiError`s, also where there is no such path or method."""

    @app.exception_handler(ApiError)
    async def answer(request: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(HTTPException)
    async def answer_framework(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        message = f"{error.detail}: {request.method} {request.url.path}"
        code = None
        if error.status_code == 404:
            message = f"there is no {request.method} {request.url.path}; /openapi.json has the endpoints"
            code = "unknown_url"
        elif error.status_code == 405:
            allowed = headers.get("allow", headers.get("Allow", "another method"))
            message = f"{request.url.path} takes {allowed}, not {request.method}"
            code = "method_not_allowed"
        return ApiError(error.status_code, message, code=code, headers=headers).response()

    @app.exception_handler(RequestValidationError)
    async def answer_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][1:]) or None
        return ApiError(400, str(first["msg"]), param).response()


def engine_error(
    error: Exception, engine: AsyncEngine, request: Request, fields: Iterable[str] = ()
) -> ApiError:
    """Error of the API for one of an engine.

    Args:
        error: error of a submission or result.
        engine: the engine.
        request: request that it answers; its id is in the log and the message where the server is to blame.
        fields: names of the request's fields, one of which the message of a ValueError may name.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFullError):
        headers = {"retry-after": str(math.ceil(error.retry_after))}
        return ApiError(429, str(error), code="queue_full", headers=headers)
    if isinstance(error, DeadlineError):
        headers = {"x-should-retry": "false"}  # of OpenAI's clients: it would only add to the load
        return ApiError(504, str(error), code="deadline_exceeded", headers=headers)
    if isinstance(error, AudioError):
        return ApiError(400, str(error), "file", "invalid_audio")
    if isinstance(error, TextError):
        return ApiError(400, str(error), "input", "invalid_text")
    if isinstance(error, ValueError):
        return ApiError(400, str(error), _named(str(error), fields))
    request_id = request.state.request_id
    if engine.health().status == "failed":
        _log.error("request %s came to a model that has stopped: %s", request_id, error)
        return unavailable("this model has stopped; try again later")
    _log.error("request %s failed", request_id, exc_info=error)
    message = f"the server has failed on this request; its log has request {request_id}"
    return ApiError(500, message, code="internal_error")


def unavailable(message: str) -> ApiError:
    """Error of a server that takes no requests now."""
    return ApiError(503, message, code="unavailable", headers={"retry-after": str(_FAILED_RETRY)})


def require_complete(result: R) -> R:
    """Result that is not cut short. Raises ApiError (503) for one that the engine's end has cancelled."""
    if result.finish_reason is FinishReason.CANCELLED:
        raise unavailable("the server is stopping; send the request again")
    return result


def _named(message: str, fields: Iterable[str]) -> str | None:
    """Field that a message names first; None where it names none."""
    found = [(place.start(), name) for name in fields if (place := re.search(rf"\b{name}\b", message))]
    return min(found)[1] if found else None
