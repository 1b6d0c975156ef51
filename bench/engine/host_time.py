"""Host time of a generation loop, and of an engine around it, on GPUs that take no time.

Counts and times are of a window in which as many requests run as the batch holds: they start once that many
have ended, and stop before the last are submitted. What stands in for a GPU's own work is subtracted.
"""

import cProfile
import itertools
import json
import pstats
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import tritone
from tritone.engine.config import EngineConfig
from tritone.engine.gpu.warm_up import warm_up
from tritone.engine.handle import in_order
from tritone.engine.tasks.inputs import ReadOptions
from tritone.engine.tasks.loading import make_task
from tritone.kernels.runtime.launch import compiled
from tritone.scheduler.encoder import Encoder
from tritone.scheduler.request import Request, RequestOutput

from .. import fake_gpu
from ..common import whisper_models
from ..common.shapes import durations
from ..common.workload import SIZES, Recording, Recordings, build_model, config_of, write_processor
from . import endings

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
# Sizes of Speech2Text and of Whisper, and wav2vec2-base with a CTC head.
MODELS = (*SIZES, *whisper_models.SIZES, "wav2vec2")
LANGUAGES = (5, 6, 7, 8)  # token ids forced as the first one, in a mix
WHISPER_LANGUAGES = (None, "en", "de", "fr")  # in a mix; None is detected
_WINDOW = 30.0  # seconds
_DISTINCT = 1024  # recordings; a gigabyte
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 0.9}


