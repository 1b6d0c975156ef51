"""Times of a request: how long it waited, was read, encoded and decoded."""

from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter

from ..scheduler.request import RequestTimes


@dataclass(frozen=True, slots=True)
class Timings:
    """Times of one request of an engine, in seconds.

    Those of a recording of one window add up to `total`. Those of a recording in several are sums over its
    windows, which overlap, and over its own pauses: they may add up to more than `total`, or to less.

    Args:
        queue: waiting: from submission until a thread reads the source, and from then on for a place in the
            batch. Submission is when `submit` has copied or read its source.
        read: a reading thread's time: decoding, resampling and cutting of the audio, tokenizing of a text. 0
            for an array that `submit` itself makes ready for a GPU.
        encode: from the admission to the batch to the end of encoding; on a GPU, which the host does not wait
            for, to the first token. For an encoder-only model (CTC, classifiers) to the result.
        decode: from the end of encoding to the result, and the model's word times; 0 for an encoder-only
            model.
        first_token: from submission to the first token of any window, whether or not the request streams;
            None without one, as for an encoder-only model.
        total: from submission to the end.
    """

    queue: float
    read: float
    encode: float
    decode: float
    first_token: float | None
    total: float


class Stopwatch:
    """Times of a job so far. Not thread-safe; points in time are those of `time.perf_counter`.

    Attributes:
        submitted: time of the submission.
    """

    __slots__ = ("_decode", "_encode", "_first_token", "_queue", "_read", "_read_since", "submitted")

    def __init__(self) -> None:
        self.submitted = perf_counter()
        self._queue: float | None = None  # None until the job is taken from the queue
        self._read = self._encode = self._decode = 0.0
        self._read_since: float | None = None
        self._first_token: float | None = None

    def take(self) -> None:
        """Note that the job leaves the queue to be read; only the first call counts."""
        if self._queue is None:
            self._read_since = perf_counter()
            self._queue = self._read_since - self.submitted

    def start_reading(self) -> None:
        """Note that a reading thread goes on with the job."""
        if self._read_since is None:
            self._read_since = perf_counter()

    def stop_reading(self) -> float:
        """Note that the reading thread leaves the job, and return the time."""
        now = perf_counter()
        self._stop_reading(now)
        return now

    def add_request(self, times: RequestTimes) -> None:
        """Add the times of a request to the loop that ends now, and whose job goes on."""
        self._add_request(times, perf_counter())

    def add_call(self, seconds: float) -> None:
        """Add the time of a computation between two steps."""
        self._decode += seconds

    def finish(self, requests: Iterable[RequestTimes]) -> Timings:
        """Times of the job, which ends now, and with it the requests that it has in the loop."""
        end = perf_counter()
        if self._queue is None:
            self._queue = end - self.submitted
        self._stop_reading(end)
        for times in requests:
            self._add_request(times, end)
        first = None if self._first_token is None else self._first_token - self.submitted
        return Timings(self._queue, self._read, self._encode, self._decode, first, end - self.submitted)

    def _stop_reading(self, now: float) -> None:
        if self._read_since is not None:
            self._read += now - self._read_since
            self._read_since = None

    def _add_request(self, times: RequestTimes, end: float) -> None:
        admitted = end if times.admitted is None else times.admitted
        encoded = end if times.encoded is None else times.encoded
        self._queue = (self._queue or 0.0) + admitted - times.ready
        self._encode += encoded - admitted
        self._decode += end - encoded
        if times.first_token is not None:
            before = times.first_token if self._first_token is None else self._first_token
            self._first_token = min(before, times.first_token)
