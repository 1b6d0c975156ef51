"""Command `tritone serve`."""

from typing import Annotated

import typer


def serve(
    model: Annotated[
        list[str] | None, typer.Option(metavar="[NAME=]MODEL", help="Model to serve; may be repeated.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
) -> None:
    """Serve transcripts over HTTP, as OpenAI's audio API."""
    from ..async_engine import AsyncEngine
    from ..server.models import ServedModels
    from ..server.run import serve as run
    from ..server.settings import ServerSettings

    engines = {}
    for one in model or ["digits"]:
        name, _, path = one.rpartition("=")
        engines[name or path] = AsyncEngine(path)
    run(ServedModels(engines), ServerSettings(), host, port)
