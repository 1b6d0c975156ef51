"""How an engine drives a CTC model: encoder-only requests, and the best path of each as text with its times."""

import math
from itertools import groupby
from typing import Any

from ...models.core.generation_config import GenerationConfig
from ..config import Settings
from ..handle import RequestOutput
from ..outputs import Span, Transcription, TranscriptionReader
from .encoder_only import EncoderOnlyTask
from .inputs import Recordings

# Options of generation whose value says what CTC does anyway.
_NEUTRAL = {"num_beams": 1, "do_sample": False, "num_return_sequences": 1}


class CTC(EncoderOnlyTask):
    """A CTC model in an engine.

    Args:
        model: see `EncoderOnlyModel`; its answer holds `token_ids` and `log_probabilities`, one a frame.
        inputs: recordings.
        tokenizer: its own.
        settings: see `EncoderOnlyTask`.
    """

    verb = "transcribe"

    def __init__(self, model: Any, inputs: Recordings, tokenizer: Any, settings: Settings) -> None:
        super().__init__(model, inputs, settings)
        self._reader = CTCReader(tokenizer, model.samples_per_token, inputs.sampling_rate)

    def check(self, language: str | None, options: dict[str, Any]) -> dict[str, Any]:
        """No options; raises ValueError for any that says something else than what CTC does anyway."""
        if language is not None:
            raise ValueError(f"language {language!r}: a {self.name} writes down what is said; leave it out")
        for name, value in GenerationConfig(**options).options.items():
            if name not in _NEUTRAL or value != _NEUTRAL[name]:
                raise ValueError(
                    f"{name}={value!r} is for models that decode token by token; a {self.name} takes its "
                    "best path, frame by frame; leave it out"
                )
        return {}

    def reader(self, options: dict[str, Any]) -> "CTCReader":
        """What reads the answer to a request."""
        return self._reader


class CTCReader(TranscriptionReader):
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

    def result(self, outcome: RequestOutput, source: Any) -> Transcription:
        """The transcription of an outcome without an error; empty where it was cancelled."""
        if outcome.answer is None:
            return Transcription("", (), outcome.finish_reason, outcome.duration, source=source)
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
            source=source,
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
