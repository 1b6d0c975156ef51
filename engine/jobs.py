"""Jobs of an engine's worker, and their queue, with the places for those that are read and not finished."""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from ..scheduler.request import GenerationOptions, RequestOutput
from .handle import Handle
from .session import Session

if TYPE_CHECKING:
    from .audio.speech import SpeechTimes
    from .tasks.inputs import Inputs

# Inputs of the model, and options (None for an encoder-only model).
Prepared = tuple["Inputs", GenerationOptions | None]


@dataclass(eq=False, slots=True)
class Job:
    """State of one submission: queued, being read, read (`prepared` set), or in the loop.

    It has one request, or a `session` of several. One that is `prepared` when it is submitted needs no
    reading: the loop's thread takes it from the queue.
    """

    handle: Handle[Any]
    prepare: (
        Callable[[], Prepared | Session] | None
    )  # for a reading thread; may hold audio, so dropped once called
    priority: int = 0
    stream: bool = True
    prepared: Prepared | None = None
    session: Session | None = None
    running: dict[int, int] = field(default_factory=dict)  # by id in the loop: the key of a session's request
    under_way: int = 0  # requests of the session that are ready or in the loop
    outputs: list[tuple[int, RequestOutput | Any]] = field(
        default_factory=list
    )  # not yet received by the session
    duration: float = 0.0  # seconds of audio, once read
    warnings: tuple[str, ...] = ()  # about the reading, likewise
    speech: "SpeechTimes | None" = None  # where speech was kept alone; `duration` is its
    being_read: bool = False
    places: int = 0  # among the requests that are read and not finished


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
        self._drop_ended()
        if not self.waits_for(prepared=prepared):
            return None
        job = heapq.heappop(self._heap)[2]
        job.places = 1
        self.free_requests -= 1
        return job

    def take_more(self, job: Job) -> bool:
        """Take another place for a session's next request; False where there is none, or a job waits."""
        self._drop_ended()
        if self._heap or self.free_requests <= 0 or self._free_seconds <= 0:
            return False
        job.places += 1
        self.free_requests -= 1
        return True

    def give_back(self, job: Job) -> None:
        """Give back the place of a session's request; the session keeps one."""
        if job.places > 1:
            job.places -= 1
            self.free_requests += 1

    def set_ready(self, job: Job, prepared: Prepared) -> None:
        """Note the inputs of a job that has been taken."""
        inputs = prepared[0]
        left = self._free_seconds - inputs.duration
        job.prepared, job.duration, self._free_seconds = prepared, inputs.duration, left
        job.warnings, job.speech = inputs.warnings, inputs.speech

    def free_place(self, job: Job) -> None:
        """Free the places of an ended job, if it has any."""
        if job.places:
            self.free_requests += job.places
            job.places = 0
            if job.session is None:
                self._free_seconds += job.duration  # 0 unless it has been read

    def _drop_ended(self) -> None:
        while self._heap and self._heap[0][2].handle not in self._unfinished:
            heapq.heappop(self._heap)
