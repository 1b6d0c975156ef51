"""Page at `/` on which a browser tries the models: a few static files, without a build step."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, Request, Response

FOLDER = Path(__file__).parent
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing from outside, nothing inline; a recording plays from the browser's memory, a blob. No other site can
# frame the page, whose key and microphone it could borrow.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Names carry no version, so a browser asks each time, and is told in a few bytes that its copy is good.
    "Cache-Control": "no-cache",
}


def page_files() -> list[Path]:
    """Files of the page."""
    return sorted(path for path in FOLDER.iterdir() if path.suffix in TYPES)


def page_routes() -> APIRouter:
    """Routes of the page: `/`, and `/page/NAME` for each of its other files. They need no key."""
    routes = APIRouter()
    for path in page_files():
        url = "/" if path.name == "index.html" else f"/page/{path.name}"
        routes.add_route(url, _answer(path), include_in_schema=False)
    return routes


def _answer(path: Path) -> Callable[[Request], Awaitable[Response]]:
    """Endpoint of one file, which is read once."""
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = HEADERS | {"ETag": tag}

    async def answer(request: Request) -> Response:
        if tag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=TYPES[path.suffix], headers=headers)

    return answer
