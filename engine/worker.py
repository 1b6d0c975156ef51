"""Threads of an engine: a few that read inputs, and one that runs the generation loop."""

import heapq
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..scheduler.request import Event, FinishReason, GenerationOptions, Request, RequestOutput, Tokens
from .config import EngineConfig
from .handle import Handle
from .openmp import release_team
from .stats import EngineStats

if TYPE_CHECKING:
    from ..scheduler.loop import GenerationLoop
    from .tasks.inputs import Inputs

_FINISHED = (FinishReason.STOP, FinishReason.LENGTH)

# Inputs of the model, and options (None for an encoder-only model).
Prepared = tuple["Inputs", GenerationOptions | None]


@dataclass(eq=False, slots=True)
class Job:
    """State of one request: queued (`prepare` set), being read, read (`prepared` set), or in the loop."""

    handle: Handle[Any]
    prepare: Callable[[], Prepared] | None  # for a reading thread; may hold audio, so dropped once called
    priority: int = 0
    stream: bool = True
    prepared: Prepared | None = None
    request_id: int = -1  # id in the loop; -1 before
    duration: float = 0.0  # seconds of audio, once read
    warnings: tuple[str, ...] = ()  # about the reading, likewise
    in_flight: bool = False  # being read, or read and not finished
    cancelled: bool = False


