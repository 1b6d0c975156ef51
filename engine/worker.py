"""The threads of an engine: a few that read audio, and the one that alone touches the generation loop."""

import heapq
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..scheduler.request import Event, FinishReason, GenerationOptions, Request, Tokens
from .handle import Handle, RequestOutput
from .openmp import release_team

if TYPE_CHECKING:
    from torch import Tensor

    from ..scheduler.loop import GenerationLoop, LoopStats


# Where the loop has nothing to do and more is on its way, its next step waits for it: as long as something
# comes in so many seconds, and so many in all. A step with the first of many leaves all cores but one idle.
_NEXT, _ALL = 0.002, 0.02


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recording or text that has been read: what the loop needs of it, and how many seconds it is."""

    inputs: "Tensor"
    options: GenerationOptions | None  # None for a encoder-only model
    duration: float


@dataclass(eq=False, slots=True)
class Job:
    """One recording on its way: queued (`prepare` set), being read, read (`prepared` set), in the loop."""

    handle: Handle[Any]
    prepare: Callable[[], Prepared] | None  # run by a reading thread; may hold audio, so dropped once taken
    priority: int
    stream: bool
    prepared: Prepared | None = None
    request_id: int | None = None
    duration: float = 0.0
    has_place: bool = False
    cancelled: bool = False


@dataclass(slots=True)
class Counts:
    """What has gone through, and for how long there was something to do."""

    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    audio_seconds: float = 0.0  # of the finished ones
    busy_seconds: float = 0.0
    busy_since: float | None = None


class Worker:
    """Carries jobs from submission to their handle's end.

    Args:
        loop: a fresh generation loop; from now on only this object's thread touches it.
        readers: threads that prepare recordings.
        places: recordings that may be read and not finished at a time; it bounds the memory that audio takes.
        seconds: no more is read while those hold so many seconds of audio.
    """

    def __init__(
        self, loop: "GenerationLoop", *, readers: int, places: int, seconds: float = math.inf
    ) -> None:
        self._loop = loop
        self._loop_stats: LoopStats = loop.stats()
        self._in_loop: dict[int, Job] = {}  # the loop's thread alone touches it
        self._next_request_id = 0

        lock = threading.Lock()  # guards all below
        self._reading = threading.Condition(lock)
        self._running = threading.Condition(lock)
        self._jobs: dict[Handle[Any], Job] = {}  # all that have not ended
        self._queue: list[tuple[int, int, Job]] = []  # heap: highest priority, then first come
        self._queued = 0  # ever
        self._free_places = places
        self._free_seconds = seconds
        self._being_read = 0
        self._ready: deque[Job] = deque()
        self._to_cancel: deque[Job] = deque()
        self._counts = Counts()
        self._closed = False
        self._failure: Exception | None = None

        self._threads = [threading.Thread(target=self._run, name="tritone-loop", daemon=True)]
        for number in range(readers):
            self._threads.append(
                threading.Thread(target=self._read, name=f"tritone-read-{number}", daemon=True)
            )
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Takes a job; its handle ends sooner or later. Raises RuntimeError once closed or failed."""
        with self._reading:
            self.check_open()
            self._jobs[job.handle] = job
            if self._counts.busy_since is None:
                self._counts.busy_since = time.perf_counter()
            heapq.heappush(self._queue, (-job.priority, self._queued, job))
            self._queued += 1
            self._reading.notify()

    def cancel(self, handle: Handle[Any]) -> bool:
        """Asks for the end of a handle's job; False where it has ended."""
        with self._running:
            job = self._jobs.get(handle)
            if job is None:
                return False
            job.cancelled = True
            if job.prepare is not None:
                self._finish(job, RequestOutput(FinishReason.CANCELLED))
            elif job.request_id is not None:
                self._to_cancel.append(job)
                self._running.notify()
            return True

    def close(self, cancel: bool) -> None:
        """Takes no more jobs, lets those there end (cancelled where `cancel`), and waits for the threads."""
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
        """Raises RuntimeError where no job is taken any more, and says why."""
        if self._failure is not None:
            raise RuntimeError(f"the engine has stopped on an error: {self._failure!r}") from self._failure
        if self._closed:
            raise RuntimeError("the engine is closed; make a new one")

    def numbers(self) -> tuple[Counts, "LoopStats", int]:
        """Counts until now, the loop's numbers after its last step, and how many jobs have not reached it."""
        with self._running:
            counts = replace(self._counts)
            outside = sum(job.request_id is None for job in self._jobs.values())
            loop_stats = self._loop_stats
        if counts.busy_since is not None:
            counts.busy_seconds += time.perf_counter() - counts.busy_since
        return counts, loop_stats, outside

    # The reading threads.

    def _read(self) -> None:
        while (taken := self._take()) is not None:
            job, prepare = taken
            prepared, error = None, None
            try:
                prepared = prepare()
            except Exception as raised:
                error = raised
            del taken, prepare  # the audio it may hold
            release_team()
            with self._running:
                self._being_read -= 1
                if job.handle not in self._jobs:
                    continue  # the engine has failed meanwhile
                if prepared is None:
                    self._finish(job, RequestOutput(FinishReason.ERROR, error=error))
                elif job.cancelled:
                    self._finish(job, RequestOutput(FinishReason.CANCELLED, duration=prepared.duration))
                else:
                    job.prepared, job.duration = prepared, prepared.duration
                    self._free_seconds -= job.duration
                    self._ready.append(job)
                    self._running.notify()

    def _take(self) -> tuple[Job, Callable[[], Prepared]] | None:
        """The next job to read and how, once there is a place for it; None when no more will come."""
        with self._reading:
            while True:
                while self._queue and self._queue[0][2].handle not in self._jobs:
                    heapq.heappop(self._queue)  # cancelled in the queue
                if self._can_be_read:
                    job = heapq.heappop(self._queue)[2]
                    prepare, job.prepare = job.prepare, None
                    if prepare is None:
                        raise RuntimeError("a recording was taken twice; this is a bug in tritone")
                    job.has_place = True
                    self._free_places -= 1
                    self._being_read += 1
                    return job, prepare
                elif self._closed and not self._queue:
                    return None
                else:
                    self._reading.wait()

    @property
    def _can_be_read(self) -> bool:
        return bool(self._queue) and self._free_places > 0 and self._free_seconds > 0

    # The loop's thread.

    def _run(self) -> None:
        try:
            while self._turn():
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
                    self._finish(job, RequestOutput(FinishReason.ERROR, duration=job.duration, error=error))

    def _turn(self) -> bool:
        """Hands the loop what has come, and takes one step; False when there is nothing more to come."""
        with self._running:
            self._running.wait_for(
                lambda: (
                    self._ready or self._to_cancel or self._loop.has_work or (self._closed and not self._jobs)
                )
            )
            if self._closed and not self._jobs:
                return False
            if not self._loop.has_work:
                self._gather()
            ready, self._ready = self._ready, deque()
            to_cancel, self._to_cancel = self._to_cancel, deque()
            for job in ready:
                job.request_id = self._next_request_id
                self._next_request_id += 1
        for job in ready:
            self._start(job)
        for job in to_cancel:
            if job.request_id is not None:
                self._loop.cancel(job.request_id)
        events = self._loop.step() if self._loop.has_work else []
        stats = self._loop.stats()
        with self._running:
            self._loop_stats = stats
            for event in events:
                self._tell(event)
        return True

    def _gather(self) -> None:
        """Waits a little for what is about to be ready, with the lock held."""
        end = time.monotonic() + _ALL
        count = 0

        def more() -> bool:
            return len(self._ready) > count

        while more() and (self._being_read or self._can_be_read):
            count = len(self._ready)
            self._running.wait_for(more, min(_NEXT, end - time.monotonic()))

    def _start(self, job: Job) -> None:
        prepared, job.prepared = job.prepared, None
        if prepared is None or job.request_id is None:
            raise RuntimeError("a job came to the loop without its recording; this is a bug in tritone")
        if job.cancelled:
            with self._running:
                self._finish(job, RequestOutput(FinishReason.CANCELLED, duration=job.duration))
            return
        self._in_loop[job.request_id] = job
        options = prepared.options
        if job.stream and options:  # so that what a cancelled one has is the beginning of its token_ids
            job.handle.add_tokens((options.decoder_start_token_id,))
        try:
            self._loop.submit(
                Request(
                    job.request_id,
                    prepared.inputs,
                    options,
                    priority=job.priority,
                    stream=job.stream,
                )
            )
        except ValueError as error:  # this request's own fault: it can never fit, say
            del self._in_loop[job.request_id]
            with self._running:
                self._finish(job, RequestOutput(FinishReason.ERROR, duration=job.duration, error=error))

    def _tell(self, event: Event) -> None:
        if isinstance(event, Tokens):
            self._in_loop[event.request_id].handle.add_tokens(event.token_ids)
            return
        job = self._in_loop.pop(event.request_id)
        best = event.hypotheses[0] if event.hypotheses else None
        error = event.error
        if error is None and event.finish_reason is FinishReason.ERROR:
            error = RuntimeError("the loop ended this request without saying why; this is a bug in tritone")
        self._finish(
            job,
            RequestOutput(
                event.finish_reason,
                token_ids=best.token_ids if best else (),
                duration=job.duration,
                score=best.score if best else None,
                error=error,
                answer=event.predictions,
            ),
        )

    def _finish(self, job: Job, outcome: RequestOutput) -> None:
        """Ends a job, with the lock held."""
        del self._jobs[job.handle]
        job.prepare = None
        counts = self._counts
        match outcome.finish_reason:
            case FinishReason.ERROR:
                counts.failed += 1
            case FinishReason.CANCELLED:
                counts.cancelled += 1
            case _:
                counts.finished += 1
                counts.audio_seconds += outcome.duration
        if not self._jobs and counts.busy_since is not None:
            counts.busy_seconds += time.perf_counter() - counts.busy_since
            counts.busy_since = None
        if job.has_place:
            self._free_places += 1
            self._free_seconds += job.duration  # 0 unless it has been read
        if self._closed:
            self._running.notify_all()
            self._reading.notify_all()
        elif job.has_place:
            self._reading.notify_all()
        job.handle.finish(outcome)
