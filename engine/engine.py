"""Inference engine with continuous batching, for recordings or texts from any thread."""

import logging
import os
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, Self, get_args

import numpy as np
import torch

from ..kernels.runtime.launch import compiled
from .audio.arrays import split_rate
from .bounds import check_deadline
from .config import DEFAULT_TOP_K, Channels, Encoding, EngineConfig, Short
from .faults import attempt
from .gpu.warm_up import compile_kernels, record_steps, warm_up
from .handle import Handle, in_order
from .jobs import Job, Prepared
from .journal import origin_of
from .openmp import release_team
from .outputs import Classification, Transcription
from .session import Session
from .stats import EngineHealth, EngineStats
from .submission import Submission, journal_in
from .tasks.base import Verb
from .tasks.inputs import Inputs, ReadOptions, Recordings, check_choice
from .tasks.loading import load, make_task
from .tracing import span_maker
from .unchanged import UnchangedModel
from .worker import Worker

_log = logging.getLogger(__name__)


class Engine:
    """Inference engine for one speech or text model: many requests at once, each result as if it were alone.

    Requests are batched continuously: each enters and leaves the batch at its own step. Methods may be called
    from any thread. Use the engine as a context manager, or call `close`:

        with tritone.Engine("facebook/s2t-small-librispeech-asr") as engine:
            for result in engine.transcribe(["a.flac", "b.wav"], num_beams=5):
                print(result.text)

    Args:
        model: checkpoint name or folder; a loaded model; "english", which the extra of that name installs; or
            "digits", the default, which knows English digits only. These two names go before folders, which
            "./english" and "./digits" are. Supported are models that generate text, CTC models, and
            classifiers of recordings or texts; a checkpoint's type is read from its config.json.
        device: "cpu" or "cuda"; by default a GPU if there is one. A loaded model stays on its device.
        dtype: "float32", "float16" or "bfloat16". By default float32 on a CPU, whatever the checkpoint
            stores; on a GPU the half precision that its config.json names, else float16. A loaded model keeps
            its own.
        processor: processor of the model; required with a loaded model, by default the checkpoint's. A
            classifier of recordings needs only its feature extractor, a classifier of texts its tokenizer.
        num_rows: maximum number of hypotheses decoded at once, where a request has one for each beam; by
            default 32, on a GPU 1,024 or what memory allows. This and the next two are only for models that
            generate text.
        num_pages: number of key-value cache pages, each of 16 positions. By default enough for a 20 s
            recording in every row and for the longest recording with 5 beams; on a GPU as many as fit, up to
            the number that all rows can fill.
        memory_fraction: fraction of the GPU memory free after loading the model that the cache, encoding (its
            measured peak) and decoding may use together, in place of num_pages; by default 0.9.
        graphs: on a GPU, True (default) records decode steps as CUDA graphs the second time that they occur;
            False launches their kernels one by one.
        overlap: on a GPU, True (default) encodes on a separate CUDA stream while decoding; False alternates.
        config: all settings, of which the five above are a part; arguments given above take precedence.

    Attributes:
        model: the loaded model.
        processor: the model's processor, feature extractor or tokenizer.
        sampling_rate: rate in Hz assumed for arrays without one; None where the model takes texts.
        max_seconds: duration in seconds of the longest accepted recording; None where the model takes texts.
        max_ahead: number of requests that `transcribe` and `classify` submit ahead of the next result.

    Raises:
        FileNotFoundError: the checkpoint does not exist, or the model "english" is not installed.
        ValueError: the checkpoint or an argument cannot be used.
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
        graphs: bool | None = None,
        overlap: bool | None = None,
        config: EngineConfig | None = None,
    ) -> None:
        self.config = (config or EngineConfig()).override(
            num_rows=num_rows,
            num_pages=num_pages,
            memory_fraction=memory_fraction,
            graphs=graphs,
            overlap=overlap,
        )
        start = time.perf_counter()
        self.model, self.processor = attempt(load, model, device, dtype, processor)
        self._name = (
            str(model or "digits") if isinstance(model, str | os.PathLike | None) else type(model).__name__
        )
        on_gpu = self.model.device.type == "cuda"
        if on_gpu:
            compile_kernels(self.model)
        self._task = task = make_task(self.model, self.processor, self.config)
        self._inputs = task.inputs
        self.max_ahead = self.config.submit_ahead * task.max_in_flight  # requests
        self.sampling_rate = task.inputs.sampling_rate
        self.max_seconds = task.inputs.max_seconds
        if on_gpu and isinstance(task.inputs, Recordings):
            warm_up(task.loop, task.inputs.front_end, task.inputs.max_input_seconds, task.warm_up_options)
            record_steps(task.loop, task.usual_demands)
        self._compiled_before = compiled()
        self._worker = Worker(
            task.loop,
            max_in_flight=task.max_in_flight,
            max_in_flight_seconds=task.max_in_flight_seconds,
            config=self.config,
            check=UnchangedModel(self.model).check,
        )
        del task.loop  # the worker's alone, which drops it when closed
        # A weak reference, since the error of a failed worker has frames that may hold this engine.
        release = weakref.WeakMethod(self._worker.release)
        finalizer = weakref.finalize(self, lambda: (call := release()) and call())
        finalizer.atexit = False  # then, the worker's own function
        release_team()  # of loading the model
        _log.info(
            "%s in %s on %s, ready in %.1f s",
            type(self.model).__name__,
            str(self.model.dtype).removeprefix("torch."),
            self.model.device,
            time.perf_counter() - start,
        )

    def submit(
        self,
        source: Any,
        *,
        sampling_rate: int | None = None,
        channel: int | None = None,
        encoding: Encoding | None = None,
        short: Short = "fail",
        vad_filter: bool = False,
        language: str | None = None,
        priority: int = 0,
        stream: bool = True,
        journal: str | os.PathLike[str] | None = None,
        deadline: float | None = None,
        **options: Any,
    ) -> Handle[Transcription]:
        """Submit one request and return its handle without waiting for the result.

        Args:
            source: path; bytes of an audio file, which are never a path; binary file object, which is read
                here from its position to its end; array or tensor [samples] or [samples, channels], which is
                copied; or that with its rate in Hz, as (array, rate) or {"array": ..., "sampling_rate": ...}.
                For a classifier of texts, a string or a pair of strings; `submit_classification` is the same
                for classifiers, with the type of their results.
            sampling_rate: rate in Hz of an array, by default the model's, or of headerless audio, by default
                8000. Other files state their own.
            channel: index of the channel to take, from 0; None mixes all.
            encoding: "mulaw" or "alaw" for headerless G.711; by default a file's header or name tells.
            short: answer to a recording of no samples or too few for the model: "fail", or "empty" for a
                result without text or labels, with a warning.
            vad_filter: True decodes only what Silero's voice activity detector takes for speech, with 0.4 s
                around it; pauses of over 2 s are left out. Times are those of the recording. Needs the extra
                `vad`; a recording without speech has an empty result, with a warning.
            language: one of the checkpoint's languages: the target of a translation, or for Whisper the
                language spoken, a code or an English name; by default Whisper detects it.
            priority: integer; requests with a larger one go first, equal ones in order of submission.
            stream: True to get text from the handle's iterator as it is decoded, False to get it at the end.
            journal: path of a file to which the outputs of a recording's windows are appended as they end.
                Where the same recording is submitted again, with the same model and options, these are not
                computed again. Remove the file once you have the result. A recording of one window has none.
            deadline: seconds from now by which the result must be there; then the request ends with a
                DeadlineError, wherever it is. None waits without limit.
            **options: generation options, as of `model.generate`. Where neither they nor the checkpoint set
                max_length or max_new_tokens, a result has at most 16 tokens and 8 more per second of audio,
                within the model's positions; a window of Whisper as many as the model has positions for.
                Whisper takes its own options too, with `prompt` and `hotwords`, texts that go before,
                `windows`, "sequential" (default) or "pauses", the way that a recording of over 30 s is cut,
                and `word_timestamps`, True for words with times. `token_log_probs`, True for the
                log-probability of each token, is for greedy search and sampling. `max_window` is the longest
                window of a recording in seconds, by default the configuration's, else the checkpoint's, else
                30; of Whisper for "pauses". A CTC model takes no others; a classifier takes `top_k` and
                `truncate`, see `classify`.

        Raises:
            ValueError: an unknown option or language, a value out of range, an option of recordings for
                texts, or `vad_filter` without its extra. Errors of the recording or text itself are raised by
                `Handle.result`.
            QueueFullError: as many requests wait as `max_waiting` or `max_waiting_seconds` of the
                configuration allow.
            RuntimeError: the engine is closed, or has stopped on an error.
        """
        self._worker.check_open()
        deadline = check_deadline(deadline)
        self._worker.check_room()
        options = self._task.check(language, options)
        reading = ReadOptions(sampling_rate, channel, encoding, short, vad_filter)
        self._check_request(reading, priority)
        snapshot, reading = self._snapshot(source, reading, options)
        path = None if journal is None else Path(journal)
        return self._submit(
            Submission(source, snapshot, reading, options, priority, deadline, path, stream=stream)
        )

    def submit_classification(
        self, source: Any, *, top_k: int | None = DEFAULT_TOP_K, truncate: bool = False, **options: Any
    ) -> Handle[Classification]:
        """Submit one recording or text to a classifier, as `submit` does, and return its handle.

        Args:
            source, top_k, truncate: as in `classify`, but of one source.
            **options: `sampling_rate` and so on, as in `submit`.

        Raises:
            ValueError, QueueFullError, RuntimeError: as in `submit`; ValueError also where the model is not a
                classifier.
        """
        self._check_verb("classify")
        handle: Any = self.submit(source, top_k=top_k, truncate=truncate, **options)
        return handle  # type: ignore[no-any-return]

    def transcribe(
        self,
        sources: Iterable[object],
        *,
        sampling_rate: int | None = None,
        channels: Channels = "mix",
        encoding: Encoding | None = None,
        short: Short = "fail",
        vad_filter: bool = False,
        language: str | None = None,
        priority: int = 0,
        journals: str | os.PathLike[str] | None = None,
        deadline: float | None = None,
        **options: Any,
    ) -> Iterator[Transcription]:
        """Transcribe recordings and yield the results in input order, each as soon as it is ready.

        A recording that fails yields a Transcription with its `error` set, and the others go on. `sources`
        may be infinite: it is read in the caller's thread, a bounded number ahead of the next result. A
        caller that stops early cancels the requests in progress.

        Args:
            sources: recordings as in `submit`.
            channels: "mix" for one result for each recording, or "split" for one for each of its channels, in
                their order and with `channel` set. A recording that cannot be opened has one, without.
            journals: folder with a journal for each recording that is a path, see `submit`; others have none.
                `tritone.engine.journal_files.remove_journals` removes those of a recording.
            sampling_rate, encoding, short, vad_filter, language, priority, deadline, **options: as in
                `submit`. A full queue is waited for.

        Raises:
            ValueError, RuntimeError: as in `submit`.
        """
        reading = ReadOptions(sampling_rate, encoding=encoding, short=short, vad_filter=vad_filter)
        folder = None if journals is None else Path(journals)
        return self._process(
            "transcribe", sources, channels, reading, priority, deadline, language, options, folder
        )

    def classify(
        self,
        sources: Iterable[object],
        *,
        top_k: int | None = DEFAULT_TOP_K,
        sampling_rate: int | None = None,
        channels: Channels = "mix",
        encoding: Encoding | None = None,
        short: Short = "fail",
        priority: int = 0,
        deadline: float | None = None,
        truncate: bool = False,
    ) -> Iterator[Classification]:
        """Classify recordings or texts and yield the results in input order, as `transcribe` does.

        Args:
            sources: recordings as in `submit`; for a classifier of texts, strings or pairs of strings.
            top_k: number of labels in a result, best first; None for all.
            channels: as in `transcribe`.
            sampling_rate, encoding, short, priority, deadline: as in `submit`.
            truncate: True truncates a text that is too long for the model; otherwise it fails.

        Raises:
            ValueError, RuntimeError: as in `submit`; ValueError also where the model is not a classifier.
        """
        options = {"top_k": top_k, "truncate": truncate}
        reading = ReadOptions(sampling_rate, encoding=encoding, short=short)
        return self._process("classify", sources, channels, reading, priority, deadline, None, options)

    def stats(self) -> EngineStats:
        """Statistics since the start, and the current load; those of the loop are as of its last step.

        Raises:
            RuntimeError: the engine belongs to the process that this one was forked from.
        """
        return replace(self._worker.stats(), compiled=compiled() - self._compiled_before)

    def health(self) -> EngineHealth:
        """Health of the engine: "ok", "degraded" or "failed", and the reason. Never waits, never raises."""
        return self._worker.health()

    def close(self, *, cancel: bool = False, timeout: float | None = None) -> None:
        """Stop accepting requests, finish or cancel those submitted, and end the threads.

        May be called more than once, from any thread. Leaving a `with` block finishes all submitted requests;
        leaving it by an exception cancels them, and so does an interrupt while they are finished. An engine
        that is dropped finishes them too, and is gone after the last.

        Args:
            cancel: True cancels unfinished requests, False waits for their results. A read or step that does
                not end is left alone after the configuration's `close_timeout`.
            timeout: seconds after which requests that are to be finished are cancelled; None for no limit.

        Raises:
            ValueError: a negative timeout.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout is {timeout!r}; it must be 0 or more seconds, or None for no limit")
        self._worker.close(cancel, timeout=timeout)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Engine has threads and cannot be copied or pickled; make one in each process")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        self.close(cancel=exception_type is not None)

    def _process(
        self,
        verb: Verb,
        sources: Iterable[object],
        channels: Channels,
        reading: ReadOptions,
        priority: int,
        deadline: float | None,
        language: str | None,
        options: dict[str, Any],
        journals: Path | None = None,
    ) -> Iterator[Any]:
        """Validate a call of `transcribe` or `classify` and iterate over the results in input order."""
        single = str, bytes, bytearray, memoryview, os.PathLike, np.ndarray, torch.Tensor, Mapping
        if isinstance(sources, single) or hasattr(sources, "read"):
            raise ValueError(f"{verb} takes several sources: put the {type(sources).__name__} into a list")
        self._check_verb(verb)
        deadline = check_deadline(deadline)
        options = self._task.check(language, options)
        check_choice("channels", channels, get_args(Channels))
        if channels == "split" and self.sampling_rate is None:
            raise ValueError(f"channels 'split' is of recordings, and a {self._task.name} takes texts")
        self._check_request(reading, priority)
        self._worker.check_open()

        split = channels == "split"

        def submissions() -> Iterator[Submission]:
            for source in sources:
                whole = self._snapshot(source, reading, None if split else options)
                for snapshot, how in self._inputs.split(*whole) if split else [whole]:
                    path = journal_in(journals, source, how)
                    yield Submission(source, snapshot, how, options, priority, deadline, path, bounded=False)

        return in_order(submissions(), self._submit, self.max_ahead, self._worker.wait_for_room)

    def _check_verb(self, verb: Verb) -> None:
        """Validate that the model has results of this kind."""
        if verb != self._task.verb:
            raise ValueError(f"a {self._task.name} cannot {verb}; call {self._task.verb}")

    @cached_property
    def _origin(self) -> dict[str, str]:
        """Origin of this engine's outputs in journals."""
        return origin_of(self.model)

    def _check_request(self, reading: ReadOptions, priority: int) -> None:
        """Validate the priority, and that a model of texts has no options of recordings."""
        if isinstance(self._inputs, Recordings):
            self._inputs.check(reading)
        else:
            reading.check_unused(self._task.name)
        if not isinstance(priority, int | np.integer):
            raise ValueError(f"priority must be a whole number, a larger one goes first; got {priority!r}")

    def _snapshot(
        self, source: Any, reading: ReadOptions, options: dict[str, Any] | None
    ) -> tuple[Any, ReadOptions]:
        """Snapshot of a source for a reading thread, and how to read it.

        The error where the source's own code fails, for its result. With options, the inputs themselves of a
        source that needs no reading: for so many requests only as `transcribe` submits ahead, since theirs is
        pinned memory, which is never given back.
        """
        try:
            if isinstance(self._inputs, Recordings):
                source, rate = split_rate(source)
                reading = reading.with_rate(rate)
            if options is not None and self._worker.unfinished < self.max_ahead:
                inputs = attempt(self._inputs.prepare, source, reading, options)
                if inputs is not None:
                    return inputs, reading
            return attempt(self._inputs.snapshot, source), reading
        except Exception as error:
            return error, reading

    def _submit(self, one: Submission) -> Handle[Any]:
        task = self._task  # and not the engine, which may be dropped before it is read
        make_span = span_maker(task.verb, self._name)
        processor = task.output_processor(one.options)
        handle = Handle[Any](one.source, processor, self._worker.cancel, one.reading.channel, make_span)
        origin = {} if one.journal is None else self._origin

        def prepare() -> Prepared | Session:
            return one.start(task, origin, lambda: not handle.done())

        job = Job(handle, prepare, one.priority, one.stream)
        if one.deadline is not None:
            job.time_limit = one.deadline
        if self.config.max_waiting_seconds is not None and not isinstance(one.snapshot, Exception):
            job.waiting_seconds = self._inputs.estimate_seconds(one.snapshot, one.reading)
        if isinstance(one.snapshot, Inputs):
            with suppress(Exception):  # which its result has from a reading thread
                prepared = attempt(prepare)
                job.prepared = None if isinstance(prepared, Session) else prepared
        self._worker.submit(job, bounded=one.bounded)
        release_team()  # of the copy, and of the caller's own torch operations before
        return handle
