"""Threads of an engine: a few that read inputs, and one that runs the generation loop."""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..scheduler.request import Event, FinishReason, GenerationOptions, Request, RequestOutput, Tokens
from .at_exit import close_at_exit
from .bounds import WaitingBounds
from .config import EngineConfig
from .faults import as_error
from .handle import FORKED, Handle
from .jobs import Deadlines, Job
from .reading import Reading
from .session import SessionCall, SessionRequest
from .signals import Signal
from .stats import EngineHealth, EngineStats, Tally

if TYPE_CHECKING:
    from ..scheduler.loop import GenerationLoop

_TRIES = 2


class Worker(Reading):
    """Queue and threads of an engine, from the submission of a request to the end of its handle.

    A fault of any kind in one of the threads ends the request that it worked on, or else fails the engine,
    which ends all. Threads keep the worker alive, and not the engine.

    Calls of users change the state in one last operation and never wait with the lock held. So an interrupt
    leaves no request between two states, and `cancel`, `close` and `release` may be called from anywhere: a
    reading thread, a finalizer, a signal handler.

    Args:
        loop: unused generation loop; from now on only this object's thread may call it.
        max_in_flight: maximum requests that are read and not finished; bounds the memory of their inputs.
        max_in_flight_seconds: seconds of audio in those requests from which on reading pauses.
        config: configuration with the number of reading threads and the waiting times.
        check: function that raises where results could no longer be right; called before new requests are
            given to the loop, and before a finished one is reported.

    Raises:
        RuntimeError: a thread cannot be started; none is left.
    """

    def __init__(
        self,
        loop: "GenerationLoop",
        *,
        max_in_flight: int,
        max_in_flight_seconds: float = math.inf,
        config: EngineConfig | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(max_in_flight, max_in_flight_seconds)
        config = config or EngineConfig()
        self._config = config
        self._process = os.getpid()
        self._loop = loop
        self._check = check
        self._loop_stats = loop.stats()
        self._is_checked = False  # by `check`, since the last step; used by the loop's thread alone
        self._in_loop: dict[int, Job] = {}  # used by the loop's thread alone
        self._next_request_id = 0

        self._ended = Signal()
        self._to_cancel: deque[Job] = deque()
        self._deadlines = Deadlines()
        self._tally = Tally()
        self._bounds = WaitingBounds(config, self._queue, self._tally)
        self._failure: Exception | None = None

        bodies = {"tritone-loop": self._run}
        bodies |= {f"tritone-read-{number}": self._read for number in range(config.num_readers)}
        self._threads = [
            threading.Thread(target=self._guard, args=(body,), name=name, daemon=True)
            for name, body in bodies.items()
        ]
        self._running = len(self._threads)
        self._gave_up = False  # a thread has been waited for in vain
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self.release()
            raise
        close_at_exit(self)

    def submit(self, job: Job, *, bounded: bool = True) -> None:
        """Add a job to the queue.

        Args:
            job: new job.
            bounded: False for one that `wait_for_room` has waited for.

        Raises:
            QueueFullError: too many wait.
            RuntimeError: the engine is closed, or has failed.
        """
        with self._lock:
            self.check_open()
            if bounded:
                self._bounds.check(job.waiting_seconds)
            self._queue.put(job)
            self._deadlines.add(job)
            self._jobs[job.handle] = job  # last: without this the entries in the two are skipped
            self._tally.begin()
        if job.prepared is None:
            self._readable.notify()
        if job.prepared is not None or job.deadline <= self._deadlines.first < math.inf:
            self._runnable.notify()

    def check_room(self) -> None:
        """Raise QueueFullError where no other job may wait."""
        with self._lock:
            self._bounds.check(0.0)

    def wait_for_room(self, first: Handle[Any] | None) -> bool:
        """Wait until another job may wait, or that of `first` has ended; False where it may not wait then.

        Where the engine takes no more jobs, this is for `submit` to say: True.
        """

        def may_submit() -> bool:
            return self._bounds.have_room or self._closed or self._forked

        self._room.wait_for(lambda: may_submit() or (first is not None and first.done()))
        return may_submit()

    @property
    def close_timeout(self) -> float:
        """Seconds that closing waits for a read or step that does not end."""
        return self._config.close_timeout

    @property
    def unfinished(self) -> int:
        """Number of jobs that have not ended."""
        return len(self._jobs)

    def cancel(self, handle: Handle[Any]) -> bool:
        """Cancel the job of a handle; False where it has already ended."""
        job = self._jobs.get(handle)
        if job is None or self._forked:
            return False
        job.is_cancelled = True  # at once, for a step that is under way
        self._to_cancel.append(job)
        self._runnable.notify()
        return True

    def close(self, cancel: bool, grace: float | None = None, timeout: float | None = None) -> None:
        """Stop accepting jobs, finish or cancel those submitted, and wait for the threads to end.

        Threads that neither end nor finish a job are waited for only so long: a reading thread may hang on a
        device, and a step takes its time. Their jobs are then cancelled. An interrupt while jobs are finished
        cancels the rest. In one of the threads themselves, and in a forked child, this does not wait.

        Args:
            cancel: True cancels jobs that have not ended.
            grace: seconds, in place of the configured `close_timeout`.
            timeout: seconds after which jobs that are to be finished are cancelled; None for no limit.
        """
        if self._forked:
            return
        grace = self.close_timeout if grace is None else grace
        self.release(cancel)
        if self._is_inside:
            return
        try:
            if not cancel and not self._ended.wait_for(lambda: not self._jobs, timeout):
                cancel = True
                self.release(cancel=True)
            end = time.monotonic() + grace
            if not self._ended.wait_for(lambda: not self._jobs, grace):
                self._end_all(FinishReason.CANCELLED)
        except BaseException:
            self.release(cancel=True)
            raise
        if self._ended.wait_for(lambda: not self._running or self._gave_up, end - time.monotonic()):
            for thread in self._threads:
                thread.join(0.0 if self._gave_up else grace)
        self._gave_up = self._running > 0

    def release(self, cancel: bool = False) -> None:
        """Stop accepting jobs, finish or cancel those submitted, and let the threads end by themselves."""
        self._closed = True
        if cancel:
            jobs = tuple(self._jobs.values())
            for job in jobs:
                job.is_cancelled = True
            self._to_cancel.extend(jobs)
        for signal in (self._runnable, self._readable, self._ended, self._room):
            signal.notify_all()

    def check_open(self) -> None:
        """Raise RuntimeError, with the reason, where the engine is closed, has failed, or is a parent's."""
        self.check_process()
        if self._failure is not None:
            raise RuntimeError(f"the engine has stopped on an error: {self._failure!r}") from self._failure
        if self._closed:
            raise RuntimeError("the engine is closed; make a new one")

    def check_process(self) -> None:
        """Raise RuntimeError in a forked child, which has none of the threads."""
        if self._forked:
            raise RuntimeError(FORKED)

    @property
    def _forked(self) -> bool:
        return self._process != os.getpid()

    @property
    def _is_inside(self) -> bool:
        """True where the caller would wait for itself: in an engine's thread, or one that holds the lock."""
        owned: bool = self._lock._is_owned()  # type: ignore[attr-defined]
        return owned or threading.current_thread().name.startswith("tritone-")

    def health(self) -> EngineHealth:
        """Current health of the engine."""
        if self._forked:
            return EngineHealth("failed", FORKED)
        if self._failure is not None:
            return EngineHealth("failed", f"the engine has stopped on an error: {self._failure!r}")
        if self._closed:
            return EngineHealth("failed", "the engine is closed")
        degraded = getattr(self._loop_stats, "degraded", None)
        return EngineHealth("ok" if degraded is None else "degraded", degraded)

    def stats(self) -> EngineStats:
        """Current statistics of the engine; the loop's are as of its last step, and `compiled` is 0."""
        self.check_process()
        with self._lock:
            to_start = sum(not job.running for job in self._jobs.values())
            return self._tally.stats(self._loop_stats, to_start)

    def _guard(self, body: Callable[[], None]) -> None:
        """Main function of every thread: a fault that has ended no request by itself fails the engine."""
        try:
            body()
        except BaseException as raised:
            error = as_error(raised)
            self._failure = self._failure or error
            self._closed = True
            self._end_all(FinishReason.ERROR, self._failure)
        finally:
            with self._lock:
                self._running -= 1
            self.release()  # wakes the others, and threads in `close`

    # The loop's thread.

    def _run(self) -> None:
        try:
            while self._step():
                pass
        finally:
            self._in_loop.clear()
            self._ready.clear()
            del self._loop  # with the cache: a closed engine may be held for long

    def _step(self) -> bool:
        """Pass new jobs and cancellations to the loop and run one step; False once closed and out of work."""
        self._wait_for_work()
        if not self._loop.has_work:
            self._is_checked = False  # the wait may have been long
        with self._lock:  # so that no job is submitted meanwhile
            if self._is_over:
                return False
            self._end_late()
            self._take_prepared()
        if not self._loop.has_work:
            self._wait_for_arrivals(self._config)
        while self._to_cancel:
            self._cancel(self._to_cancel.popleft())
        if self._ready and not self._is_checked:
            self._check()
        while self._ready:
            self._start(*self._ready.popleft())
        events = self._loop.step() if self._loop.has_work else []
        self._is_checked = any(isinstance(event, RequestOutput) for event in events)
        if self._is_checked:
            self._check()
        stats = self._loop.stats()
        with self._lock:
            self._loop_stats = stats
            for event in events:
                self._handle(event)
        return True

    def _wait_for_work(self) -> None:
        """Wait for anything that a step is needed for, until the first deadline."""
        first = self._deadlines.first

        def is_there() -> object:
            return (
                self._ready
                or self._to_cancel
                or self._loop.has_work
                or self._can_take
                or self._is_over
                or self._deadlines.first < first
            )

        self._runnable.wait_for(is_there, None if first == math.inf else first - time.perf_counter())

    def _end_late(self) -> None:
        """End the jobs whose deadline has passed; the lock is held."""
        if self._deadlines.first <= (now := time.perf_counter()):
            for job in self._deadlines.take_late(now):
                self._finish_late(job)

    @property
    def _is_over(self) -> bool:
        return self._failure is not None or (self._closed and not self._jobs)

    def _take_prepared(self) -> None:
        """Take the jobs at the front of the queue that need no reading; the lock is held."""
        while (job := self._queue.take(prepared=True)) is not None:
            assert job.prepared is not None
            self._queue.set_ready(job, job.prepared)
            self._ready.append((job, None))
            self._room.notify_all()
        self._call_wanting()
        if self._can_read:
            self._readable.notify()

    def _cancel(self, job: Job) -> None:
        if job.session is not None or not job.running:
            with self._lock:
                self._finish(job, FinishReason.CANCELLED)
        for request_id in tuple(job.running):
            self._loop.cancel(request_id)  # its end is an event of the next step

    def _start(self, job: Job, request: SessionRequest | SessionCall | None) -> None:
        """Submit a job's request, or one of its session, or make its call, unless it has been cancelled."""
        prepared, job.prepared = job.prepared, None
        if job.handle not in self._jobs:
            return
        if isinstance(request, SessionCall):
            self._call(job, request)
        elif request is not None:
            if job.owner is None:
                job.owner = self._next_request_id
            flags: dict[str, Any] = {"keep_encoded": request.keep_encoded, "owner": job.owner}
            self._submit(job, request.inputs, request.options, request.key, **flags)
        elif prepared is not None:
            inputs, options = prepared
            if inputs.values is None:  # too short, and an empty result was asked for
                with self._lock:
                    self._finish(job, FinishReason.STOP)
                return
            if job.stream and options:  # so that a cancelled request's tokens also begin with the start token
                job.handle.add_tokens((options.decoder_start_token_id,))
            self._submit(job, inputs.values, options, 0, stream=job.stream)

    def _call(self, job: Job, call: SessionCall) -> None:
        """Compute what a session asks for, and pass it on."""
        start = time.perf_counter()
        try:
            value = call.compute()
        except BaseException as raised:
            with self._lock:
                self._finish(job, FinishReason.ERROR, as_error(raised))
            return
        with self._lock:
            job.stopwatch.add_call(time.perf_counter() - start)
            if job.handle in self._jobs:
                self._continue(job, call.key, value)

    def _submit(
        self, job: Job, inputs: Any, options: GenerationOptions | None, key: int, **flags: Any
    ) -> None:
        """Submit a request of a job to the loop."""
        request_id = self._next_request_id
        self._next_request_id += 1
        self._in_loop[request_id], job.running[request_id] = job, key
        try:
            flags["is_wanted"] = lambda: not (job.is_cancelled or job.is_late)
            flags["times"] = job.times[key]
            self._loop.submit(Request(request_id, inputs, options, priority=job.priority, **flags))
        except BaseException as raised:  # an error of the request itself, such as one that can never fit
            del self._in_loop[request_id], job.running[request_id]
            with self._lock:
                self._finish(job, FinishReason.ERROR, as_error(raised))

    def _handle(self, event: Event) -> None:
        """Pass an event of the loop to the handle of its request; the lock is held."""
        if isinstance(event, Tokens):
            self._in_loop[event.request_id].handle.add_tokens(event.token_ids)
            return
        if event.error is None and event.finish_reason is FinishReason.ERROR:
            error = RuntimeError("the loop ended this request without a reason; this is a bug in tritone")
            event = replace(event, error=error)
        job = self._in_loop.pop(event.request_id)
        key, output = job.running.pop(event.request_id), job.handle.checked(event)
        if job.session is None or output.finish_reason in (FinishReason.ERROR, FinishReason.CANCELLED):
            self._end(job, output)
        elif job.handle in self._jobs:
            job.stopwatch.add_request(job.times.pop(key))
            self._continue(job, key, output)

    # The end of a job.

    def _end_all(self, reason: FinishReason, error: Exception | None = None) -> None:
        """End all jobs, wherever they are; again where memory runs out even here."""
        with self._lock:
            for job in _TRIES * tuple(self._jobs.values()):
                with suppress(BaseException):
                    self._finish(job, reason, error)

    def _finish(self, job: Job, reason: FinishReason, error: Exception | None = None) -> None:
        """End a job that has no output of the loop; the lock is held."""
        self._end(job, RequestOutput(next(iter(job.running), -1), (), reason, error))

    def _end(self, job: Job, output: RequestOutput) -> None:
        """Finish the handle of a job, count it and free its place; the lock is held.

        The one place where a job ends. Only the first call counts: a job that a step goes on with may have
        been ended by `close`, or by a fault in another thread.
        """
        if self._jobs.get(job.handle) is not job:
            return
        timings = job.stopwatch.finish(job.times.values())
        job.handle.finish(output, job.duration, job.warnings, job.speech, timings)
        del self._jobs[job.handle]
        self._queue.leave(job)
        self._deadlines.discard(job)
        self._room.notify_all()
        job.prepare = job.prepared = None
        job.outputs = []
        if job.session is not None:
            self._sessions -= 1
        if job.running:  # which nothing waits for any more
            job.is_cancelled = True
            self._to_cancel.append(job)
            self._runnable.notify()
        duration = job.duration if job.speech is None else job.speech.duration
        self._tally.end(output.finish_reason, duration, idle=not self._jobs)
        if not job.being_read:  # or the reader still holds its input
            self._free_place(job)
        if self._closed:
            self.release()
