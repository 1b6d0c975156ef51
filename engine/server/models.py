"""Models of a server, by the names that clients give them."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from ...scheduler.model_protocol import Task
from ..async_engine import AsyncEngine
from .errors import ApiError
from .openapi import MODEL, MODELS, operation


@dataclass
class ServedModel:
    """Model of a server, and what its endpoints need to know of it.

    Args:
        name: name that the server lists.
        engine: its engine.
        created: seconds since 1970 at which it was loaded.
    """

    name: str
    engine: AsyncEngine
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def task(self) -> Task:
        """Task of the model."""
        task: Task = self.engine.engine.model.task
        return task

    @property
    def transcribes(self) -> bool:
        """True for a model that makes text of recordings."""
        return self.task in (Task.GENERATION, Task.CTC)

    @property
    def classifies_texts(self) -> bool:
        """True for a classifier of texts."""
        return self.task is Task.SEQUENCE_CLASSIFICATION

    @property
    def tokenizer(self) -> Any:
        """Tokenizer of a model that transcribes."""
        return self.engine.engine.processor.tokenizer

    @cached_property
    def is_whisper(self) -> bool:
        """True for a model of Whisper's family, with its options."""
        config: Any = self.engine.engine.model.config
        return bool(config.model_type == "whisper")

    @cached_property
    def translates(self) -> bool:
        """True for a model that translates speech into English when asked to."""
        if not self.is_whisper:
            return False
        read = self.engine.engine.model.generation_config.read
        return read("is_multilingual", {}) is not False and bool(read("task_to_id", {}))

    @cached_property
    def times_words(self) -> bool:
        """True for a model whose words may have times."""
        if self.task is Task.CTC:
            return True
        return self.is_whisper and bool(self.engine.engine.model.has_alignment_heads)

    def describe(self) -> dict[str, Any]:
        """JSON object of the model: as in OpenAI's list, then its task and the times that it gives."""
        granularities = ["word", "segment"] if self.times_words else ["segment"]
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "tritone",
            "task": "transcription" if self.transcribes else "classification",
            "timestamp_granularities": granularities if self.transcribes else [],
        }


class ServedModels:
    """Engines of a server by name; the first one is that of requests that name none.

    Args:
        engines: engines by name.
        aliases: other names of these, which clients may give; they are not listed.

    Raises:
        ValueError: no engine, an alias that is a model's name, or of an unknown model.
    """

    def __init__(self, engines: Mapping[str, AsyncEngine], aliases: Mapping[str, str] | None = None) -> None:
        if not engines:
            raise ValueError("a server needs a model; give one")
        self.engines = dict(engines)
        self._models = {name: ServedModel(name, engine) for name, engine in engines.items()}
        self._aliases = dict(aliases or {})
        there = ", ".join(self.engines)
        for alias, name in self._aliases.items():
            if alias in self.engines:
                raise ValueError(f"the alias {alias!r} is the name of a model; choose another")
            if name not in self.engines:
                raise ValueError(
                    f"the alias {alias!r} is of {name!r}, which is not served; there are {there}"
                )

    def __iter__(self) -> Iterator[str]:
        return iter(self.engines)

    @property
    def all(self) -> list[ServedModel]:
        """Models in their order."""
        return list(self._models.values())

    def find(self, name: str | None) -> ServedModel:
        """Model of a name or alias; None for the default. Raises ApiError (404) for an unknown one."""
        name = next(iter(self.engines)) if name is None else self._aliases.get(name, name)
        if name not in self._models:
            there = ", ".join([*self.engines, *self._aliases])
            message = f"the model {name!r} does not exist; this server has {there}"
            raise ApiError(404, message, "model", "model_not_found")
        return self._models[name]

    async def close(self, *, cancel: bool = False) -> None:
        """Close all engines."""
        for engine in self.engines.values():
            await engine.close(cancel=cancel)


def model_routes(models: ServedModels) -> APIRouter:
    """Routes of the list of models."""
    routes = APIRouter()

    @routes.get(MODELS, **operation(MODELS, "list_models"))
    async def list_models() -> JSONResponse:
        """Models of the server."""
        return JSONResponse({"object": "list", "data": [model.describe() for model in models.all]})

    @routes.get(MODEL.replace("}", ":path}"), **operation(MODEL, "retrieve_model"))
    async def retrieve_model(request: Request) -> JSONResponse:
        """Model of a name or alias."""
        given = request.path_params["model"]
        return JSONResponse(models.find(given).describe() | {"id": given})

    return routes
