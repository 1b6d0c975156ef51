"""The engine: recordings in from any thread, text out, one continuously batched loop behind."""

import atexit
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from ..kernels.launch import compiled
from ..models.auto import AutoModelForCTC, AutoModelForSpeechSeq2Seq, AutoProcessor
from ..models.families import FAMILIES, family_of_fields
from ..models.files import Checkpoint, open_checkpoint, read_json
from .audio import AudioError, as_samples, load_audio
from .ctc import CTC
from .generation import Generation
from .limits import longest_seconds
from .openmp import release_team
from .transcription import Handle, Transcription, in_order
from .warm_up import warm_up
from .worker import Job, Prepared, Worker

DIGITS = Path(__file__).parent.parent / "models" / "digits"  # the model that comes along
READERS = 2  # threads that decode and resample; one keeps up with several thousand seconds of audio a second


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Where an engine stands.

    Args:
        running: requests that are being decoded.
        waiting: requests submitted and not there yet: to be read, or to be admitted.
        finished, failed, cancelled: requests that have ended, by how.
        pages_used, pages_total: of the cache of keys and values.
        tokens_generated: of all requests and hypotheses; none by a CTC model.
        audio_seconds: of the finished requests.
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
    """Transcribes recordings with one model, any number at once, each as it would be alone.

    A context manager; without `with`, call `close`. Its methods may be called from any thread.

    Args:
        model: a checkpoint's name or folder, of a model that generates text or of a CTC model; a loaded
            model; or None for the digits model that comes along, which reads English digits and nothing else.
        device: where to run; by default the GPU if there is one. A loaded model stays where it is.
        dtype: "float32" (default), "float16" or "bfloat16". A loaded model keeps its own.
        processor: of a loaded model; otherwise the checkpoint's is used.
        num_rows: hypotheses (a request's beams, or one) decoded at once; by default 32, on a GPU 512. A CTC
            model decodes none, and keeps no cache: it takes neither this nor num_pages.
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
        self.model, self.processor = _load(model, device, dtype, processor)
        self.sampling_rate: int = self.processor.feature_extractor.sampling_rate  # Hz
        self.max_seconds = longest_seconds(self.model, self.processor.feature_extractor)
        self._kind = (
            CTC(self.model, self.processor, num_rows, num_pages, memory_fraction)
            if hasattr(self.model, "respond")
            else Generation(
                self.model,
                self.processor,
                self.max_seconds,
                num_rows,
                num_pages,
                memory_fraction,
                graphs=graphs,
                overlap=overlap,
            )
        )
        if self.model.device.type == "cuda":
            warm_up(self._kind.loop, self.processor.feature_extractor, self.max_seconds, self._kind.ways)
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
                model's positions. A CTC model has none.

        Raises:
            ValueError: an option or language that there is not. What is wrong with the recording itself is
                raised by `Handle.result`.
            RuntimeError: the engine is closed, or has stopped on an error.
        """
        options = self._kind.check(language, options)
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
        options = self._kind.check(language, options)
        self._worker.check_open()
        return in_order(
            sources,
            lambda source: self._submit(source, sampling_rate, priority, False, options),
            2 * self._kind.places,
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

    def _submit(
        self, source: Any, sampling_rate: int | None, priority: int, stream: bool, options: dict[str, Any]
    ) -> Handle:
        handle = Handle(source, self._kind.reader, self._worker.cancel)
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
        name = os.fspath(audio) if isinstance(audio, str | os.PathLike) else f"array {audio.shape}"
        frames = self.processor.feature_extractor.frame_count(len(samples))
        if frames < 1:
            raise AudioError(
                f"{name}: {1000 * duration:.1f} ms, shorter than one frame of 25 ms; leave it out"
            )
        try:
            self.model.encoder_length(frames)
        except ValueError as error:
            raise AudioError(f"{name}: {error}") from None
        return Prepared(torch.from_numpy(samples), self._kind.resolve(options, duration), duration)


def _load(model: Any, device: Any, dtype: Any, processor: Any) -> tuple[Any, Any]:
    """A model, ready to run, and its processor."""
    if model is None or isinstance(model, str | os.PathLike):
        name = DIGITS if model is None else model
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        checkpoint, _ = open_checkpoint(name)
        loaded = _class_of(checkpoint).from_pretrained(
            checkpoint, device=device, dtype=dtype or torch.float32
        )
        return loaded, processor or AutoProcessor.from_pretrained(checkpoint)
    if not hasattr(model, "generation_loop") and not hasattr(model, "respond"):
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


def _class_of(checkpoint: Checkpoint) -> Any:
    """The auto class for a checkpoint: by what its configuration says it was saved as, else by its family.

    Raises:
        ValueError: a family that is not here, or an encoder that writes nothing down.
    """
    config = read_json(checkpoint.require("config.json"))
    saved_as = [str(name) for name in config.get("architectures") or []]
    if any(name.endswith("ForCTC") for name in saved_as):
        return AutoModelForCTC
    families = [family for family in FAMILIES if family.ctc or family.speech_seq2seq]
    if family_of_fields(config, checkpoint.name, checkpoint.own_name, families).speech_seq2seq:
        return AutoModelForSpeechSeq2Seq
    if saved_as:
        raise ValueError(
            f"{checkpoint} is a {saved_as[0]}, which has no head to write anything down with; give a "
            "checkpoint that was trained with one, such as a ForCTC"
        )
    return AutoModelForCTC
