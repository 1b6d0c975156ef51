"""Places where a request can fail, and exceptions raised there, for tests and the soak.

A site is a real function of the program, wrapped so that it raises. The culprit, the one request that a fault
is about, is known by its source or by its number of samples, which no other request has.
"""

import errno
import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch


class Fault(Exception):
    """An ordinary error of a library."""


class Panic(BaseException):
    """An error that is no Exception, as of pyo3: a panic of `tokenizers` is one."""


KINDS: dict[str, Callable[[], BaseException]] = {
    "Exception": lambda: Fault("injected"),
    "BaseException": lambda: Panic("injected"),
    "MemoryError": lambda: MemoryError("injected"),
    "OutOfMemory": lambda: torch.OutOfMemoryError("injected"),
    "StopIteration": lambda: StopIteration("injected"),  # which a loop over an iterator takes for its end
    "OSError": lambda: OSError(errno.ENOSPC, "No space left on device (injected)"),
    "SystemExit": lambda: SystemExit("injected"),  # which ends a thread without a word
}


class Culprit:
    """The request that faults are about, recognized in each thread's current work.

    Args:
        names: sources of the culprit, as parts of a path, or a text.
        samples: numbers of samples of its waveform.
    """

    def __init__(self, names: frozenset[str], samples: frozenset[int] = frozenset()) -> None:
        self._names, self.samples = names, samples
        self._local = threading.local()

    def is_source(self, source: Any) -> bool:
        """Check whether a path or text is the culprit's."""
        return any(name in str(source) for name in self._names)

    def is_request(self, request: Any) -> bool:
        """Check whether a request of the loop is the culprit."""
        return request.inputs.shape[0] in self.samples

    def note(self, requests: Any) -> None:
        """Note the requests that this thread works on from now on."""
        at = [index for index, request in enumerate(requests) if self.is_request(request)]
        self._local.index = at[0] if at else None

    @property
    def index(self) -> int | None:
        """Index of the culprit among the requests that this thread works on; None where it is not there."""
        return getattr(self._local, "index", None)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Follow which requests each thread reads, encodes and decodes, in engines made meanwhile."""
        from tritone.engine.tasks import inputs
        from tritone.scheduler import encoder
        from tritone.scheduler.decoder import Decoder

        def load(source: Any, *arguments: Any, _call: Any = inputs.load_audio, **options: Any) -> Any:
            self._local.index = 0 if self.is_source(source) else None
            return _call(source, *arguments, **options)

        def pack(requests: Any, *arguments: Any, _call: Any = encoder.pack_inputs) -> Any:
            self.note(requests)
            return _call(requests, *arguments)

        def decode(own: Any, batch: Any, _call: Any = Decoder._decode) -> Any:
            self.note(running.request for running in batch.requests)
            return _call(own, batch)

        def decode_apart(own: Any, requests: Any, _call: Any = Decoder._decode_apart) -> Any:
            self.note(running.request for running in requests)
            return _call(own, requests)

        with ExitStack() as stack:
            for module, name, wrapper in (
                (inputs, "load_audio", load),
                (encoder, "pack_inputs", pack),
                (Decoder, "_decode", decode),
                (Decoder, "_decode_apart", decode_apart),
            ):
                stack.enter_context(patch.object(module, name, wrapper))
            yield


@dataclass(eq=False)
class Injector:
    """Wrapper of one site: raises `kind`, or puts NaN into the result, where `when` holds.

    Args:
        target: "module:name" or "module:Class.name".
        kind: a key of KINDS, or "NaN".
        when: test of the call's arguments.
        times: most faults; None for any number.
        culprit: request whose part of the result becomes NaN; None for all.
    """

    target: str
    kind: str
    when: Callable[..., bool]
    times: int | None = None
    culprit: Culprit | None = None
    raised: int = field(default=0, init=False)
    _lock: Any = field(default_factory=threading.Lock, init=False)

    @contextmanager
    def active(self) -> Iterator["Injector"]:
        """Wrap the site while the context lasts."""
        module, _, path = self.target.partition(":")
        owner: Any = importlib.import_module(module)
        *parents, name = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        original = getattr(owner, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            if not self._is_due(*arguments, **options):
                return original(*arguments, **options)
            if self.kind == "NaN":
                index = self.culprit.index if self.culprit else None
                return with_nan(original(*arguments, **options), arguments, index)
            raise KINDS[self.kind]()

        with patch.object(owner, name, wrapped):
            yield self

    def _is_due(self, *arguments: Any, **options: Any) -> bool:
        with self._lock:
            if self.times is not None and self.raised >= self.times:
                return False
            due = bool(self.when(*arguments, **options))
            self.raised += due
            return due


def with_nan(result: Any, arguments: tuple[Any, ...], index: int | None) -> Any:
    """Put NaN into one request's rows of a packed result, or into all of them, and return it.

    Args:
        result: (rows, cu_rows), a mapping of such pairs, or the logits of a decode step.
        arguments: those of the call; in a decode step the last one is the attention's layout.
        index: the request; None for all.
    """
    if isinstance(result, dict):
        return {name: with_nan(part, arguments, index) for name, part in result.items()}
    rows, cu_rows = result if isinstance(result, tuple) else (result, arguments[-1].cross.cu_rows)
    if rows.is_floating_point():
        start, end = (0, len(rows)) if index is None else cu_rows[index : index + 2].tolist()
        rows = rows.clone()
        rows[start:end] = torch.nan
    return (rows, cu_rows) if isinstance(result, tuple) else rows


@contextmanager
def injected(*injectors: Injector, culprit: Culprit | None = None) -> Iterator[None]:
    """Wrap all sites, following the culprit where there is one."""
    with ExitStack() as stack:
        for injector in injectors:
            stack.enter_context(injector.active())
        if culprit is not None:  # last, so that its wrappers run first
            stack.enter_context(culprit.followed())
        yield
