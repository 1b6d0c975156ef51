"""Bounds of requests that wait, and of the time until a result is there, with their errors."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .config import EngineConfig

if TYPE_CHECKING:
    from .jobs import JobQueue
    from .stats import Tally

# Seconds, least and most: the rate is that of quieter times at first, and an engine that waits for the
# refused to come again costs more than a request that is refused twice.
_RETRY_AFTER = (1.0, 10.0)


class QueueFullError(RuntimeError):
    """Error of a submission to an engine whose bounds of waiting requests are reached.

    Attributes:
        retry_after: seconds after which to submit again, 1 to 10: those in which the engine takes half of the
            requests that wait, at its rate of late.
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


def deadline_error(seconds: float, place: str) -> DeadlineError:
    """Error of a request that has not ended within so many seconds, with where it was then."""
    return DeadlineError(
        f"not finished by its deadline of {seconds:g} s, when it was {place}; submit fewer at a time, or "
        "give it longer"
    )


class WaitingBounds:
    """Bounds of the requests that wait to be read. An empty queue has room for any one request.

    Args:
        config: configuration with `max_waiting` and `max_waiting_seconds`.
        queue: queue with the requests that wait.
        tally: times of those that have finished.
    """

    def __init__(self, config: EngineConfig, queue: "JobQueue", tally: "Tally") -> None:
        self._queue, self._tally = queue, tally
        self._most = math.inf if config.max_waiting is None else config.max_waiting
        self._most_seconds = math.inf if config.max_waiting_seconds is None else config.max_waiting_seconds

    @property
    def have_room(self) -> bool:
        """False while neither bound lets any more wait. Any thread may ask, without the lock."""
        queue = self._queue
        return not queue.waiting or (
            queue.waiting < self._most and queue.waiting_seconds < self._most_seconds
        )

    def check(self, seconds: float) -> None:
        """Check that a request with so many seconds of audio may wait. Raises QueueFullError where not."""
        waiting, waiting_seconds = self._queue.waiting, self._queue.waiting_seconds
        if not waiting:
            return
        if waiting >= self._most:
            problem = f"{waiting} requests wait, and max_waiting of EngineConfig is {self._most}"
        elif waiting_seconds + seconds > self._most_seconds:
            problem = (
                f"{waiting_seconds:.1f} s of audio wait, {seconds:.1f} s more are too many: "
                f"max_waiting_seconds of EngineConfig is {self._most_seconds:g}"
            )
        else:
            return
        per_request, per_second = self._tally.recent_times()
        least, most = _RETRY_AFTER
        estimate = min(max((waiting_seconds * per_second or waiting * per_request) / 2, least), most)
        raise QueueFullError(f"{problem}; submit again in about {estimate:.0f} s", estimate)
