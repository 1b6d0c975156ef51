"""Clients that load engines from several threads, and check every result against what it gives alone."""

import os
import random
import signal
import threading
import time
import traceback
import weakref
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from oracle import Request, Subject, pick
from storm import is_injected
from watchdog import stacks

import tritone

HANG = 60.0  # seconds after which an operation counts as a hang
FORK = 10.0  # seconds for a forked child to be refused
CLIENTS = 2  # threads for each engine


@dataclass
class Counts:
    """Counts and problems of the soak, from all threads."""

    requests: int = 0
    audio_seconds: float = 0.0
    by_end: Counter[str] = field(default_factory=Counter)
    engines: Counter[str] = field(default_factory=Counter)  # made, closed, cancelled, dropped, failed
    wrong: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    hangs: Counter[str] = field(default_factory=Counter)
    lock: Any = field(default_factory=threading.Lock)

    def note(self, problems: "Counter[str]", what: str) -> None:
        """Count a problem; of many only the first hundred are told apart."""
        with self.lock:
            problems[what[:3000] if len(problems) < 100 else "more"] += 1

    def end(self, how: str, request: Request) -> None:
        with self.lock:
            self.requests += 1
            self.by_end[how] += 1
            if how == "as alone":
                self.audio_seconds += request.seconds


