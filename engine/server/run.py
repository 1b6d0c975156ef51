"""Server process: application under uvicorn."""

import uvicorn

from .app import create_app
from .models import ServedModels
from .settings import ServerSettings


def serve(models: ServedModels, settings: ServerSettings, host: str, port: int) -> None:
    """Serve until the process is told to stop."""
    uvicorn.run(create_app(models, settings), host=host, port=port, log_level="warning", access_log=False)
