"""Configuration of an engine: every tunable, its unit and the reason for its default."""

import os
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from ..scheduler.config import RunnerConfig
from ..scheduler.model_protocol import Task

Channels = Literal["mix", "split"]  # one result for a recording, or one for each of its channels
Encoding = Literal["mulaw", "alaw"]  # headerless G.711
Short = Literal["fail", "empty"]  # result of a recording that is too short for the model
SpeechTask = Literal["transcribe", "translate"]  # of Whisper, which translates into English
Windows = Literal["sequential", "pauses"]  # of a recording that is longer than Whisper's window

DEFAULT_MAX_WINDOW = 30.0  # seconds, where neither the configuration nor the checkpoint gives one
DEFAULT_TOP_K = 5  # labels of a classification
DEFAULT_MEMORY_FRACTION = 0.9  # of the free memory, where neither it nor num_pages is given


def _cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of an `Engine`: cache, batching, reading, and limits.

    Results do not depend on them, except for the default maximum length of a transcript and the longest
    window of a recording.

    Raises:
        ValueError: a count below 1, a negative time, a fraction out of range, or both memory_fraction and
            num_pages.
    """

    # Cache and decoding, for models that generate.
    num_rows: int | None = None  # hypotheses decoded at once; None: `rows_on_cpu` or `rows_on_gpu`
    num_pages: int | None = None  # cache pages of 16 positions; None: sized for the rows, or the GPU
    memory_fraction: float | None = None  # share of free GPU memory, in place of num_pages; None: 0.9
    graphs: bool = True  # on a GPU, record decode steps as CUDA graphs
    overlap: bool = True  # on a GPU, encode on a stream of its own beside decoding
    rows_on_cpu: int = 32
    rows_on_gpu: int = 1024  # fewer where their tables and scores take more than `gpu_share` of the memory
    beams_of_longest: int = 5  # a default cache holds the longest recording with this many beams
    usual_seconds: float = 20.0  # a default cache holds a greedy request of this duration in each row
    reserved_gpu_bytes: int = 1 << 29  # for CUDA graphs, and for the CUDA runtime's own allocations

    # Default length of a transcript, where neither the call nor the checkpoint sets one.
    tokens_per_second: float = 8.0  # tokens per second of audio; speech has about 3.4
    extra_tokens: int = 16  # added for short recordings

    # Maximum encoder positions in one step. None: on a CPU the numbers below, on a GPU what fills it.
    encode_budget: int | None = None  # for models that generate
    predict_budget: int | None = None  # for encoder-only models
    encode_budget_on_cpu: int = 4096  # new requests must not delay decoding
    predict_budget_on_cpu: int = 8192  # 160 s of audio, so that the cores have equal shares
    # On a GPU, for each multiprocessor: two row blocks of a GEMM, so that the narrowest products, which have
    # two column blocks, fill all of them four times, and the last, partly filled round costs little: 33,792
    # on an H200.
    positions_per_multiprocessor: int = 256
    gpu_share: float = 0.25  # of the free memory, for encoding so many positions, and for that many rows

    # Maximum requests that are read and not finished, which bounds the memory of their inputs.
    in_flight_per_row: int = 2  # as many again are read while the first are decoded
    in_flight_on_cpu: int = 64  # recordings of an encoder-only model: a few steps of short ones
    in_flight_on_gpu: int = 1024
    in_flight_texts: int = 1024  # some hundred tokens each
    in_flight_seconds: float = 3600.0  # seconds of audio for an encoder-only model: 230 MB
    submit_ahead: int = 2  # `transcribe` and `classify` submit this multiple of the requests in flight

    # Requests that wait to be read: submitting more raises QueueFullError, but one always may wait. None: any
    # number. Arrays and bytes that wait take memory: 500 minutes of arrays at 16 kHz 1.9 GB.
    max_waiting: int | None = None
    max_waiting_seconds: float | None = None  # of their audio, as far as headers tell

    # Reading.
    max_file_object_bytes: int = 1 << 30  # of one file object, which is read whole when it is submitted
    # Threads that decode and resample: one a core, as a thread reads 400 (Opus) to 20,000 (WAV) seconds of
    # audio a second, and a GPU takes more.
    num_readers: int = field(default_factory=lambda: min(max(_cores(), 2), 16))
    # An idle loop waits for inputs that are still being read, since a step with only the first of many would
    # leave all cores but one idle. Maximum seconds until the next input, and in total.
    arrival_wait: float = 0.002
    total_arrival_wait: float = 0.02

    # Seconds that closing waits for a read or step that does not end, once requests are cancelled.
    close_timeout: float = 5.0

    # Longest recording of models that transcribe, in windows; and of classifiers, where no position-embedding
    # table bounds it.
    max_seconds: float = 24 * 3600.0
    # Longest window of a recording in seconds, at most what the model takes. None: `max_window` of the
    # checkpoint's config.json, else 30, about as long as the recordings that most models were trained on.
    max_window: float | None = None
    # Overlap of a CTC model's windows on either side, as a share of a window: frames there are another's.
    window_context: float = 1 / 6
    encode_memory_share: float = 0.25  # share of memory; the rest is for weights, cache, other processes

    # Steps on the device: chunks, load balance of the cores, graphs.
    runner: RunnerConfig = field(default_factory=RunnerConfig)

    def __post_init__(self) -> None:
        fraction = self.memory_fraction
        if fraction is not None and not 0 < fraction <= 1:
            raise ValueError(f"memory_fraction is {fraction}; it must be above 0 and at most 1")
        if not 0 < self.gpu_share <= 1:
            raise ValueError(f"gpu_share is {self.gpu_share}; it must be above 0 and at most 1")
        if not 0 < self.window_context <= 0.25:
            raise ValueError(f"window_context is {self.window_context}; it must be above 0 and at most 0.25")
        if fraction is not None and self.num_pages is not None:
            raise ValueError(
                "memory_fraction and num_pages both say how large the cache is; give one of them"
            )
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise ValueError(f"{one.name} is {value}; it must be 1 or more")
            if isinstance(value, float) and not value >= 0:
                raise ValueError(f"{one.name} is {value}; it must be 0 or more")

    def override(self, **given: Any) -> "EngineConfig":
        """Copy of this configuration with the given fields replaced; None leaves a field unchanged."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def validate_for(self, model: Any) -> None:
        """Validate the cache sizes against a loaded model.

        Raises:
            ValueError: a cache size for a model without a cache, or memory_fraction on the CPU.
        """
        if model.task is not Task.GENERATION:
            for size in ("num_rows", "num_pages", "memory_fraction"):
                if getattr(self, size) is not None:
                    raise ValueError(
                        f"{size} is the size of a cache, and a {type(model).__name__} has none; leave it out"
                    )
        if self.memory_fraction is not None and model.device.type != "cuda":
            raise ValueError("memory_fraction is of a GPU's memory; on the CPU give num_pages instead")
