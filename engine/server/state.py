"""State of a running server that its parts share."""

from asyncio import Task
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from .settings import ServerSettings

if TYPE_CHECKING:
    from .metrics import Metrics


@dataclass
class ServerState:
    """State of a server, `app.state.server` of its application; of the event loop's thread alone.

    Attributes:
        settings: settings of the server.
        metrics: counters and histograms.
        is_draining: True from the first signal on: requests under way end, and no others come.
        tasks: tasks that answer a request.
        is_cancelling: True once requests that have not ended in time are cancelled.
        upload_bytes: bytes of the recordings that are in memory.
    """

    settings: ServerSettings
    metrics: "Metrics"
    is_draining: bool = False
    is_cancelling: bool = False
    tasks: set[Task[Any]] = field(default_factory=set)
    upload_bytes: int = 0

    def cancel_requests(self) -> None:
        """Cancel all requests under way; they end with status 503, or an error in their stream."""
        self.is_cancelling = True
        for task in self.tasks:
            task.cancel()

    def take_memory(self, size: int) -> bool:
        """Reserve memory for a recording's bytes; False where there is none left."""
        if self.upload_bytes + size > self.settings.memory_total_bytes:
            return False
        self.upload_bytes += size
        return True


def state_of(app: FastAPI) -> ServerState:
    """State of an application that `add_operation` has set."""
    state: ServerState = app.state.server
    return state
