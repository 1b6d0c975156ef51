"""Reading threads of an engine's worker: inputs of requests, and sessions between their requests."""

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from time import perf_counter
from typing import Any

from ..scheduler.request import FinishReason, RequestOutput, RequestTimes
from .bounds import deadline_error
from .config import EngineConfig
from .faults import as_error
from .handle import Handle
from .jobs import Job, JobQueue
from .openmp import release_team
from .session import Session, SessionCall, SessionRequest
from .signals import Signal


class Reading(ABC):
    """State that an engine's threads share, and the main function of those that read.

    A job is read by one thread at a time, and a session only as far as it has places for its requests, see
    `JobQueue`. Sessions and jobs that wait to be read take turns: a session leaves its thread after each
    request while others wait.

    Args:
        max_in_flight, max_in_flight_seconds: as of a `Worker`.
    """

    def __init__(self, max_in_flight: int, max_in_flight_seconds: float) -> None:
        self._readable, self._runnable = Signal(), Signal()
        self._room = Signal()  # of the queue, for more jobs
        # For all below. Reentrant, as finalizers run in any thread, also in one that holds it.
        self._lock = threading.RLock()
        self._jobs: dict[Handle[Any], Job] = {}  # all that have not ended
        self._queue = JobQueue(self._jobs, max_in_flight, max_in_flight_seconds)
        self._being_read = 0
        self._continued: deque[Job] = deque()  # sessions that go on
        self._queue_first = False  # whose turn it is
        self._sessions = 0  # that have not ended
        self._ready: deque[tuple[Job, SessionRequest | SessionCall | None]] = deque()  # for the loop's thread
        self._closed = False

    @abstractmethod
    def _finish(self, job: Job, reason: FinishReason, error: Exception | None = None) -> None:
        """End a job that has no output of the loop; the lock is held."""

    def _finish_late(self, job: Job) -> None:
        """End a job whose deadline has passed, unless it is being cancelled; the lock is held."""
        if job.is_cancelled:
            return
        if job.running:
            place = "in the batch"
        elif job.prepared is not None and job.places:
            place = "waiting for the batch"
        elif job.places and job.prepare is None:
            place = "being read"
        else:
            place = "waiting to be read"
        self._finish(job, FinishReason.ERROR, deadline_error(job.time_limit, place))

    def _read(self) -> None:
        """Main function of a reading thread."""
        while (job := self._next_to_read()) is not None:
            try:
                if job.session is None:
                    self._prepare(job)
                if job.session is not None:
                    self._advance(job, job.session)
            except BaseException as raised:
                with self._lock:
                    self._leave_reader(job)
                    self._finish(job, FinishReason.ERROR, as_error(raised))
            del job  # it may be the last that keeps the audio
            release_team()

    def _next_to_read(self) -> Job | None:
        """Wait until another job may be read, or goes on, and return it; None once closed and empty."""
        while True:
            self._readable.wait_for(lambda: self._continued or self._can_read or self._nothing_to_read)
            with self._lock:
                job = self._take_next()
                if job is not None and job.session is None and job.is_late:
                    self._finish_late(job)  # the loop's thread may be in a long step
                    continue
                if job is not None:
                    if not job.being_read:
                        self._enter_reader(job)
                    job.stopwatch.start_reading()
                self._call_wanting()
                self._notify_next()
                self._room.notify_all()
                if job is not None:
                    return job
                if self._nothing_to_read:
                    return None

    def _take_next(self) -> Job | None:
        """Take a session that goes on or the first job of the queue, in turn; the lock is held."""
        self._queue_first = not self._queue_first
        if self._queue_first or not self._continued:
            job = self._queue.take(prepared=False)
            if job is not None:
                return job
        return self._continued.popleft() if self._continued else None

    @property
    def _can_read(self) -> bool:
        return self._queue.waits_for(prepared=False)

    @property
    def _can_take(self) -> bool:
        return self._queue.waits_for(prepared=True)

    def _notify_next(self) -> None:
        """Wake a thread that can take the first job of the queue: a reading one, or the loop's."""
        if self._continued or self._can_read:
            self._readable.notify()
        elif self._can_take:
            self._runnable.notify()

    @property
    def _nothing_to_read(self) -> bool:
        return self._closed and not (self._jobs and (self._queue or self._sessions))

    def _wait_for_arrivals(self, config: EngineConfig) -> None:
        """Wait for inputs that are being read, within the configured times."""
        end = time.monotonic() + config.total_arrival_wait
        seen = 0

        def more() -> bool:
            return len(self._ready) > seen

        while more() and (self._being_read or self._can_read):
            seen = len(self._ready)
            self._runnable.wait_for(more, min(config.arrival_wait, end - time.monotonic()))

    def _prepare(self, job: Job) -> None:
        """Read a job's input and pass it to the loop's thread, or begin its session."""
        prepare, job.prepare = job.prepare, None
        prepared = prepare() if prepare is not None else None  # None: cancelled since it left the queue
        with self._lock:
            if job.handle in self._jobs:
                assert prepared is not None
                if isinstance(prepared, Session):
                    job.session = prepared
                    self._sessions += 1
                    return
                self._queue.set_ready(job, prepared)
                self._ready.append((job, None))
            self._leave_reader(job)
        self._runnable.notify()

    def _advance(self, job: Job, session: Session) -> None:
        """Give a session the outputs that are there, and the loop the requests that it has places for."""
        while True:
            with self._lock:
                if job.handle not in self._jobs:
                    self._leave_reader(job)
                    return
                outputs, job.outputs = job.outputs, []
                job.is_called = False
            for key, output in outputs:
                for part in session.receive(key, output):
                    job.handle.add_part(part)
            while self._enter_session(job, session):
                if self._continued or self._can_read:
                    with self._lock:
                        self._note_reading(job, session)
                        job.stopwatch.stop_reading()
                        self._continued.append(job)
                    return
            with self._lock:
                self._note_reading(job, session)
                if session.is_complete:
                    self._finish(job, session.finish_reason)
                if session.is_complete or not job.is_called:
                    if not session.is_complete and not job.under_way:
                        raise RuntimeError("a session has ended without a result; this is a bug in tritone")
                    self._leave_reader(job)  # with the lock, so that an output from now on continues it
                    return

    def _note_reading(self, job: Job, session: Session) -> None:
        """Note for the result of a job how far its recording has been read; the lock is held."""
        job.duration, job.warnings, job.speech = session.duration, session.warnings, session.speech

    def _enter_session(self, job: Job, session: Session) -> bool:
        """Pass a session's next request to the loop's thread; False where there is none, or no place."""
        with self._lock:
            if job.handle not in self._jobs:
                return False
            if job.under_way and not self._queue.take_more(job):
                self._call_wanting()  # which may have fewer places than this one
                return False
            job.under_way += 1
        request = session.next_request()
        with self._lock:
            if request is None or job.handle not in self._jobs:
                self._leave_session(job)
                return False
            if isinstance(request, SessionRequest):
                self._queue.charge(job, request.key, request.duration)
                job.times[request.key] = RequestTimes(perf_counter())
            self._ready.append((job, request))
        self._runnable.notify()
        return True

    def _leave_session(self, job: Job, key: int | None = None) -> None:
        """Note that a request of a session has ended, or that there is none; the lock is held."""
        job.under_way -= 1
        self._queue.give_back(job, key)
        self._call_wanting()
        self._notify_next()

    def _call_wanting(self) -> None:
        """Let sessions go on that were refused a place and may have one now; the lock is held."""
        while (job := self._queue.next_wanting()) is not None:
            self._call_reader(job)

    def _call_reader(self, job: Job) -> None:
        """Let a reading thread go on with a session; the lock is held."""
        job.is_called = True
        if not job.being_read:
            self._enter_reader(job)
            self._continued.append(job)
            self._readable.notify()

    def _enter_reader(self, job: Job) -> None:
        """Note that a job is being read, or will be; the lock is held."""
        job.being_read = True
        self._being_read += 1

    def _leave_reader(self, job: Job) -> None:
        """Note that a job is no longer being read; the lock is held."""
        job.stopwatch.stop_reading()
        if job.being_read:
            job.being_read = False
            self._being_read -= 1
            if job.handle not in self._jobs:
                self._free_place(job)

    def _continue(self, job: Job, key: int, output: RequestOutput | Any) -> None:
        """Pass the output of a session's request or call to a reading thread; the lock is held."""
        job.outputs.append((key, output))
        self._leave_session(job, key)
        self._call_reader(job)

    def _free_place(self, job: Job) -> None:
        """Free the place of an ended job for reading another; the lock is held."""
        self._queue.free_place(job)
        self._call_wanting()
        self._notify_next()
