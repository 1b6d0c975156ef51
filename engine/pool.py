"""Engines on several devices of one machine, each in a process of its own, that share one queue."""

import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from typing import Any, Self

import torch

from ..scheduler.request import FinishReason
from .config import EngineConfig
from .engine import Engine
from .handle import Handle
from .journal_files import journal_path
from .outputs import Transcription
from .tasks.loading import load, resolve_device

_TRIES = 2  # of a recording whose process dies
_CLOSE_SECONDS = 1.0


class EnginePool:
    """Inference engines for one model that transcribes, on several devices of one machine.

    Each engine has a process of its own, so that none waits for another's Python. Results are those of one
    `Engine`, in the order given. A recording whose process dies is tried once more on another device. A
    caller that stops early cancels the requests in progress.

        with tritone.EnginePool("facebook/s2t-small-librispeech-asr", ["cuda:0", "cuda:1"]) as pool:
            for result in pool.transcribe(paths): ...

    Args:
        model: checkpoint name or folder, or the name of a built-in model, as of `Engine`.
        devices: a device for each engine. Two that are the same share it; on a CPU they share its threads.
        dtype, config: as of `Engine`.

    Attributes:
        model: the model, on the CPU, as it was loaded to check it before any process starts.

    Raises:
        FileNotFoundError, ValueError: as of `Engine`, or no device.
        RuntimeError: an engine did not start.
    """

    def __init__(
        self,
        model: Any,
        devices: Sequence[str],
        *,
        dtype: str | None = None,
        config: EngineConfig | None = None,
    ) -> None:
        if not devices:
            raise ValueError("no device; name one for each engine")
        kinds = [resolve_device(device).type for device in devices]
        self.model, _ = load(model, "cpu", dtype, None)
        threads = max(torch.get_num_threads() // kinds.count("cpu"), 1) if "cpu" in kinds else 1
        self._members = [_Member(model, device, dtype, config, threads) for device in devices]
        self._busy = threading.Lock()
        self._given = 0  # recordings of all calls
        try:
            for member in self._members:
                member.wait_until_ready()
        except BaseException:
            self.close(cancel=True)
            raise

    def transcribe(
        self, sources: Iterable[object], *, journals: str | os.PathLike[str] | None = None, **options: Any
    ) -> Iterator[Transcription]:
        """Transcribe recordings and yield the results in input order, as `Engine.transcribe` does.

        Args:
            sources: paths, bytes or arrays; may be infinite.
            journals: as of `Engine.transcribe`.
            **options: as of `Engine.submit`. Channels are mixed.

        Raises:
            ValueError: an option that `Engine.submit` refuses, or channels that are split.
            RuntimeError: another call is under way, or the pool is closed or has no process left.
        """
        if options.pop("channels", "mix") != "mix":
            raise ValueError("channels 'split' takes an Engine on one device; run one for each, with --shard")
        alive = [member for member in self._members if member.is_alive]
        if not alive:
            raise RuntimeError("the pool is closed, or its processes have died")
        with self._one_call():
            alive[0].check(options)
        return self._run(iter(sources), None if journals is None else Path(journals), options)

    @contextmanager
    def _one_call(self) -> Iterator[None]:
        """Context of a call. Raises RuntimeError where another one is under way."""
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("the pool transcribes already; one call at a time")
        try:
            yield
        finally:
            self._busy.release()

    def close(self, *, cancel: bool = False) -> None:
        """End the processes; a call under way ends with errors. May be called more than once.

        Args:
            cancel: accepted as by `Engine.close`; nothing is left to wait for either way.
        """
        for member in self._members:
            member.close()
        self._members.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(
        self, sources: Iterator[Any], journals: Path | None, options: dict[str, Any]
    ) -> Iterator[Transcription]:
        """Keep all processes busy, and yield results in order."""
        with self._one_call():
            first = self._given  # number of the call's first recording
            try:
                yield from self._results(first, chain(sources, repeat(_END)), journals, options)
            finally:
                for member in self._members:
                    member.cancel()

    def _results(
        self, first: int, new: Iterator[Any], journals: Path | None, options: dict[str, Any]
    ) -> Iterator[Transcription]:
        """Results of a call in order; `new` ends with _END."""
        following = first  # number of the next result
        again = deque[_Work]()  # of processes that died
        ended = dict[int, Transcription]()
        most = sum(member.room for member in self._members)
        is_open = True
        while True:
            while following in ended:
                yield ended.pop(following)
                following += 1
            alive = [member for member in self._members if member.is_alive]
            while (member := _with_room(alive)) is not None:
                if again:
                    member.give(again.popleft())
                    continue
                if not is_open or self._given >= following + most:
                    break
                if (source := next(new)) is _END:
                    is_open = False
                    break
                work = _work(self._given, source, options, journals)
                self._given += 1
                try:
                    member.give(work)
                except Exception as error:  # the source's own
                    ended[work.number] = work.failed(f"{_UNMOVABLE}: {error}")
            if following in ended:
                continue
            if following == self._given and not is_open:
                return
            if not alive:
                if not again:  # the next result never comes
                    raise RuntimeError("the pool is closed, or its processes have died")
                ended |= {work.number: work.failed(_DIED) for work in again}
                again.clear()
                continue
            for one in _with_answers(alive):
                for work, result in one.answers():
                    if work.number < first:  # of a call that was left
                        continue
                    if result is not None:
                        ended[work.number] = result
                    elif work.tries < _TRIES:
                        again.append(work)
                    else:
                        ended[work.number] = work.failed(_DIED)


_END = object()
_CHECK, _CANCEL = "check", "cancel"  # messages in place of a number
_DIED = "the processes that read this recording have died, for lack of memory perhaps"
_UNMOVABLE = "the source cannot be sent to another process; give a path, bytes or an array"


@dataclass
class _Work:
    """Recording that a process transcribes."""

    number: int
    source: Any
    options: dict[str, Any]
    tries: int = 0

    def failed(self, problem: str) -> Transcription:
        """Result of a recording that has none."""
        error = RuntimeError(problem)
        return Transcription("", (), FinishReason.ERROR, 0.0, error=error, source=self.source)


@dataclass(eq=False)
class _Member:
    """Process of a pool, with the recordings that it has.

    Args:
        model, device, dtype, config: arguments of its engine.
        threads: CPU threads of its model.
    """

    model: Any
    device: str
    dtype: str | None
    config: EngineConfig | None
    threads: int
    room: int = 0  # recordings that it takes at a time
    works: dict[int, _Work] = field(default_factory=dict)
    is_alive: bool = True

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self.connection, other = context.Pipe()
        arguments = (other, self.model, self.device, self.dtype, self.config, self.threads)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        ensure_running()  # it unblocks interrupts when it starts
        with _interrupts_blocked():
            self.process.start()
        other.close()  # or its end would not be noticed

    def wait_until_ready(self) -> None:
        """Wait for the process's engine. Raises its error, or RuntimeError where the process has died."""
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            raise RuntimeError(f"the process of {self.device} has died while its engine started") from None
        if isinstance(answer, Exception):
            raise answer
        self.room = answer

    def give(self, work: _Work) -> None:
        """Give the process a recording; one that has died is noticed later. Raises the source's own error."""
        data = ForkingPickler.dumps((work.source, work.options))
        work.tries += 1
        self.works[work.number] = work
        with suppress(OSError):
            self.connection.send(work.number)
            self.connection.send_bytes(data)

    def cancel(self) -> None:
        """Cancel the recordings that the process has; their results come and are dropped."""
        if self.works and self.is_alive:
            with suppress(OSError):
                self.connection.send(_CANCEL)

    def check(self, options: dict[str, Any]) -> None:
        """Check options of recordings. Raises the engine's error; a dead process is noticed later."""
        with suppress(EOFError, OSError):
            self.connection.send(_CHECK)
            self.connection.send(options)
            while True:
                number, answer = self.connection.recv()
                if number is None:
                    break
                self.works.pop(number)  # of a call that was left
            if answer is not None:
                raise answer

    def answers(self) -> list[tuple[_Work, Transcription | None]]:
        """Next result of the process, or all its recordings without one where it has died."""
        try:
            number, result = self.connection.recv()
        except (EOFError, OSError):
            self.is_alive = False
            works, self.works = sorted(self.works.values(), key=lambda work: work.number), {}
            return [(work, None) for work in works]
        work = self.works.pop(number)
        return [(work, replace(result, source=work.source))]

    def close(self) -> None:
        """End the process, by force where it does not end by itself."""
        self.is_alive = False
        self.connection.close()
        for end in (self.process.terminate, self.process.kill):
            end()
            self.process.join(_CLOSE_SECONDS)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Context in which a process that starts never gets a Ctrl-C: the pool's process ends it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(number: int, source: Any, options: dict[str, Any], journals: Path | None) -> _Work:
    """Recording with its options, and its journal where it is a path."""
    if journals is not None and isinstance(source, str | os.PathLike):
        options = options | {"journal": journal_path(journals, source)}
    return _Work(number, source, options)


def _with_answers(members: Sequence[_Member]) -> list[_Member]:
    """Processes that have an answer or have died, once there is one."""
    ready = wait([member.connection for member in members])
    return [member for member in members if member.connection in ready]


def _with_room(members: Sequence[_Member]) -> _Member | None:
    """Process with the fewest recordings, if it has room for another."""
    member = min(members, key=lambda one: len(one.works) / one.room, default=None)
    return member if member is not None and len(member.works) < member.room else None


# In the processes.


def _serve(
    connection: Connection,
    model: Any,
    device: str,
    dtype: str | None,
    config: EngineConfig | None,
    threads: int,
) -> None:
    """Main function of a process: an engine for the recordings that come, until the pool goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for platforms where it is not blocked
    torch.set_num_threads(threads)
    try:
        try:
            engine = Engine(model, device=device, dtype=dtype, config=config)
        except Exception as error:
            connection.send(_picklable(error))
        else:
            connection.send(engine.max_ahead)
            _serve_recordings(connection, engine)
    except (EOFError, OSError):
        pass  # the pool is gone, and what is under way with it
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(0)  # before the engine would end its requests as cancelled, with results


def _serve_recordings(connection: Connection, engine: Engine) -> None:
    """Submit the recordings that come, check options, and cancel. Raises EOFError where the pool has gone."""
    under_way: queue.SimpleQueue[Any] = queue.SimpleQueue()
    handles = dict[int, Handle[Any]]()  # without those that have been answered
    sending = threading.Lock()
    threading.Thread(target=_answer, args=(connection, sending, under_way, handles), daemon=True).start()
    while True:
        message = connection.recv()
        if message == _CHECK:
            problem = _problem_of(engine, connection.recv())
            with sending:
                connection.send((None, problem))
        elif message == _CANCEL:
            for handle in tuple(handles.values()):
                handle.cancel()
        else:
            data = connection.recv_bytes()
            try:
                source, options = pickle.loads(data)
                handles[message] = result = engine.submit(source, stream=False, **options)
                under_way.put((message, result))
            except Exception as error:
                under_way.put((message, Transcription("", (), FinishReason.ERROR, 0.0, error=error)))


def _problem_of(engine: Engine, options: dict[str, Any]) -> Exception | None:
    """Error of the options of a call; None where there is none."""
    try:
        engine.transcribe([], **options)
    except Exception as error:
        return _picklable(error)
    return None


def _answer(
    connection: Connection,
    sending: threading.Lock,
    under_way: "queue.SimpleQueue[Any]",
    handles: dict[int, Handle[Any]],
) -> None:
    """Send the results of a process, in the order of its recordings."""
    with suppress(OSError):
        while True:
            number, result = under_way.get()
            if not isinstance(result, Transcription):
                result = result.outcome()
                handles.pop(number, None)
            error = None if result.error is None else _picklable(result.error)
            with sending:
                connection.send((number, replace(result, error=error, source=None)))


def _picklable(error: Exception) -> Exception:
    """The error, or a RuntimeError with its type and message where it cannot leave a process."""
    try:
        if str(pickle.loads(pickle.dumps(error))) == str(error):
            return error
    except Exception:
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")
