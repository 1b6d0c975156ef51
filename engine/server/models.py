"""Models of a server, by the names that clients give them."""

from collections.abc import Iterator, Mapping

from ..async_engine import AsyncEngine
from .errors import ApiError


class ServedModels:
    """Engines of a server by name; the first one is the default.

    Args:
        engines: engines by name.
        aliases: names of engines by their other names.
    """

    def __init__(self, engines: Mapping[str, AsyncEngine], aliases: Mapping[str, str] | None = None) -> None:
        self.engines = dict(engines)
        self.aliases = dict(aliases or {})

    def __iter__(self) -> Iterator[str]:
        return iter(self.engines)

    def find(self, name: str | None) -> tuple[str, AsyncEngine]:
        """Name and engine of a model. Raises ApiError (404) for an unknown one."""
        name = next(iter(self.engines)) if name is None else self.aliases.get(name, name)
        if name not in self.engines:
            there = ", ".join(self.engines)
            message = f"The model {name!r} does not exist; this server has {there}"
            raise ApiError(404, message, "model", "model_not_found")
        return name, self.engines[name]

    async def close(self, *, cancel: bool = False) -> None:
        """Close all engines."""
        for engine in self.engines.values():
            await engine.close(cancel=cancel)
