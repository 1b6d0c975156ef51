"""The engine: recordings in from any thread, text out, one continuously batched loop behind."""

import atexit
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from ..kernels.launch import compiled
from ..models.auto import AutoModelForSpeechSeq2Seq, AutoProcessor
from ..scheduler.pages import PAGE_SIZE
from ..scheduler.request import GenerationOptions
from .audio import AudioError, as_samples, load_audio
from .openmp import release_team
from .transcription import Handle, Transcription, in_order
from .worker import Job, Prepared, Worker

DIGITS = Path(__file__).parent.parent / "models" / "digits"  # the model that comes along
READERS = 2  # threads that decode and resample; one keeps up with several thousand seconds of audio a second

# The longest result where neither the call nor the checkpoint says: speech has about 3.4 tokens a second.
TOKENS_PER_SECOND = 8
TOKENS_TO_SPARE = 16

# A cache that nobody sized holds a greedy request of this many seconds in each row.
USUAL_SECONDS = 20.0
LONGEST_EVER = 24 * 3600.0  # seconds; where a model's encoder has no limit of its own


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Where an engine stands.

    Args:
        running: requests that are being decoded.
        waiting: requests submitted and not there yet: to be read, or to be admitted.
        finished, failed, cancelled: requests that have ended, by how.
        pages_used, pages_total: of the cache of keys and values.
        tokens_generated: of all requests and hypotheses.
        audio_seconds: of the finished requests.
        busy_seconds: wall time during which there was something to do.
        tokens_per_second, rtfx: tokens, and seconds of audio, per busy second.
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
    compiled: int


