"""Jobs of an engine's worker, and their queue, with the places for those that are read and not finished."""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from ..scheduler.request import GenerationOptions
from .handle import Handle

if TYPE_CHECKING:
    from .tasks.inputs import Inputs

# Inputs of the model, and options (None for an encoder-only model).
Prepared = tuple["Inputs", GenerationOptions | None]


@dataclass(eq=False, slots=True)
class Job:
    """State of one request: queued, being read, read (`prepared` set), or in the loop.

    One that is `prepared` when it is submitted needs no reading: the loop's thread takes it from the queue.
    """

    handle: Handle[Any]
    prepare: Callable[[], Prepared] | None  # for a reading thread; may hold audio, so dropped once called
    priority: int = 0
    stream: bool = True
    prepared: Prepared | None = None
    request_id: int = -1  # id in the loop; -1 before
    duration: float = 0.0  # seconds of audio, once read
    warnings: tuple[str, ...] = ()  # about the reading, likewise
    being_read: bool = False
    in_flight: bool = False  # has a place among those that are read and not finished


class JobQueue:
    """Queue of jobs by priority, equal ones in order of submission, and places for those in flight.

    Not thread-safe, except `waits_for`.

    Args:
        unfinished: jobs that have not ended, by handle; others in the queue are skipped.
        max_in_flight: number of places.
        max_seconds: seconds of audio in flight from which on no job is taken.
    """

    def __init__(self, unfinished: Mapping[Handle[Any], Job], max_in_flight: int, max_seconds: float) -> None:
        self._unfinished = unfinished
        self._heap: list[tuple[int, int, Job]] = []
        self._numbers = count()
        self.free_requests = max_in_flight
        self._free_seconds = max_seconds

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, job: Job) -> None:
        """Add a job."""
        heapq.heappush(self._heap, (-job.priority, next(self._numbers), job))

    def waits_for(self, *, prepared: bool) -> bool:
        """Check whether the first job has a place and waits for the loop (prepared), or for a reader.

        One that has been cancelled in the queue waits for either; a reader is named.
        """
        try:
            free = self.free_requests > 0 and self._free_seconds > 0
            return free and (self._heap[0][2].prepared is not None) is prepared
        except IndexError:
            return False

    def take(self, *, prepared: bool) -> Job | None:
        """Take the first job and a place for it; None where it waits for another thread, or for a place."""
        while self._heap and self._heap[0][2].handle not in self._unfinished:
            heapq.heappop(self._heap)
        if not self.waits_for(prepared=prepared):
            return None
        job = heapq.heappop(self._heap)[2]
        job.in_flight = True
        self.free_requests -= 1
        return job

    def set_ready(self, job: Job, prepared: Prepared) -> None:
        """Note the inputs of a job that has been taken."""
        inputs = prepared[0]
        left = self._free_seconds - inputs.duration
        job.prepared, job.duration, self._free_seconds = prepared, inputs.duration, left
        job.warnings = inputs.warnings

    def free_place(self, job: Job) -> None:
        """Free the place of an ended job, if it has one."""
        if job.in_flight:
            job.in_flight = False
            self.free_requests += 1
            self._free_seconds += job.duration  # 0 unless it has been read