@dataclass(frozen=True, slots=True)
class Load:
    """A model, and the requests that it gets."""

    model: Any
    processor: Any
    recordings: Sequence[Recording]
    options: Callable[[int], dict[str, Any]]  # generation options of each request, by its number
    running: int  # requests
    config: EngineConfig

    @property
    def ahead(self) -> int:
        """Requests submitted before the next result, as `transcribe` does."""
        return 4 * self.running

    @property
    def window(self) -> tuple[int, int]:
        """Counts of ended requests at which the window starts and stops; the rest keeps the batch full."""
        return self.running, len(self.recordings) - self._ahead

    @property
    def _ahead(self) -> int:
        return min(5 * self.running, len(self.recordings) // 2)

    @property
    def audio(self) -> float:
        """Seconds of audio of a request, on average."""
        return sum(recording.seconds for recording in self.recordings) / len(self.recordings)


@dataclass(frozen=True, slots=True)
class Sample:
    """State of the counts and clocks at one moment."""

    ended: int
    steps: int
    wall: float
    loop: float  # CPU seconds of the loop's thread
    process: float
    counts: fake_gpu.Counts
    compiled: int
    decode_steps: int
    nodes: int
    encodes: int
    encode_launches: int
    encode_seconds: float

    @classmethod
    def now(cls, ended: int, steps: int, loop_clock: int) -> "Sample":
        """Take a sample; `loop_clock` is the clock of the loop's thread."""
        spent, books = endings.spent(), endings.Endings.current
        return cls(
            ended=ended,
            steps=steps,
            wall=time.perf_counter() - spent,
            loop=time.clock_gettime(loop_clock) - spent,
            process=time.process_time() - spent,
            counts=fake_gpu.counts(),
            compiled=compiled(),
            decode_steps=books.steps if books else 0,
            nodes=books.nodes if books else 0,
            encodes=_encoded[0],
            encode_launches=_encoded[1],
            encode_seconds=_encoded[2],
        )


_encoded = [0, 0, 0.0]  # calls of the encoder, and launches and seconds of its thread in them


def load(
    name: str, *, running: int, recordings: int, beams: int = 1, mix: bool = False, **config: Any
) -> Load:
    """Make a model with random weights on the fake GPU, and its requests.

    Args:
        name: one of `MODELS`.
        running: requests that are decoded at once.
        recordings: requests in all, of LibriSpeech's lengths.
        beams: of each request.
        mix: True for four target languages, of Whisper one of them detected; half of the requests sampled.
        config: fields of `EngineConfig`.
    """
    with tempfile.TemporaryDirectory() as folder:
        make = _wav2vec2 if name == "wav2vec2" else _whisper if name in whisper_models.SIZES else _speech2text
        model, processor = make(Path(folder), name)
    if name != "wav2vec2":
        config["num_rows"] = running * beams

    def options(number: int) -> dict[str, Any]:
        chosen: dict[str, Any] = {} if beams == 1 else {"num_beams": beams}
        if mix and name in whisper_models.SIZES:
            chosen["language"] = WHISPER_LANGUAGES[number // 2 % len(WHISPER_LANGUAGES)]
        elif mix:
            chosen["forced_bos_token_id"] = LANGUAGES[number // 2 % len(LANGUAGES)]
        if mix and number % 2:
            chosen |= SAMPLING | {"seed": number}
        return chosen

    lengths = durations(min(recordings, _DISTINCT))
    if name in whisper_models.SIZES:
        lengths = [min(seconds, _WINDOW) for seconds in lengths]
    distinct = Recordings().lasting(lengths)
    chosen = list(itertools.islice(itertools.cycle(distinct), recordings))
    return Load(model, processor, chosen, options, running, EngineConfig().override(**config))


def measure_loop(load: Load, profile: str | None = None) -> dict[str, Any]:
    """Host time of the generation loop alone: requests with waveforms to hypotheses."""
    task = make_task(load.model, load.processor, load.config)
    if load.model.device.type == "cuda":
        warm_up(task.loop, task.inputs.front_end, task.inputs.max_input_seconds, task.warm_up_options)
    values = {
        id(one): task.inputs.read(one.waveform, ReadOptions(), {}).values
        for one in load.recordings[:_DISTINCT]
    }
    options = [
        task.resolve(task.check(None, load.options(number)), recording.seconds)
        for number, recording in enumerate(load.recordings)
    ]
    requests = (
        Request(number, values[id(recording)], own)
        for number, (recording, own) in enumerate(zip(load.recordings, options, strict=True))
    )
    clock = time.pthread_getcpuclockid(threading.get_ident())
    start, stop = load.window
    samples: list[Sample] = []
    running: list[int] = []
    ended = steps = 0
    for request in itertools.islice(requests, 2 * load.running):
        task.loop.submit(request)
    with _counting_encodes(), _profiled(profile == "loop"):
        while task.loop.has_work:
            finished = sum(isinstance(event, RequestOutput) for event in task.loop.step())
            ended, steps = ended + finished, steps + 1
            running.append(task.loop.stats().running)
            if ended >= (stop if samples else start) and len(samples) < 2:
                samples.append(Sample.now(ended, steps, clock))
            for request in itertools.islice(requests, finished):
                task.loop.submit(request)
    first, last = samples
    used = last.counts - first.counts
    seconds, count, steps = last.loop - first.loop, last.ended - first.ended, last.steps - first.steps
    encodes = max(last.encodes - first.encodes, 1)
    found = {
        "rtfx_host": count * load.audio / seconds,
        "host_ms_per_step": 1e3 * seconds / steps,
        "host_us_per_request": 1e6 * seconds / count,
        "steps": steps,
        "requests": count,
        "running": sum(running[first.steps : last.steps]) / steps,
        "launches_per_encode": (last.encode_launches - first.encode_launches) / encodes,
        "encode_ms": 1e3 * (last.encode_seconds - first.encode_seconds) / encodes,
        "requests_per_encode": count / encodes,
        "copies_per_step": used.copies / steps,
        "blocking_copies": used.blocking,
        "waits": used.waits,
        "compiled": last.compiled - first.compiled,
    }
    if last.decode_steps > first.decode_steps:
        decode_steps = last.decode_steps - first.decode_steps
        found["nodes_per_step"] = (last.nodes - first.nodes) / decode_steps
        found["replayed"] = used.replays / decode_steps
    return found


def measure_engine(load: Load, profile: str | None = None) -> dict[str, Any]:
    """Host time of an engine: `submit` of arrays to texts, in this thread."""
    start, stop = load.window
    samples: list[Sample] = []
    before: dict[str, float] = {}
    _fill_pinned_memory(load)
    with (
        _counting_encodes(),
        _profiled_threads(profile),
        tritone.Engine(load.model, processor=load.processor, config=load.config) as engine,
    ):
        threads = {
            thread.name.removeprefix("tritone-").partition("-")[0]
            + thread.name[-2:] * ("read" in thread.name): (time.pthread_getcpuclockid(thread.ident))
            for thread in threading.enumerate()
            if thread.name.startswith("tritone-") and thread.ident
        } | {"user": time.pthread_getcpuclockid(threading.get_ident())}

        def submit(one: tuple[int, Recording]) -> Any:
            number, recording = one
            return engine.submit(recording.waveform, stream=False, **load.options(number))

        with _profiled(profile == "user"):
            results = in_order(enumerate(load.recordings), submit, load.ahead)
            for ended, result in enumerate(results, 1):
                if result.error is not None:
                    raise result.error
                if ended in (start, stop):
                    samples.append(Sample.now(ended, 0, threads["loop"]))
                    before = {
                        name: time.clock_gettime(clock) - before.get(name, 0.0)
                        for name, clock in threads.items()
                    }
    first, last = samples
    audio, count = (last.ended - first.ended) * load.audio, last.ended - first.ended
    before["loop"] = last.loop - first.loop
    return {
        "rtfx_engine": audio / (last.process - first.process),
        "rtfx_engine_wall": audio / (last.wall - first.wall),
        "rtfx_engine_loop": audio / (last.loop - first.loop),
        "us_per_request": {name: 1e6 * seconds / count for name, seconds in before.items()},
        "requests": count,
        "blocking_copies": (last.counts - first.counts).blocking,
        "compiled": last.compiled - first.compiled,
    }


def _fill_pinned_memory(load: Load) -> None:
    """Allocate the pinned memory of all requests under way: torch keeps it, so a long run allocates none."""
    if load.model.device.type == "cuda":
        for one in [torch.empty(len(one.waveform), pin_memory=True) for one in load.recordings[: load.ahead]]:
            one.zero_()


def _speech2text(folder: Path, size: str) -> tuple[Any, Any]:
    write_processor(folder, config_of(size).vocab_size)
    processor = tritone.Speech2TextProcessor.from_pretrained(folder)
    return build_model(size, torch.device("cuda"), torch.float16), processor


def _whisper(_: Path, name: str) -> tuple[Any, Any]:
    model = whisper_models.build_whisper(name, torch.device("cuda"), torch.float16)
    return model, whisper_models.whisper_processor(name)


def _wav2vec2(folder: Path, _: str) -> tuple[Any, Any]:
    (folder / "vocab.json").write_text(json.dumps({letter: index for index, letter in enumerate(LETTERS)}))
    tokenizer = tritone.Wav2Vec2CTCTokenizer(folder / "vocab.json")
    torch.manual_seed(0)
    model = tritone.Wav2Vec2ForCTC(tritone.Wav2Vec2Config(vocab_size=len(LETTERS)))
    processor = tritone.Wav2Vec2Processor(tritone.Wav2Vec2FeatureExtractor(), tokenizer)
    return model.to(device="cuda", dtype=torch.float16).eval(), processor


@contextmanager
def _counting_encodes() -> Iterator[None]:
    """Count the encoder's calls, and the kernels launched in them."""
    encode = Encoder.encode

    def counted(encoder: Any, *arguments: Any) -> Any:
        before, begin = fake_gpu.counts(), time.thread_time() - endings.spent()
        result = encode(encoder, *arguments)
        used = fake_gpu.counts() - before
        _encoded[0] += 1
        _encoded[1] += used.launches + used.operations
        _encoded[2] += time.thread_time() - endings.spent() - begin
        return result

    Encoder.encode = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        Encoder.encode = encode  # type: ignore[method-assign]


@contextmanager
def _profiled(wanted: bool) -> Iterator[None]:
    """Print the slowest functions of this thread's code."""
    if not wanted:
        yield
        return
    profiler = cProfile.Profile(time.thread_time)
    profiler.enable()
    try:
        yield
    finally:
        profiler.disable()
        _print(profiler)


@contextmanager
def _profiled_threads(name: str | None) -> Iterator[None]:
    """Profile the engine's threads whose name is `tritone-NAME`."""
    run, profilers = threading.Thread.run, []

    def profiled(thread: threading.Thread) -> None:
        if not thread.name.startswith(f"tritone-{name}"):
            return run(thread)
        profilers.append(cProfile.Profile(time.thread_time))
        return profilers[-1].runcall(run, thread)

    threading.Thread.run = profiled  # type: ignore[method-assign]
    try:
        yield
    finally:
        threading.Thread.run = run  # type: ignore[method-assign]
        for profiler in profilers:
            _print(profiler)


def _print(profiler: cProfile.Profile) -> None:
    statistics = pstats.Stats(profiler)
    for order in ("tottime", "cumtime"):
        statistics.sort_stats(order).print_stats(40)
