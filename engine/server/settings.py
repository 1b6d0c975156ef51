"""Settings of the server: every tunable, its unit and the reason for its default."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of the server."""

    max_upload_bytes: int = 512 << 20  # of one request's body
    memory_upload_bytes: int = 1 << 20  # a larger file goes to a temporary file, so that many stay cheap
