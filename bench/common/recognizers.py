"""Recognizers to time: Tritone from waveforms and from features, and transformers in padded batches."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

import tritone
from tritone.engine.handle import in_order
from tritone.scheduler.block_allocator import PAGE_SIZE
from tritone.scheduler.request import Request, RequestOutput

from .machine import synchronize
from .workload import RATE, Recording, Text, audio_seconds, tokens_of

SOURCES = ("waveforms", "features")
Item = TypeVar("Item", Recording, Text)


@dataclass(frozen=True, slots=True)
class Run:
    """A timed run."""

    audio: float  # seconds
    tokens: int
    recordings: int
    seconds: float

    @property
    def rtfx(self) -> float:
        return self.audio / self.seconds

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


class Tritone:
    """An engine or a generation loop on one model.

    Args:
        processor: used from waveforms only.
        source: "waveforms", arrays to texts through an engine; or "features", in host memory, to token ids
            through a generation loop.
        requests: decoded at once.
        longest: the longest recording; the cache has room for as many of it, or for as many as fit.
        without: "graphs" or "overlap", switched off on a GPU.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        source: str,
        *,
        beams: int,
        requests: int,
        longest: Recording,
        without: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.front_end = processor.feature_extractor if source == "waveforms" else None
        self.beams, self.requests = beams, requests
        pages = requests * pages_of(model, longest, beams)
        if model.device.type == "cuda":
            pages = min(pages, fitting_pages(model))
        sizes = {"num_rows": requests * beams, "num_pages": pages, **dict.fromkeys(without, False)}
        self._engine = tritone.Engine(model, processor=processor, **sizes) if source == "waveforms" else None
        self._loop = None if self._engine else model.generation_loop(**sizes)
        self._next_id = 0

    def __enter__(self) -> "Tritone":
        return self

    def __exit__(self, *_: object) -> None:
        if self._engine is not None:
            self._engine.close(cancel=True)

    def run(self, recordings: Sequence[Recording], in_flight: int | None = None) -> Run:
        """Transcribe all recordings with at most `in_flight` under way; by default four times as many as are
        decoded at once, as in `Engine.transcribe`.

        Raises:
            RuntimeError: a result of another length than requested.
        """
        ahead = in_flight or 4 * self.requests
        begin = time.perf_counter()
        lengths = list(
            self._engine_lengths(recordings, ahead) if self._engine else self._loop_lengths(recordings, ahead)
        )
        seconds = time.perf_counter() - begin
        check_lengths(lengths, [recording.tokens for recording in recordings])
        return Run(audio_seconds(recordings), tokens_of(recordings), len(recordings), seconds)

    def _engine_lengths(self, recordings: Sequence[Recording], ahead: int) -> Iterator[int]:
        for result in in_order(recordings, lambda recording: self.submit(recording, stream=False), ahead):
            if result.error is not None:
                raise result.error
            yield len(result.token_ids) - 1

    def submit(self, recording: Recording, *, stream: bool) -> tritone.engine.handle.Handle:
        """Submit one waveform to the engine."""
        return self._engine.submit(recording.waveform, stream=stream, **self._options(recording))

    def _loop_lengths(self, recordings: Sequence[Recording], ahead: int) -> list[int]:
        first, lengths, under_way = self._next_id, [0] * len(recordings), 0
        self._next_id += len(recordings)
        coming = iter(enumerate(recordings, first))
        while True:
            while under_way < ahead and (new := next(coming, None)):
                number, recording = new
                options = self.model.resolve_options(**self._options(recording))
                self._loop.submit(Request(number, recording.features, options))
                under_way += 1
            if not under_way:
                return lengths
            for event in self._loop.step():
                if isinstance(event, RequestOutput):
                    if event.error is not None:
                        raise event.error
                    lengths[event.request_id - first] = len(event.hypotheses[0].token_ids) - 1
                    under_way -= 1

    def _options(self, recording: Recording) -> dict[str, int]:
        # No end token before the minimum: random weights then give as much text as speech has.
        return {
            "num_beams": self.beams,
            "max_new_tokens": recording.tokens,
            "min_new_tokens": recording.tokens,
        }


