"""Errors of the API, in the form in which OpenAI's clients read them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse


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

    def response(self) -> JSONResponse:
        """Answer with this error."""
        kind = self.type or ("server_error" if self.status >= 500 else "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": error}, self.status, headers=dict(self.headers))


def add_error_handlers(app: FastAPI) -> None:
    """Let the application answer with `ApiError`s."""

    @app.exception_handler(ApiError)
    async def answer(request: Request, error: ApiError) -> JSONResponse:
        return error.response()