class Worker:
    """Queue and threads of an engine, from the submission of a request to the end of its handle.

    Args:
        loop: unused generation loop; from now on only this object's thread may call it.
        max_in_flight: maximum requests that are read and not finished; bounds the memory of their inputs.
        max_in_flight_seconds: seconds of audio in those requests from which on reading pauses.
        config: configuration with the number of reading threads and the waiting times.
    """

    def __init__(
        self,
        loop: "GenerationLoop",
        *,
        max_in_flight: int,
        max_in_flight_seconds: float = math.inf,
        config: EngineConfig | None = None,
    ) -> None:
        config = config or EngineConfig()
        self._config = config
        self._loop = loop
        self._loop_stats = loop.stats()
        self._in_loop: dict[int, Job] = {}  # used by the loop's thread alone
        self._next_request_id = 0

        lock = threading.Lock()  # guards all below
        self._reading = threading.Condition(lock)
        self._running = threading.Condition(lock)
        self._jobs: dict[Handle[Any], Job] = {}  # all that have not ended
        self._queue: list[tuple[int, int, Job]] = []  # heap: highest priority, then first come
        self._submitted = 0
        self._free_requests = max_in_flight
        self._free_seconds = max_in_flight_seconds
        self._being_read = 0
        self._ready: deque[Job] = deque()
        self._to_cancel: deque[Job] = deque()
        self._ended: Counter[FinishReason] = Counter()
        self._audio_seconds = 0.0  # of finished requests
        self._busy_seconds = 0.0
        self._busy_since: float | None = None
        self._closed = False
        self._failure: Exception | None = None

        self._threads = [threading.Thread(target=self._run, name="tritone-loop", daemon=True)]
        for number in range(config.num_readers):
            self._threads.append(
                threading.Thread(target=self._read, name=f"tritone-read-{number}", daemon=True)
            )
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Add a job to the queue. Raises RuntimeError where the engine is closed or has failed."""
        with self._reading:
            self.check_open()
            self._jobs[job.handle] = job
            if self._busy_since is None:
                self._busy_since = time.perf_counter()
            heapq.heappush(self._queue, (-job.priority, self._submitted, job))
            self._submitted += 1
            self._reading.notify()

    def cancel(self, handle: Handle[Any]) -> bool:
        """Cancel the job of a handle; False where it has already ended."""
        with self._running:
            job = self._jobs.get(handle)
            if job is None:
                return False
            job.cancelled = True
            if job.prepare is not None:
                self._finish(job, FinishReason.CANCELLED)
            elif job.request_id >= 0:
                self._to_cancel.append(job)
                self._running.notify()
            return True

    def close(self, cancel: bool) -> None:
        """Stop accepting jobs, finish or cancel those submitted, and wait for the threads to end."""
        with self._running:
            self._closed = True
            handles = list(self._jobs) if cancel else []
            self._running.notify_all()
            self._reading.notify_all()
        for handle in handles:
            self.cancel(handle)
        for thread in self._threads:
            thread.join()

    def check_open(self) -> None:
        """Raise RuntimeError, with the reason, where the engine is closed or has failed."""
        if self._failure is not None:
            raise RuntimeError(f"the engine has stopped on an error: {self._failure!r}") from self._failure
        if self._closed:
            raise RuntimeError("the engine is closed; make a new one")

    def stats(self) -> EngineStats:
        """Current statistics of the engine; the loop's are as of its last step, and `compiled` is 0."""
        with self._running:
            loop, busy = self._loop_stats, self._busy_seconds
            if self._busy_since is not None:
                busy += time.perf_counter() - self._busy_since
            return EngineStats(
                running=loop.running,
                waiting=loop.waiting + sum(job.request_id < 0 for job in self._jobs.values()),
                finished=sum(self._ended[reason] for reason in _FINISHED),
                failed=self._ended[FinishReason.ERROR],
                cancelled=self._ended[FinishReason.CANCELLED],
                pages_used=loop.pages_used,
                pages_total=loop.pages_total,
                tokens_generated=loop.tokens_generated,
                audio_seconds=self._audio_seconds,
                busy_seconds=busy,
                tokens_per_second=loop.tokens_generated / busy if busy else 0.0,
                rtfx=self._audio_seconds / busy if busy else 0.0,
                graphs=loop.graphs,
                compiled=0,
            )

    # The reading threads.

    def _read(self) -> None:
        while (taken := self._next_to_read()) is not None:
            job, prepare = taken
            prepared, error = None, None
            try:
                prepared = prepare()
            except Exception as raised:
                error = raised
            del taken, prepare  # `prepare` may hold audio
            release_team()
            with self._running:
                self._being_read -= 1
                if job.handle not in self._jobs:
                    continue  # the engine has failed meanwhile
                if prepared is None:
                    self._finish(job, FinishReason.ERROR, error)
                    continue
                inputs = prepared[0]
                job.duration, job.warnings = inputs.duration, inputs.warnings
                self._free_seconds -= job.duration
                if job.cancelled:
                    self._finish(job, FinishReason.CANCELLED)
                elif inputs.values is None:  # too short, and an empty result was asked for
                    self._finish(job, FinishReason.STOP)
                else:
                    job.prepared = prepared
                    self._ready.append(job)
                    self._running.notify()

    def _next_to_read(self) -> tuple[Job, Callable[[], Prepared]] | None:
        """Wait until another job may be read, and return it and its `prepare`; None once closed and empty."""
        with self._reading:
            while True:
                while self._queue and self._queue[0][2].handle not in self._jobs:
                    heapq.heappop(self._queue)  # cancelled in the queue
                if self._can_read:
                    job = heapq.heappop(self._queue)[2]
                    prepare, job.prepare = job.prepare, None
                    assert prepare is not None  # a job is queued once
                    job.in_flight = True
                    self._free_requests -= 1
                    self._being_read += 1
                    return job, prepare
                elif self._closed and not self._queue:
                    return None
                else:
                    self._reading.wait()

    @property
    def _can_read(self) -> bool:
        return bool(self._queue) and self._free_requests > 0 and self._free_seconds > 0

    # The loop's thread.

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except BaseException as raised:
            error = (
                raised
                if isinstance(raised, Exception)
                else RuntimeError(f"the loop's thread ended: {raised!r}")
            )
            with self._running:
                self._failure, self._closed = error, True
                for job in list(self._jobs.values()):
                    self._finish(job, FinishReason.ERROR, error)

    def _step(self) -> bool:
        """Pass new jobs and cancellations to the loop and run one step; False once closed and out of work."""
        with self._running:
            self._running.wait_for(
                lambda: (
                    self._ready or self._to_cancel or self._loop.has_work or (self._closed and not self._jobs)
                )
            )
            if self._closed and not self._jobs:
                return False
            if not self._loop.has_work:
                self._wait_for_arrivals()
            ready, self._ready = self._ready, deque()
            to_cancel, self._to_cancel = self._to_cancel, deque()
            for job in ready:
                job.request_id = self._next_request_id
                self._next_request_id += 1
        for job in ready:
            self._start(job)
        for job in to_cancel:
            self._loop.cancel(job.request_id)
        events = self._loop.step() if self._loop.has_work else []
        stats = self._loop.stats()
        with self._running:
            self._loop_stats = stats
            for event in events:
                self._handle(event)
        return True

    def _wait_for_arrivals(self) -> None:
        """Wait for inputs that are being read, within the configured times; the lock is held."""
        end = time.monotonic() + self._config.total_arrival_wait
        count = 0

        def more() -> bool:
            return len(self._ready) > count

        while more() and (self._being_read or self._can_read):
            count = len(self._ready)
            self._running.wait_for(more, min(self._config.arrival_wait, end - time.monotonic()))

    def _start(self, job: Job) -> None:
        prepared, job.prepared = job.prepared, None
        assert prepared is not None  # as of every job that is ready
        inputs, options = prepared
        assert inputs.values is not None  # or the job has ended
        if job.cancelled:
            with self._running:
                self._finish(job, FinishReason.CANCELLED)
            return
        self._in_loop[job.request_id] = job
        if job.stream and options:  # so that a cancelled request's tokens also begin with the start token
            job.handle.add_tokens((options.decoder_start_token_id,))
        try:
            self._loop.submit(
                Request(job.request_id, inputs.values, options, priority=job.priority, stream=job.stream)
            )
        except ValueError as error:  # an error of the request itself, such as one that can never fit
            del self._in_loop[job.request_id]
            with self._running:
                self._finish(job, FinishReason.ERROR, error)

    def _handle(self, event: Event) -> None:
        """Pass an event of the loop to the handle of its request; the lock is held."""
        if isinstance(event, Tokens):
            self._in_loop[event.request_id].handle.add_tokens(event.token_ids)
            return
        if event.error is None and event.finish_reason is FinishReason.ERROR:
            error = RuntimeError("the loop ended this request without a reason; this is a bug in tritone")
            event = replace(event, error=error)
        job = self._in_loop.pop(event.request_id)
        self._end(job, job.handle.checked(event))

    def _finish(self, job: Job, reason: FinishReason, error: Exception | None = None) -> None:
        """End a job that has no output of the loop; the lock is held."""
        self._end(job, RequestOutput(job.request_id, (), reason, error))

    def _end(self, job: Job, output: RequestOutput) -> None:
        """Count an ended job, free its place for reading, and finish its handle; the lock is held."""
        del self._jobs[job.handle]
        job.prepare = None
        self._ended[output.finish_reason] += 1
        if output.finish_reason in _FINISHED:
            self._audio_seconds += job.duration
        if not self._jobs and self._busy_since is not None:
            self._busy_seconds += time.perf_counter() - self._busy_since
            self._busy_since = None
        if job.in_flight:
            self._free_requests += 1
            self._free_seconds += job.duration  # 0 unless it has been read
        if self._closed:
            self._running.notify_all()
            self._reading.notify_all()
        elif job.in_flight:
            self._reading.notify_all()
        job.handle.finish(output, job.duration, job.warnings)