class Engine:
    """Transcribes recordings with one model, any number at once, each as it would be alone.

    A context manager; without `with`, call `close`. Its methods may be called from any thread.

    Args:
        model: a checkpoint's name or folder, a loaded model, or None for the digits model that comes along,
            which reads English digits and nothing else.
        device: where to run; by default the GPU if there is one. A loaded model stays where it is.
        dtype: "float32" (default), "float16" or "bfloat16". A loaded model keeps its own.
        processor: of a loaded model; otherwise the checkpoint's is used.
        num_rows: hypotheses (a request's beams, or one) decoded at once; by default 32, on a GPU 512.
        num_pages: pages of 16 positions in the cache of keys and values. By default enough for a 20 s
            recording in every row and for the longest recording with 5 beams; on a GPU at most half of its
            free memory.

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
    ) -> None:
        self.model, self.processor = _load(model, device, dtype, processor)
        self.sampling_rate: int = self.processor.feature_extractor.sampling_rate  # Hz
        self.max_seconds = _longest(self.model, self.processor.feature_extractor)
        if num_rows is None:
            num_rows = 512 if self.model.device.type == "cuda" else 32
        if num_pages is None:
            num_pages = self._usual_pages(num_rows)
        for name, number in (("num_rows", num_rows), ("num_pages", num_pages)):
            if number < 1:
                raise ValueError(f"{name} is {number}; it must be 1 or more")
        loop = self.model.generation_loop(
            self.processor.feature_extractor, num_pages=num_pages, num_rows=num_rows
        )
        self._ahead = 4 * num_rows
        # Twice the rows: as many again are read while those are decoded.
        self._worker = Worker(loop, readers=READERS, places=2 * num_rows)
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
    ) -> Handle:
        """Takes one recording and returns at once; it is read, admitted and decoded in the background.

        Args:
            source: a path, or an array or tensor [samples] or [samples, channels], which is copied.
            sampling_rate: of arrays, in Hz; by default the model's. Files know their own.
            language: to translate into, of those the checkpoint has.
            priority: larger goes first; first come, first served within one.
            stream: whether iterating over the handle yields text as it is decoded, or all at the end.
            **options: of `generate`, by name. Where neither they nor the checkpoint set max_length or
                max_new_tokens, a result has at most 16 tokens and 8 more per second of audio, within the
                model's positions.

        Raises:
            ValueError: an option or language that there is not. What is wrong with the recording itself is
                raised by `Handle.result`.
            RuntimeError: the engine is closed, or has stopped on an error.
        """
        options = self._check_options(language, options)
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
        if isinstance(sources, str | os.PathLike | np.ndarray | torch.Tensor):
            raise ValueError(
                f"transcribe takes several recordings: put the {type(sources).__name__} into a list"
            )
        options = self._check_options(language, options)
        self._worker.check_open()
        return in_order(
            sources,
            lambda source: self._submit(source, sampling_rate, priority, False, options),
            self._ahead,
        )

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

    def _submit(
        self, source: Any, sampling_rate: int | None, priority: int, stream: bool, options: dict[str, Any]
    ) -> Handle:
        tokenizer = self.processor.tokenizer
        handle = Handle(
            source,
            decode=lambda token_ids: tokenizer.decode(list(token_ids), skip_special_tokens=True),
            whole_words=tokenizer.clean_up_tokenization_spaces,
            cancel=self._worker.cancel,
        )
        # A copy, because callers fill the same buffer again; its errors belong to the handle like a file's.
        audio: Any = source
        if not isinstance(source, str | os.PathLike):
            try:
                audio = as_samples(source)
            except AudioError as error:
                audio = error
        prepare = lambda: self._prepare(audio, sampling_rate, options)  # noqa: E731
        self._worker.submit(Job(handle, prepare, priority=priority, stream=stream))
        release_team()  # of the copy, and of whatever the caller did with torch before
        return handle

    def _prepare(self, audio: Any, sampling_rate: int | None, options: dict[str, Any]) -> Prepared:
        """In a reading thread: the samples, and the options that depend on their length."""
        if isinstance(audio, AudioError):
            raise audio
        samples = load_audio(
            audio, self.sampling_rate, source_rate=sampling_rate, max_seconds=self.max_seconds
        )
        duration = len(samples) / self.sampling_rate
        if self.processor.feature_extractor.frame_count(len(samples)) < 1:
            name = os.fspath(audio) if isinstance(audio, str | os.PathLike) else f"array {audio.shape}"
            raise AudioError(
                f"{name}: {1000 * duration:.1f} ms, shorter than one frame of 25 ms; leave it out"
            )
        return Prepared(torch.from_numpy(samples), self._resolve(options, duration), duration)

    def _resolve(self, options: dict[str, Any], duration: float) -> GenerationOptions:
        """All generation options of a recording of `duration` seconds."""
        usual = 1 + TOKENS_TO_SPARE + math.ceil(TOKENS_PER_SECOND * duration)
        return self.model.resolve_options(default_max_length=min(usual, self.model.max_length), **options)

    def _check_options(self, language: str | None, options: dict[str, Any]) -> dict[str, Any]:
        """The call's options with its language among them; raises ValueError for what cannot be."""
        if language is not None:
            if options.get("forced_bos_token_id") is not None:
                raise ValueError("language and forced_bos_token_id say the same thing; give one of them")
            known = self.processor.tokenizer.lang_code_to_id
            if language not in known:
                there = ", ".join(sorted(known)) or "none: it has one language; leave it out"
                raise ValueError(f"language {language!r} is not one of this checkpoint's ({there})")
            options = {**options, "forced_bos_token_id": known[language]}
        if self._resolve(options, USUAL_SECONDS).num_return_sequences != 1:
            raise ValueError("num_return_sequences must be 1 here; model.generate returns several")
        return options

    def _usual_pages(self, num_rows: int) -> int:
        """Pages of the cache where nobody says."""

        def pages(seconds: float, hypotheses: int) -> int:
            frames = self.processor.feature_extractor.frame_count(int(seconds * self.sampling_rate))
            cross = math.ceil(self.model.encoder_length(frames) / PAGE_SIZE)
            return cross + hypotheses * math.ceil(self._resolve({}, seconds).max_length / PAGE_SIZE)

        longest = pages(self.max_seconds, 5)
        wanted = max(longest, num_rows * pages(min(USUAL_SECONDS, self.max_seconds), 1))
        if self.model.device.type == "cuda":
            layers, heads, head_dim = self.model.cache_shape
            page_bytes = 2 * layers * heads * head_dim * PAGE_SIZE * self.model.dtype.itemsize
            free, _ = torch.cuda.mem_get_info(self.model.device)
            wanted = min(wanted, max(free // 2 // page_bytes, 1))
        return wanted


def _load(model: Any, device: Any, dtype: Any, processor: Any) -> tuple[Any, Any]:
    """A model, ready to run, and its processor."""
    if model is None or isinstance(model, str | os.PathLike):
        name = DIGITS if model is None else model
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        loaded = AutoModelForSpeechSeq2Seq.from_pretrained(name, device=device, dtype=dtype or torch.float32)
        return loaded, processor or AutoProcessor.from_pretrained(name)
    if not hasattr(model, "generation_loop"):
        raise ValueError(
            f"model is a {type(model).__name__}; give a checkpoint's name or folder, or a loaded model"
        )
    if processor is None:
        raise ValueError(
            "a loaded model needs its processor: Engine(model, processor=AutoProcessor.from_pretrained(...))"
        )
    if device is not None or dtype is not None:
        raise ValueError("device and dtype are a loaded model's own; use model.to(...) before")
    return model.eval(), processor


def _longest(model: Any, feature_extractor: Any) -> float:
    """Seconds of the longest recording that the encoder has positions for."""

    def fits(samples: int) -> bool:
        try:
            model.encoder_length(max(feature_extractor.frame_count(samples), 1))
        except ValueError:
            return False
        return True

    rate = feature_extractor.sampling_rate
    most, too_many = 0, int(LONGEST_EVER * rate)
    while too_many - most > 1:
        middle = (most + too_many) // 2
        most, too_many = (middle, too_many) if fits(middle) else (most, middle)
    return most / rate
