"""Bounds of requests that wait, and of the time until a result is there, with their errors."""

import math
from typing import Any

import numpy as np

_RETRY_AFTER = (1.0, 60.0)  # seconds, least and most


class QueueFullError(RuntimeError):
    """Error of a submission to an engine whose bounds of waiting requests are reached.

    Attributes:
        retry_after: estimate in seconds of when there is room again.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.retry_after)


class DeadlineError(TimeoutError):
    """Error of a request that has not ended by its deadline."""


def check_deadline(seconds: Any) -> float | None:
    """Validate a deadline in seconds from the submission. Raises ValueError unless it is None or positive."""
    if seconds is None:
        return None
    is_number = isinstance(seconds, int | float | np.integer | np.floating) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds < math.inf:
        raise ValueError(f"deadline is {seconds!r}; it must be a positive number of seconds, or None")
    return float(seconds)


def check_room(
    waiting: int,
    waiting_seconds: float,
    seconds: float,
    limit: int | None,
    limit_seconds: float | None,
    rtfx: float,
) -> None:
    """Check whether another request may wait; the first one always may.

    Args:
        waiting, waiting_seconds: requests that wait, and seconds of their audio.
        seconds: seconds of audio of the new one.
        limit, limit_seconds: the most of both; None for no bound.
        rtfx: seconds of audio that the engine takes a second, 0 if unknown.

    Raises:
        QueueFullError: it may not.
    """
    problem = None
    if waiting and limit is not None and waiting >= limit:
        problem = f"{waiting} requests wait, and max_waiting is {limit}"
    elif waiting and limit_seconds is not None and waiting_seconds + seconds > limit_seconds:
        problem = f"{waiting_seconds:.0f} s of audio wait, and max_waiting_seconds is {limit_seconds:g}"
    if problem is not None:
        least, most = _RETRY_AFTER
        estimate = min(max(waiting_seconds / rtfx if rtfx else least, least), most)
        raise QueueFullError(f"{problem}; submit again in about {estimate:.0f} s", estimate)
