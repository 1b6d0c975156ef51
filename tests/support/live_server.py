"""Server on loopback, in a thread of the test's own process."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from tritone.engine.server.app import create_app
from tritone.engine.server.connections import connection_class
from tritone.engine.server.models import ServedModels
from tritone.engine.server.settings import ServerSettings


@contextmanager
def serving(models: ServedModels, settings: ServerSettings | None = None) -> Iterator[str]:
    """Address of a server of these models, which are closed at its end."""
    settings = settings or ServerSettings()
    config = uvicorn.Config(
        create_app(models, settings), http=connection_class(settings), ws="none", log_config=None
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