class Transformers:
    """transformers' Speech2Text with the same weights, in static padded batches of recordings sorted by
    length, each decoded until its longest member is done. Attention is eager: this model has no SDPA.

    Args:
        model: source of weights, device and type.
        folder: a processor's files.

    Raises:
        ImportError: transformers is not installed.
    """

    def __init__(self, model: Any, folder: Path) -> None:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        config = transformers.Speech2TextConfig(**model.config.to_dict())
        with torch.device(model.device):
            self.model = transformers.Speech2TextForConditionalGeneration(config)
        self.model.load_state_dict(model.state_dict(), strict=False)
        self.model = self.model.to(device=model.device, dtype=model.dtype).eval()
        self._folder = folder

    @cached_property
    def processor(self) -> Any:
        """The processor; ImportError if one of its libraries is missing."""
        import transformers

        return transformers.Speech2TextProcessor.from_pretrained(self._folder)

    @torch.inference_mode()
    def run(
        self, recordings: Sequence[Recording], source: str, *, beams: int, size: int, seconds: float
    ) -> tuple[Run, int, int]:
        """Transcribe batches of `size` until `seconds` are over, one at least, spread over all lengths so
        that a few of them stand for all. Returns the run, the number of batches in it and of all batches.

        Features are padded and copied to the device outside the clock.
        """
        batches = sorted_batches(recordings, size)
        done: list[Recording] = []
        spent, count = 0.0, 0
        for index in spread(len(batches)):
            if count and spent >= seconds:
                break
            batch = batches[index]
            inputs = None if source == "waveforms" else self._padded(batch)
            synchronize(self.model.device)
            begin = time.perf_counter()
            self._transcribe(batch, inputs, beams)
            synchronize(self.model.device)
            spent += time.perf_counter() - begin
            done += batch
            count += 1
        return Run(audio_seconds(done), tokens_of(done), len(done), spent), count, len(batches)

    def _transcribe(self, batch: list[Recording], inputs: tuple[Tensor, Tensor] | None, beams: int) -> None:
        texts_wanted = inputs is None
        if inputs is None:
            found = self.processor(
                [recording.waveform for recording in batch],
                sampling_rate=RATE,
                padding=True,
                return_tensors="pt",
            )
            device, dtype = self.model.device, self.model.dtype
            inputs = found["input_features"].to(device, dtype), found["attention_mask"].to(device)
        tokens = max(recording.tokens for recording in batch)
        features, mask = inputs
        ids = self.model.generate(
            features, attention_mask=mask, num_beams=beams, max_new_tokens=tokens, min_new_tokens=tokens
        )
        if ids.shape[1] != tokens + 1:
            raise RuntimeError(f"transformers gave {ids.shape[1] - 1} tokens, wanted {tokens}")
        if texts_wanted:
            self.processor.batch_decode(ids, skip_special_tokens=True)

    def _padded(self, batch: list[Recording]) -> tuple[Tensor, Tensor]:
        features = [recording.features for recording in batch]
        lengths = torch.tensor([len(one) for one in features])
        padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
        mask = (torch.arange(padded.shape[1])[None] < lengths[:, None]).long()
        return padded.to(self.model.device, self.model.dtype), mask.to(self.model.device)


def pages_of(model: Any, recording: Recording, beams: int) -> int:
    """Pages of the cache that a request needs."""
    cross = math.ceil(model.encoder_length(len(recording.features)) / PAGE_SIZE)
    return cross + beams * math.ceil((recording.tokens + 1) / PAGE_SIZE)


def fitting_pages(model: Any) -> int:
    """Pages in half of a GPU's free memory; the rest is for the largest encoder batch and for the peer in the
    same process."""
    layers, heads, head_dim = model.cache_shape
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(free // 2 // (2 * layers * heads * head_dim * PAGE_SIZE * model.dtype.itemsize), 1)


def check_lengths(found: list[int], wanted: list[int]) -> None:
    """Raise RuntimeError on a result of another length than requested."""
    wrong = [pair for pair in zip(found, wanted, strict=True) if pair[0] != pair[1]]
    if wrong:
        raise RuntimeError(
            f"{len(wrong)} results of another length; the first has {wrong[0][0]} tokens, not {wrong[0][1]}"
        )


def sorted_batches(items: Sequence[Item], size: int) -> list[list[Item]]:
    """Batches of `size` neighbors in length; the last may be smaller."""
    ordered = sorted(items, key=length_of)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def length_of(item: Recording | Text) -> float:
    """Seconds of a recording, tokens of a text."""
    return item.seconds if isinstance(item, Recording) else item.tokens


def spread(count: int) -> list[int]:
    """The indices below `count`, each prefix spread evenly: the middle, the quarters, ..."""

    order: dict[int, None] = {}
    number = 1
    while len(order) < count:
        fraction, rest, step = 0.0, number, 0.5  # the binary digits of `number`, mirrored behind the point
        while rest:
            fraction += step * (rest % 2)
            rest, step = rest // 2, step / 2
        order[int(fraction * count)] = None
        number += 1
    return list(order)
