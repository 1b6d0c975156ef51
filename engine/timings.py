"""Times of a request on its way through the engine."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..scheduler.request import RequestOutput


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that a request took, by wall clock. Other requests share them: a step serves many.

    Of a recording in several windows, all but `first_token` and `total` are sums over its windows, which may
    overlap.

    Args:
        queue: waiting to be read, and then to be admitted to the batch.
        read: reading, decoding and resampling, or tokenizing a text.
        encode: from the admission to the first token, which the step of the encoder may give too; for CTC
            and classifiers to the end.
        decode: from the first token to the end; 0 for CTC and classifiers.
        first_token: from the submission to the first token; None without one.
        total: from the submission to the end.
    """

    queue: float
    read: float
    encode: float
    decode: float
    first_token: float | None
    total: float


class Stopwatch:
    """Timings of a request while it is under way. Its methods are called by one thread at a time.

    Attributes:
        submitted: time of the submission, by `time.perf_counter`.
    """

    def __init__(self) -> None:
        self.submitted = time.perf_counter()
        self._is_read = False
        self._queue = self._read = self._encode = self._decode = 0.0
        self._ready = dict[int, float]()  # times from which on a part waits for the loop, by its key
        self._first_token: float | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Context of reading, of which there may be several."""
        start = time.perf_counter()
        if not self._is_read:
            self._is_read = True
            self._queue += start - self.submitted
        try:
            yield
        finally:
            self._read += time.perf_counter() - start

    def set_ready(self, key: int) -> None:
        """Note that a part waits for the loop from now on."""
        self._ready[key] = time.perf_counter()

    def end(self, key: int, output: RequestOutput) -> None:
        """Add the times of a part that has ended."""
        ready = self._ready.pop(key, None)
        admitted, first = output.admitted_at, output.first_token_at
        if admitted is None:
            return
        now = time.perf_counter()
        self._queue += max(admitted - ready, 0.0) if ready is not None else 0.0
        self._encode += (now if first is None else first) - admitted
        if first is not None:
            self._decode += now - first
            if self._first_token is None:
                self._first_token = first - self.submitted

    def timings(self) -> Timings:
        """Timings of the request, which ends now."""
        now = time.perf_counter()
        queue = self._queue if self._is_read else now - self.submitted
        total = now - self.submitted
        return Timings(queue, self._read, self._encode, self._decode, self._first_token, total)
