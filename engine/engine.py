"""The engine: recordings or texts in from any thread, results out, one continuously batched loop behind."""

import atexit
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from ..kernels.runtime.launch import compiled
from .classification import TOP_K, Classification
from .config import Settings
from .gpu.warm_up import warm_up
from .handle import Handle, in_order
from .openmp import release_team
from .outputs import Transcription
from .tasks.inputs import Recordings
from .tasks.loading import load, make_task
from .worker import Job, Prepared, Worker

READERS = 2  # threads that decode and resample; one keeps up with several thousand seconds of audio a second


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Where an engine stands.

    Args:
        running: requests that are being decoded.
        waiting: requests submitted and not there yet: to be read, or to be admitted.
        finished, failed, cancelled: requests that have ended, by how.
        pages_used, pages_total: of the cache of keys and values.
        tokens_generated: of all requests and hypotheses; none by a CTC model or a classifier.
        audio_seconds: of the finished requests; none of texts.
        busy_seconds: wall time during which there was something to do.
        tokens_per_second, rtfx: tokens, and seconds of audio, per busy second.
        graphs: decode steps that have been recorded as CUDA graphs.
        compiled: kernels that Triton had to compile, or to read from its cache on disk, since the engine was
            ready. Each made a step wait. Counts the whole process, other engines in it too.
    """

    running: int
    waiting: int
    finished: int
    failed: int
    cancelled: int
    pages_used: int
    pages_total: int
    tokens_generated: int
    audio_seconds: float
    busy_seconds: float
    tokens_per_second: float
    rtfx: float
    graphs: int
    compiled: int


class Engine:
    """Transcribes or classifies with one model, any number at once, each as it would be alone.

    A context manager; without `with`, call `close`. Its methods may be called from any thread.

    Args:
        model: a checkpoint's name or folder, of a model that generates text, of a CTC model, or of a
            classifier of recordings or texts; a loaded model; or None for the digits model that comes along,
            which reads English digits and nothing else.
        device: where to run; by default the GPU if there is one. A loaded model stays where it is.
        dtype: "float32" (default), "float16" or "bfloat16". A loaded model keeps its own.
        processor: of a loaded model; otherwise the checkpoint's is used. Of a classifier of recordings its
            feature extractor will do, of a classifier of texts it is the tokenizer.
        num_rows: hypotheses (a request's beams, or one) decoded at once; by default 32, on a GPU 512. A CTC
            model or classifier decodes none, and keeps no cache: it takes neither this nor num_pages.
        num_pages: pages of 16 positions in the cache of keys and values. By default enough for a 20 s
            recording in every row and for the longest recording with 5 beams; on a GPU as many as it has
            room for, or as all rows can fill.
        memory_fraction: of the memory that a GPU has free once the model is there: what the cache, the
            largest batch that is encoded at once (which is measured) and decode steps may take together;
            0.9 by default. In place of num_pages.
        graphs: on a GPU, record decode steps as CUDA graphs the second time that they come up; False
            launches their kernels one by one.
        overlap: on a GPU, encode on a stream of its own beside decoding; False takes turns.

    Raises:
        FileNotFoundError, ValueError: a checkpoint or argument that cannot be used.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        processor: Any = None,
        num_rows: int | None = None,
        num_pages: int | None = None,
        memory_fraction: float | None = None,
        graphs: bool = True,
        overlap: bool = True,
    ) -> None:
        self.model, self.processor = load(model, device, dtype, processor)
        settings = Settings(num_rows, num_pages, memory_fraction, graphs, overlap)
        self._kind = make_task(self.model, self.processor, settings)
        self._inputs = self._kind.inputs
        self.sampling_rate = self._inputs.sampling_rate  # Hz; None where it takes texts, as the next
        self.max_seconds = self._inputs.max_seconds
        if self.model.device.type == "cuda" and isinstance(self._inputs, Recordings):
            inputs = self._inputs
            warm_up(self._kind.loop, inputs.front_end, inputs.max_seconds, self._kind.ways)
        self._worker = Worker(
            self._kind.loop, readers=READERS, places=self._kind.places, seconds=self._kind.seconds
        )
        self._compiled_before = compiled()
        release_team()  # what this thread needed to load the model
        # At exit Python stops daemon threads anywhere, in the middle of a step too.
        atexit.register(self.close, cancel=True)

    def submit(
        self,
        source: Any,
        *,
        sampling_rate: int | None = None,
        language: str | None = None,
        priority: int = 0,
        stream: bool = True,
        **options: Any,
    ) -> Handle[Any]:
        """Takes one request and returns at once; it is read, admitted and answered in the background.

        Args:
            source: a path, or an array or tensor [samples] or [samples, channels], which is copied; of a
                classifier of texts a text, or a pair of texts.
            sampling_rate: of arrays, in Hz; by default the model's. Files know their own.
            language: to translate into, of those the checkpoint has.
            priority: larger goes first; first come, first served within one.
            stream: whether iterating over the handle yields text as it is decoded, or all at the end.
            **options: of `generate`, by name. Where neither they nor the checkpoint set max_length or
                max_new_tokens, a result has at most 16 tokens and 8 more per second of audio, within the
                model's positions. A CTC model has none; a classifier's are `classify`'s.

        Raises:
            ValueError: an option or language that there is not, a priority that is no whole number, or a
                sampling rate of texts. What is wrong with the recording or text itself is raised by
                `Handle.result`.
            RuntimeError: the engine is closed, or has stopped on an error.
        """
        options = self._kind.check(language, options)
        self._check_way(sampling_rate, priority)
        return self._submit(source, sampling_rate, priority, stream, options)

    def transcribe(
        self,
        sources: Iterable[Any],
        *,
        sampling_rate: int | None = None,
        language: str | None = None,
        priority: int = 0,
        **options: Any,
    ) -> Iterator[Transcription]:
        """Transcribes recordings as they come and yields the results in their order.

        A recording that fails yields a Transcription with its `error` set and stops no other. `sources` may
        be endless: it is read in the caller's thread, a bounded number ahead of the result that is due. Where
        the caller stops early, what is under way is cancelled.

        Arguments and errors are those of `submit`.
        """
        return self._all("transcribe", sources, sampling_rate, priority, language, options)

    def classify(
        self,
        sources: Iterable[Any],
        *,
        top_k: int | None = TOP_K,
        sampling_rate: int | None = None,
        priority: int = 0,
        truncate: bool = False,
    ) -> Iterator[Classification]:
        """Classifies recordings or texts as they come and yields the results in their order.

        One that fails yields a Classification with its `error` set and stops no other, and `sources` may be
        endless; see `transcribe`.

        Args:
            sources: recordings as `submit` takes them; for a classifier of texts strings, and pairs of them.
            top_k: labels of a result, best first; None for all.
            sampling_rate, priority: see `submit`.
            truncate: whether a text that is too long for the model is cut; otherwise it fails.

        Raises:
            ValueError, RuntimeError: see `submit`; or the model is no classifier.
        """
        options = {"top_k": top_k, "truncate": truncate}
        return self._all("classify", sources, sampling_rate, priority, None, options)

    def stats(self) -> EngineStats:
        """Numbers of this moment; those of the loop are as of its last step."""
        counts, loop, outside = self._worker.numbers()
        busy = counts.busy_seconds
        return EngineStats(
            running=loop.running,
            waiting=loop.waiting + outside,
            finished=counts.finished,
            failed=counts.failed,
            cancelled=counts.cancelled,
            pages_used=loop.pages_used,
            pages_total=loop.pages_total,
            tokens_generated=loop.tokens_generated,
            audio_seconds=counts.audio_seconds,
            busy_seconds=busy,
            tokens_per_second=loop.tokens_generated / busy if busy else 0.0,
            rtfx=counts.audio_seconds / busy if busy else 0.0,
            graphs=loop.graphs,
            compiled=compiled() - self._compiled_before,
        )

    def close(self, *, cancel: bool = False) -> None:
        """Takes no more recordings, finishes those submitted, or cancels them, and ends the threads.

        May be called again. Leaving a `with` block finishes what was submitted, by an exception cancels it.
        """
        self._worker.close(cancel)
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        self.close(cancel=exception_type is not None)

    def _all(
        self,
        verb: str,
        sources: Iterable[Any],
        sampling_rate: int | None,
        priority: int,
        language: str | None,
        options: dict[str, Any],
    ) -> Iterator[Any]:
        """Every source's result, in their order; `verb` is what the caller wants done."""
        if isinstance(sources, str | os.PathLike | np.ndarray | torch.Tensor):
            raise ValueError(f"{verb} takes several sources: put the {type(sources).__name__} into a list")
        if verb != self._kind.verb:
            raise ValueError(f"a {self._kind.name} cannot {verb}; call {self._kind.verb}")
        options = self._kind.check(language, options)
        self._check_way(sampling_rate, priority)
        self._worker.check_open()
        return in_order(
            sources,
            lambda source: self._submit(source, sampling_rate, priority, False, options),
            2 * self._kind.places,
        )

    def _check_way(self, sampling_rate: int | None, priority: int) -> None:
        """Refuse what says nothing of how a source is read, or of when its turn is."""
        if sampling_rate is not None and self.sampling_rate is None:
            raise ValueError(
                f"sampling_rate {sampling_rate!r} is of recordings, and a {self._kind.name} takes texts; "
                "leave it out"
            )
        if not isinstance(priority, int | np.integer):
            raise ValueError(f"priority must be a whole number, a larger one goes first; got {priority!r}")

    def _submit(
        self, source: Any, sampling_rate: int | None, priority: int, stream: bool, options: dict[str, Any]
    ) -> Handle[Any]:
        handle = Handle[Any](source, self._kind.reader(options), self._worker.cancel)
        taken = self._inputs.taken(source)
        prepare = lambda: self._prepare(taken, sampling_rate, options)  # noqa: E731
        self._worker.submit(Job(handle, prepare, priority=priority, stream=stream))
        release_team()  # of the copy, and of whatever the caller did with torch before
        return handle

    def _prepare(self, taken: Any, sampling_rate: int | None, options: dict[str, Any]) -> Prepared:
        """In a reading thread: what the model reads, and the options that depend on its length."""
        inputs, duration = self._inputs.read(taken, sampling_rate, options)
        return Prepared(inputs, self._kind.resolve(options, duration), duration)
