"""Jobs of an engine's worker, their queue with places for those that are read, and their deadlines."""

import heapq
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from ..scheduler.request import GenerationOptions, RequestOutput, RequestTimes
from .handle import Handle
from .session import Session
from .timings import Stopwatch

if TYPE_CHECKING:
    from .audio.speech import SpeechTimes
    from .tasks.inputs import Inputs

# Inputs of the model, and options (None for an encoder-only model).
Prepared = tuple["Inputs", GenerationOptions | None]

_MAX_ENDED = 64  # entries of a heap that may be of jobs that have ended, beside as many as others


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
    owner: int | None = None  # of the session's requests in the loop: the id of its first one
    times: dict[int, RequestTimes] = field(default_factory=dict)  # of these, by key
    under_way: int = 0  # requests of the session that are ready or in the loop
    seconds: dict[int, float] = field(default_factory=dict)  # of audio of these, by key
    is_called: bool = False  # a reading thread is to go on with the session
    outputs: list[tuple[int, RequestOutput | Any]] = field(
        default_factory=list
    )  # not yet received by the session
    duration: float = 0.0  # seconds of audio, once read
    warnings: tuple[str, ...] = ()  # about the reading, likewise
    speech: "SpeechTimes | None" = None  # where speech was kept alone; `duration` is its
    is_cancelled: bool = False  # which the loop's thread has yet to carry out
    being_read: bool = False
    places: int = 0  # among the requests that are read and not finished
    waiting_seconds: float = 0.0  # of audio, by its header perhaps, while it waits in the queue
    time_limit: float = math.inf  # seconds from the submission to the deadline
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def deadline(self) -> float:
        """Time of `time.perf_counter` by which the job must end; infinity for no limit."""
        return self.stopwatch.submitted + self.time_limit

    @property
    def is_late(self) -> bool:
        """True once the deadline has passed."""
        return self.time_limit < math.inf and time.perf_counter() >= self.deadline


class JobQueue:
    """Queue of jobs by priority, equal ones in order of submission, and places for those in flight.

    A session has one place from its beginning to its end, and takes more for requests at the same time. It
    gets them while no job of its priority waits and no session that wants one has fewer, and leaves a quarter
    of all to jobs that are yet to come: so these are read at once, and sessions share the places evenly.

    Not thread-safe, except `waits_for`, `waiting` and `waiting_seconds`.

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
        self._reserved = max_in_flight // 4
        self._free_seconds = max_seconds
        self._wanting: dict[Job, None] = {}  # sessions that were refused a place, in that order
        self._waiting: dict[Job, float] = {}  # jobs that have neither been taken nor ended: seconds of audio

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, job: Job) -> None:
        """Add a job."""
        heapq.heappush(self._heap, (-job.priority, next(self._numbers), job))
        self._waiting[job] = job.waiting_seconds  # last: an interrupt before leaves nothing counted

    @property
    def waiting(self) -> int:
        """Number of jobs that wait to be taken."""
        return len(self._waiting)

    @property
    def waiting_seconds(self) -> float:
        """Seconds of audio of these."""
        return sum(self._waiting.values())

    def leave(self, job: Job) -> None:
        """Note that a job has ended, which no longer waits; the queue drops it, at the latest in its turn."""
        if self._waiting.pop(job, None) is not None and len(self._heap) > 2 * len(self._waiting) + _MAX_ENDED:
            heap = [entry for entry in self._heap if entry[2] in self._waiting]
            heapq.heapify(heap)
            self._heap = heap

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
        job = self._pop()
        job.stopwatch.take()
        job.places = 1
        self.free_requests -= 1
        return job

    def take_more(self, job: Job) -> bool:
        """Take another place for a session's next request; where it is refused, `next_wanting` returns it."""
        if not self._has_more(job) or any(_turn(other) < _turn(job) for other in self._wanting):
            self._wanting[job] = None
            return False
        self._wanting.pop(job, None)
        job.places += 1
        self.free_requests -= 1
        return True

    def next_wanting(self) -> Job | None:
        """Session that may take a place now, of those that were refused one; its `take_more` succeeds."""
        job = min(self._wanting, key=_turn, default=None)
        if job is None or not self._has_more(job):
            return None
        del self._wanting[job]
        return job

    def charge(self, job: Job, key: int, seconds: float) -> None:
        """Note the seconds of audio of a session's request."""
        job.seconds[key] = seconds
        self._free_seconds -= seconds

    def give_back(self, job: Job, key: int | None = None) -> None:
        """Give back the place and the seconds of a session's request; the session keeps one place."""
        if job.places > 1:
            job.places -= 1
            self.free_requests += 1
        if key is not None:
            self._free_seconds += job.seconds.pop(key, 0.0)

    def set_ready(self, job: Job, prepared: Prepared) -> None:
        """Note the inputs of a job that has been taken."""
        inputs = prepared[0]
        left = self._free_seconds - inputs.duration
        job.prepared, job.duration, self._free_seconds = prepared, inputs.duration, left
        job.warnings, job.speech = inputs.warnings, inputs.speech
        job.times[0] = RequestTimes(job.stopwatch.stop_reading())

    def free_place(self, job: Job) -> None:
        """Free the places of an ended job, if it has any."""
        if job.places:
            self.free_requests += job.places
            job.places = 0
            if job.session is None:
                self._free_seconds += job.duration  # 0 unless it has been read
            self._free_seconds += sum(job.seconds.values())
            job.seconds.clear()
            self._wanting.pop(job, None)

    def _has_more(self, job: Job) -> bool:
        """Check whether a session may have more than one place."""
        self._drop_ended()
        if self._heap and -self._heap[0][0] >= job.priority:
            return False
        return self.free_requests > self._reserved and self._free_seconds > 0

    def _drop_ended(self) -> None:
        while self._heap and self._heap[0][2].handle not in self._unfinished:
            self._pop()

    def _pop(self) -> Job:
        job = heapq.heappop(self._heap)[2]
        self._waiting.pop(job, None)
        return job


def _turn(job: Job) -> tuple[int, int]:
    """Order of sessions that want a place."""
    return -job.priority, job.places


class Deadlines:
    """Jobs with a deadline, the earliest first. Not thread-safe, but for `first`."""

    def __init__(self) -> None:
        # Without the jobs, which may hold much audio: an entry stays until its time, or a clean-up.
        self._heap = list[tuple[float, int]]()
        self._jobs = dict[int, Job]()

    @property
    def first(self) -> float:
        """Earliest deadline, perhaps of a job that has ended; infinity without any."""
        try:
            return self._heap[0][0]
        except IndexError:
            return math.inf

    def add(self, job: Job) -> None:
        """Add a job, if it has a deadline."""
        if job.time_limit < math.inf:
            self._jobs[id(job)] = job
            heapq.heappush(self._heap, (job.deadline, id(job)))

    def discard(self, job: Job) -> None:
        """Drop a job that has ended, if it is here."""
        if self._jobs.pop(id(job), None) is not None and len(self._heap) > 2 * len(self._jobs) + _MAX_ENDED:
            heap = [(other.deadline, key) for key, other in self._jobs.items()]
            heapq.heapify(heap)
            self._heap = heap

    def take_late(self, now: float) -> list[Job]:
        """Take the jobs whose deadline has passed."""
        late = []
        while self.first <= now:
            _, key = heapq.heappop(self._heap)
            job = self._jobs.get(key)
            if job is not None and job.deadline <= now:  # else of an ended job, whose id is another's by now
                late.append(self._jobs.pop(key))
        return late
