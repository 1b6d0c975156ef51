"""Settings of the server: every tunable, its unit and the reason for its default."""

from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of the server.

    Raises:
        ValueError: a size or count below 1, or a time that is not above 0.
    """

    # Uploads. A recording is in memory or, beyond either bound, in a temporary file.
    max_upload_bytes: int = 512 * MIB  # of one request's body
    memory_upload_bytes: int = MIB  # of one recording in memory
    memory_total_bytes: int = 256 * MIB  # of all recordings in memory, so that many clients stay cheap
    max_fields: int = 64  # of one form; OpenAI's has 14, of which some may be repeated
    max_field_bytes: int = 64 << 10  # of one field that is no file: a prompt is the longest
    max_part_header_bytes: int = 8 << 10  # of all headers of one part of a form
    upload_dir: Path | None = None  # folder of temporary files; None: the system's

    # Clients. Seconds for a request's head, between two parts of its body, and to take an answer.
    client_timeout: float = 30.0
    min_body_rate: float = 500.0  # bytes a second, after `client_timeout`; the slowest codecs make more
    linger_seconds: float = 2.0  # for a client that is still sending to read its refusal
    keep_alive_seconds: float = 5.0  # without a request until a connection is closed
    max_connections: int = 2048  # the one that is idle for longest makes room for a new one

    # Requests.
    deadline: float | None = None  # seconds from a request's submission to its result; None: no bound
    drain_timeout: float = 25.0  # seconds that requests have to end once the server is told to stop

    # Access.
    api_keys: tuple[str, ...] = field(default=(), repr=False)  # none: everything is open
    protect_health: bool = False  # True: /health, /ready and /metrics need a key too
    cors_origins: tuple[str, ...] = ()  # of other sites whose pages may call; "*" for all

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, bool):
                continue
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} is {value}; it must be 1 or more")
            if isinstance(value, float) and not value > 0:
                raise ValueError(f"{name} is {value}; it must be above 0")
