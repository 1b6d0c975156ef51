"""How an engine drives a CTC model: one-shot requests, and the best path of each as text with its times."""

import math
from itertools import groupby
from typing import Any

from ..models.generation_config import GenerationConfig
from ..scheduler.loop import GenerationLoop
from ..scheduler.runner import ModelRunner
from .transcription import Outcome, Span, Transcription

# Encoder positions a step, 160 s of audio: a GPU needs many to be busy, and the cores of a processor to have
# about the same to do, of recordings of all lengths.
BUDGET = 8192
# Recordings, and seconds of audio, that are read ahead: a few steps of short ones, and 230 MB of long ones.
PLACES_ON_GPU, PLACES_ON_CPU = 1024, 64
SECONDS = 3600.0

# Options of generation whose value says what CTC does anyway.
_NEUTRAL = {"num_beams": 1, "do_sample": False, "num_return_sequences": 1}


class CTC:
    """A CTC model in an engine.

    Args:
        model: see `OneShotModel`; its answer holds `token_ids` and `log_probabilities`, one a frame.
        processor: its feature extractor and tokenizer.
        num_rows, num_pages, memory_fraction: have to be None: nothing of a request outlives its step.

    Raises:
        ValueError: a size for a cache that is not there.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        num_rows: int | None,
        num_pages: int | None,
        memory_fraction: float | None = None,
    ) -> None:
        sizes = {"num_rows": num_rows, "num_pages": num_pages, "memory_fraction": memory_fraction}
        for name, number in sizes.items():
            if number is not None:
                raise ValueError(
                    f"{name} is the size of a cache, and a {type(model).__name__} has none; leave it out"
                )
        self._name = type(model).__name__
        on_gpu = model.device.type == "cuda"
        runner = ModelRunner(model, processor.feature_extractor)
        self.loop = GenerationLoop(runner, BUDGET)
        self.ways = [None]
        self.places = PLACES_ON_GPU if on_gpu else PLACES_ON_CPU
        self.seconds = SECONDS
        rate = processor.feature_extractor.sampling_rate
        self.reader = CTCReader(processor.tokenizer, model.samples_per_token, rate)

    def check(self, language: str | None, options: dict[str, Any]) -> dict[str, Any]:
        """No options; raises ValueError for any that says something else than what CTC does anyway."""
        if language is not None:
            raise ValueError(f"language {language!r}: a {self._name} writes down what is said; leave it out")
        for name, value in GenerationConfig(**options).options.items():
            if name not in _NEUTRAL or value != _NEUTRAL[name]:
                raise ValueError(
                    f"{name}={value!r} is for models that decode token by token; a {self._name} takes its "
                    "best path, frame by frame; leave it out"
                )
        return {}

    def resolve(self, options: dict[str, Any], duration: float) -> None:
        """None: the request is one-shot."""


class CTCReader:
    """Reads the best path: repetitions are one token, blanks none.

    Args:
        tokenizer: a `Wav2Vec2CTCTokenizer`; its padding token is the blank.
        hop: samples from one frame to the next.
        rate: samples a second.
    """

    whole_words = False

    def __init__(self, tokenizer: Any, hop: int, rate: int) -> None:
        self._tokenizer = tokenizer
        self._hop = hop
        self._rate = rate

    def text(self, token_ids: tuple[int, ...]) -> str:
        """The text of tokens without repetitions and blanks."""
        return str(self._tokenizer.decode(list(token_ids), group_tokens=False))

    def transcription(self, outcome: Outcome) -> Transcription:
        """The transcription of an outcome without an error; empty where it was cancelled."""
        if outcome.answer is None:
            return Transcription("", (), outcome.finish_reason, outcome.duration)
        path = outcome.answer["token_ids"].tolist()
        log_probabilities = outcome.answer["log_probabilities"].tolist()
        # Special tokens are not skipped, or a letter would merge with its like beyond a blank.
        read = self._tokenizer.decode(path, output_char_offsets=True, output_word_offsets=True)
        return Transcription(
            text=read.text,
            token_ids=tuple(token for token, _ in groupby(path) if token != self._tokenizer.pad_token_id),
            finish_reason=outcome.finish_reason,
            duration=outcome.duration,
            score=math.fsum(log_probabilities) / len(log_probabilities),
            words=self._spans(read.word_offsets, "word"),
            characters=self._spans(read.char_offsets, "char"),
        )

    def _spans(self, offsets: list[dict[str, Any]], kind: str) -> tuple[Span, ...]:
        """Offsets in frames as spans in seconds, spelled as in the text."""
        lower = self._tokenizer.do_lower_case
        return tuple(
            Span(
                one[kind].lower() if lower else one[kind],
                one["start_offset"] * self._hop / self._rate,
                one["end_offset"] * self._hop / self._rate,
            )
            for one in offsets
        )
