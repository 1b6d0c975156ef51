"""API keys: Bearer tokens, from a file or the environment, compared in constant time."""

import hashlib
import hmac
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from .errors import ApiError

KEY_VARIABLE = "TRITONE_API_KEY"
MONITORING = ("/health", "/ready", "/metrics")
PAGE = ("/", "/favicon.ico")  # paths of the page, which asks for a key itself
PAGE_FOLDER = "/page/"


def read_keys(path: Path | None) -> tuple[tuple[str, ...], str | None]:
    """Keys of a file, one a line with comments behind #, and of the environment's TRITONE_API_KEY.

    Returns:
        The keys, and a warning where others than the file's owner may read it.

    Raises:
        ValueError: a file without a key, a key with a space or control character, or an empty variable.
        OSError: the file cannot be read.
    """
    keys: list[str] = []
    warning = None
    if (given := os.environ.get(KEY_VARIABLE)) is not None:
        if not given.strip():
            raise ValueError(f"{KEY_VARIABLE} is empty; give it a key, or unset it")
        keys.append(given.strip())
    if path is not None:
        lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
        of_file = [line for line in lines if line]
        if not of_file:
            raise ValueError(f"{path}: no key there; write one a line")
        keys += of_file
        mode = path.stat().st_mode
        if mode & (stat.S_IRGRP | stat.S_IROTH):
            warning = f"{path}: others than its owner may read it; chmod 600 {path}"
    if any(not key.isprintable() or " " in key for key in keys):
        raise ValueError("an API key has a space or control character; choose another")
    return tuple(dict.fromkeys(keys)), warning


class ApiKeys:
    """API keys of a server, as digests of one length.

    Args:
        keys: keys, any of which is accepted.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def accept(self, given: bytes) -> bool:
        """Check a key in a time that depends neither on it nor on the key that it equals."""
        digest, found = _digest(given), False
        for one in self._digests:
            found |= hmac.compare_digest(one, digest)
        return found


class RequireKey:
    """Middleware that answers requests without a known key with 401, but for open paths.

    Args:
        app: application behind it.
        keys: keys that are accepted.
        protect_health: True protects the paths of monitoring too.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str], protect_health: bool = False) -> None:
        self._app = app
        self._keys = ApiKeys(keys)
        self._open = {*PAGE} if protect_health else {*PAGE, *MONITORING}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_open(scope["path"]):
            refusal = self._refusal(scope)
            if refusal is not None:
                await refusal.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in self._open or path.startswith(PAGE_FOLDER)

    def _refusal(self, scope: Scope) -> ApiError | None:
        """Error for the key of a request; None where it is accepted."""
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        headers = {"www-authenticate": 'Bearer realm="tritone"'}
        if scheme.lower() != b"bearer" or not key.strip():
            message = "this server needs an API key; send it in the header: Authorization: Bearer KEY"
            return ApiError(401, message, headers=headers)
        if self._keys.accept(key.strip()):
            return None
        message = "the API key is not one of this server's; check it, or ask for one"
        return ApiError(401, message, code="invalid_api_key", headers=headers)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
