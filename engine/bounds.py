"""Bounds of an engine: requests and audio that may wait, and deadlines of requests."""

import heapq
import math
from typing import TYPE_CHECKING

from .config import EngineConfig

if TYPE_CHECKING:
    from .jobs import Job, JobQueue
    from .stats import Tally

_MIN_RETRY, _MAX_RETRY = 0.1, 60.0  # seconds
_UNKNOWN_RETRY = 1.0  # seconds, before any request has finished


class QueueFullError(RuntimeError):
    """Error of `Engine.submit` where as much waits as may; submit the request again later.

    Attributes:
        retry_after: seconds after which to submit it again: an estimate of the time in which the engine takes
            the requests that wait, at its rate of late; 0.1 to 60.
    """

    def __init__(self, message: str, retry_after: float = _UNKNOWN_RETRY) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineError(TimeoutError):
    """Error of a request that had no result by its deadline, which has ended it."""


class WaitingBounds:
    """Bounds of the requests that wait to be read. An empty queue has room for any one request.

    Args:
        config: configuration with `max_waiting` and `max_waiting_seconds`.
        queue: queue with the requests that wait.
        tally: times of those that have finished.
    """

    def __init__(self, config: EngineConfig, queue: "JobQueue", tally: "Tally") -> None:
        self._queue, self._tally = queue, tally
        self._max_requests = math.inf if config.max_waiting is None else config.max_waiting
        self._max_seconds = math.inf if config.max_waiting_seconds is None else config.max_waiting_seconds

    @property
    def have_room(self) -> bool:
        """False while neither bound lets any more wait. Any thread may ask, without the lock."""
        queue = self._queue
        return not queue.waiting or (
            queue.waiting < self._max_requests and queue.waiting_seconds < self._max_seconds
        )

    def check(self, seconds: float) -> None:
        """Check that a request with so many seconds of audio may wait. Raises QueueFullError where not."""
        waiting, waiting_seconds = self._queue.waiting, self._queue.waiting_seconds
        if not waiting:
            return
        if waiting >= self._max_requests:
            problem = f"{waiting} requests wait, and max_waiting of EngineConfig is {self._max_requests}"
        elif waiting_seconds + seconds > self._max_seconds:
            problem = (
                f"{waiting_seconds:.1f} s of audio wait, {seconds:.1f} s more are too many: "
                f"max_waiting_seconds of EngineConfig is {self._max_seconds:g}"
            )
        else:
            return
        per_request, per_second = self._tally.recent_times()
        estimate = waiting_seconds * per_second or waiting * per_request or _UNKNOWN_RETRY
        retry_after = min(max(estimate, _MIN_RETRY), _MAX_RETRY)
        raise QueueFullError(
            f"{problem}; submit again in about {retry_after:.1f} s, or raise the bound", retry_after
        )


def deadline_error(job: "Job") -> DeadlineError:
    """Error of a job whose deadline has passed, with the place where it was."""
    if any(times.admitted is not None for times in job.times.values()):
        place = "in the batch"
    elif job.times:
        place = "waiting for a place in the batch"
    else:
        place = "being read" if job.places else "waiting to be read"
    return DeadlineError(
        f"not finished by its deadline of {job.time_limit:g} s, when it was {place}; give it more time, or "
        "the engine less at once"
    )


class Deadlines:
    """Jobs that have a deadline, the earliest first. Not thread-safe, except `next`."""

    def __init__(self) -> None:
        # Without the jobs: an entry stays until its time or a clean-up, and a job may hold much audio.
        self._heap: list[tuple[float, int]] = []
        self._jobs: dict[int, Job] = {}

    @property
    def next(self) -> float:
        """Earliest deadline, perhaps of a job that has ended; infinity without one."""
        try:
            return self._heap[0][0]
        except IndexError:
            return math.inf

    def add(self, job: "Job") -> None:
        """Add a job, if it has a deadline."""
        if job.deadline < math.inf:
            self._jobs[id(job)] = job
            heapq.heappush(self._heap, (job.deadline, id(job)))

    def discard(self, job: "Job") -> None:
        """Drop a job that has ended, if it has a deadline."""
        if self._jobs.pop(id(job), None) is not None and len(self._heap) > 2 * len(self._jobs) + 64:
            heap = [(other.deadline, key) for key, other in self._jobs.items()]
            heapq.heapify(heap)
            self._heap = heap

    def take_due(self, now: float) -> "list[Job]":
        """Take the jobs whose deadline has passed."""
        due = []
        while self.next <= now:
            _, key = heapq.heappop(self._heap)
            job = self._jobs.get(key)
            if job is not None and job.deadline <= now:  # or of an ended job, whose id is another's by now
                due.append(self._jobs.pop(key))
        return due
