"""What the maker of an engine says of its cache and of how a GPU decodes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """See `Engine`, whose arguments these are."""

    num_rows: int | None = None
    num_pages: int | None = None
    memory_fraction: float | None = None
    graphs: bool = True
    overlap: bool = True