class Watched(threading.Thread):
    """Thread of the soak, whose own errors count as wrong answers.

    `busy` is the operation under way and its start, for the watchdog.
    """

    def __init__(self, name: str, seed: int, counts: Counts, over: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.counts, self.over = counts, over
        self.draw = random.Random(f"{name} {seed}")
        self.busy: tuple[str, float] | None = None

    def run(self) -> None:
        try:
            self.work()
        except BaseException:
            self.counts.note(self.counts.wrong, f"{self.name} ended: {traceback.format_exc()}")

    def work(self) -> None:
        raise NotImplementedError


def has_failed(engine: tritone.Engine) -> bool:
    return engine.health().status == "failed"


class Slot:
    """Place of one engine, which is closed, dropped or replaced after a failure while clients use it."""

    def __init__(self, subject: Subject, counts: Counts) -> None:
        self.subject = subject
        self.counts = counts
        self.lock = threading.Lock()
        self.cancelled: weakref.WeakSet[tritone.Engine] = weakref.WeakSet()  # closed with cancel=True
        self.dropped: list[weakref.ref[tritone.Engine]] = []
        self.engine: tritone.Engine | None = self.open()

    def open(self) -> tritone.Engine:
        """Make an engine; one whose making fails by the storm is made again."""
        while True:
            try:
                engine = self.subject.open()
            except BaseException as error:
                if not is_injected(error):
                    raise
                self.counts.engines["not made by a fault"] += 1
            else:
                self.counts.engines["made"] += 1
                return engine

    def get(self) -> tritone.Engine:
        with self.lock:
            if self.engine is None or has_failed(self.engine):
                if self.engine is not None:
                    self.counts.engines["failed by a fault"] += 1
                    self.engine.close(cancel=True)
                self.engine = self.open()
            return self.engine

    def replace(self, how: str) -> None:
        """End the engine: "closed" finishes its requests, "cancelled" cancels them, "dropped" forgets it."""
        with self.lock:
            engine, self.engine = self.engine, None
        if engine is None:
            return
        self.counts.engines[how] += 1
        if how == "cancelled":
            self.cancelled.add(engine)
        if how == "dropped":
            self.dropped.append(weakref.ref(engine))
        else:
            engine.close(cancel=how == "cancelled")

    def is_cancelled(self, engine: tritone.Engine) -> bool:
        return engine in self.cancelled or has_failed(engine)


class Client(Watched):
    """Thread that sends random requests to an engine's slot until `over` is set."""

    def __init__(self, slot: Slot, seed: int, over: threading.Event) -> None:
        super().__init__(f"client-{slot.subject.name}", seed, slot.counts, over)
        self.slot = slot

    def work(self) -> None:
        operations = [self.in_order, self.in_order, self.streamed, self.cancelled, self.many]
        while not self.over.is_set():
            operation = self.draw.choice(operations)
            self.busy = operation.__name__, time.monotonic()
            try:
                operation(self.slot.get())
            except BaseException as error:
                # An engine that was closed meanwhile, or failed by a fault, says so.
                if not is_injected(error) and "engine is closed" not in str(error):
                    self.counts.note(self.counts.wrong, f"{operation.__name__} raised {error!r}")
                self.counts.by_end["refused"] += 1
                self.over.wait(0.02)
            self.busy = None

    def pick(self) -> Request:
        return pick(self.slot.subject, self.draw)

    def submit(self, engine: tritone.Engine, request: Request, **options: Any) -> Any:
        priority = self.draw.choice([0, 0, 1, -5])
        return engine.submit(request.make(), priority=priority, **request.options, **options)

    def in_order(self, engine: tritone.Engine) -> None:
        """Transcribe or classify a few sources, sometimes stopping before the last."""
        first = self.pick()
        same = [one for one in self.slot.subject.requests if one.options == first.options]
        requests = [first, *self.draw.choices(same, k=self.draw.randrange(8))]
        verb: Any = engine.classify if engine.sampling_rate is None else engine.transcribe
        stop = self.draw.randrange(len(requests)) if self.draw.random() < 0.1 else len(requests)
        results = []
        for result in verb([request.make() for request in requests], **first.options):
            results.append(result)
            if len(results) > stop:
                break
        for request, result in zip(requests, results, strict=False):
            self.check(engine, request, result)
        if len(results) < min(stop + 1, len(requests)):
            self.counts.note(self.counts.lost, f"{len(results)} results of {len(requests)} requests")

    def streamed(self, engine: tritone.Engine) -> None:
        """Iterate over the pieces of a text while it is decoded."""
        request = self.pick()
        handle = self.submit(engine, request)
        text = None
        try:
            text = "".join(handle)
        except Exception as error:
            if not is_injected(error) and request.expected is not None:
                self.counts.note(self.counts.wrong, f"iteration raised {error!r}")
        result = handle.outcome(HANG)
        self.check(engine, request, result)
        if text is not None and result.error is None:
            whole = (
                result.text
                if hasattr(result, "text")
                else "".join(label.label for label in result.labels[:1])
            )
            if text != whole:
                self.counts.note(self.counts.wrong, f"pieces {text!r} of {whole!r}")

    def cancelled(self, engine: tritone.Engine) -> None:
        """Cancel a request at some time of its life."""
        request = self.pick()
        handle = self.submit(engine, request)
        time.sleep(self.draw.choice([0, 0, 0.001, 0.01, 0.1]))
        handle.cancel()
        self.check(engine, request, handle.outcome(HANG), cancelled=True)

    def many(self, engine: tritone.Engine) -> None:
        """Submit many requests of all kinds, then wait for them."""
        requests = [self.pick() for _ in range(self.draw.choice([3, 20, 60]))]
        sent = []
        try:
            for request in requests:
                sent.append((request, self.submit(engine, request, stream=False)))
        finally:
            for request, handle in sent:
                self.check(engine, request, handle.outcome(HANG))

    def check(self, engine: tritone.Engine, request: Request, result: Any, cancelled: bool = False) -> None:
        """Count a result, which is the one that the request gives alone, a fault's error, or cancelled."""
        if result.error is not None:
            bad = request.expected is None and isinstance(result.error, ValueError)
            if not bad and not is_injected(result.error):
                self.counts.note(self.counts.wrong, f"{result.error!r} instead of {request.expected}")
            self.counts.end("bad input refused" if bad else "failed by a fault", request)
        elif result.finish_reason == "cancelled":
            if not cancelled and not self.slot.is_cancelled(engine):
                self.counts.note(self.counts.wrong, f"cancelled by nobody: {result}")
            self.counts.end("cancelled", request)
        else:
            if result != request.expected:
                self.counts.note(self.counts.wrong, f"{result} instead of {request.expected}")
            self.counts.end("as alone", request)


class Manager(Watched):
    """Thread that ends engines at random, and forks children that try to use one."""

    def __init__(self, slots: list[Slot], seed: int, over: threading.Event) -> None:
        super().__init__("manager", seed, slots[0].counts, over)
        self.slots = slots
        self.forks = 0

    def work(self) -> None:
        while not self.over.wait(self.draw.uniform(0.2, 1.5)):
            slot = self.draw.choice(self.slots)
            how = self.draw.choice(["closed", "cancelled", "dropped", "forked"])
            self.busy = how, time.monotonic()
            if how == "forked":
                self.fork(slot)
            else:
                slot.replace(how)
            self.busy = None

    def fork(self, slot: Slot) -> None:
        """Use the engine in a forked child, which must be refused at once."""
        engine, request = slot.get(), slot.subject.requests[0]
        self.forks += 1
        child = os.fork()
        if not child:
            code = 1
            try:
                engine.submit(request.make())
            except RuntimeError:
                code = 0
            finally:
                os._exit(code)
        until = time.monotonic() + FORK
        while time.monotonic() < until:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                if status:
                    slot.counts.note(slot.counts.wrong, f"a forked child was not refused: status {status}")
                return
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        slot.counts.note(slot.counts.hangs, "a forked child's submit")


def hang_of(threads: list[Any]) -> str | None:
    """Description of an operation that takes too long; None without any."""
    for thread in threads:
        busy = thread.busy
        if busy is not None and time.monotonic() - busy[1] > HANG:
            return f"{thread.name}: {busy[0]}\n{stacks()}"
    return None
