"""CTC task of an engine: encoder-only requests whose best path becomes text with times."""

import math
from itertools import groupby
from typing import Any

from ...models.core.generation_config import GenerationConfig
from ...scheduler.request import FinishReason, RequestOutput
from ..config import EngineConfig
from ..outputs import OutputProcessor, Span, Transcription, not_finite
from .base import EncoderOnlyTask, Verb
from .inputs import Recordings

# Generation options that are accepted with these values, which describe CTC's best path too.
_NEUTRAL = {"num_beams": 1, "do_sample": False, "num_return_sequences": 1}


class CTCTask(EncoderOnlyTask):
    """Task of an engine with a CTC model.

    Args:
        model: an `EncoderOnlyModel` whose predictions hold `token_ids` and `log_probabilities` per frame.
        inputs: reader of recordings.
        tokenizer: tokenizer of the same checkpoint.
        config: configuration, as of `EncoderOnlyTask`.
    """

    verb: Verb = "transcribe"

    def __init__(self, model: Any, inputs: Recordings, tokenizer: Any, config: EngineConfig) -> None:
        super().__init__(model, inputs, config)
        self._processor = CTCProcessor(tokenizer, model.samples_per_token, inputs.sampling_rate)

    def check(self, language: str | None, options: dict[str, Any]) -> dict[str, Any]:
        """Validate that no options are given. Raises ValueError for any but the neutral ones."""
        if language is not None:
            raise ValueError(f"language {language!r}: a {self.name} writes down what is said; leave it out")
        for name, value in GenerationConfig(**options).options.items():
            if name not in _NEUTRAL or value != _NEUTRAL[name]:
                raise ValueError(
                    f"{name}={value!r} is for models that decode token by token; a {self.name} takes its "
                    "best path, frame by frame; leave it out"
                )
        return {}

    def output_processor(self, options: dict[str, Any]) -> "CTCProcessor":
        """Output processor of the best path, the same for all requests."""
        return self._processor


class CTCProcessor(OutputProcessor[Transcription]):
    """Output processor of CTC: decodes the best path to text, merging repetitions and dropping blanks.

    Args:
        tokenizer: a `Wav2Vec2CTCTokenizer`; its padding token is the blank.
        hop: number of samples from one frame to the next.
        sampling_rate: rate of the samples in Hz.
    """

    def __init__(self, tokenizer: Any, hop: int, sampling_rate: int) -> None:
        self._tokenizer = tokenizer
        self._hop = hop
        self._sampling_rate = sampling_rate

    def error_of(self, output: RequestOutput) -> Exception | None:
        """Error of a path with a log-probability that is not finite."""
        if output.predictions is None or output.predictions["log_probabilities"].isfinite().all():
            return None
        return not_finite("scores")

    def process(
        self, output: RequestOutput, token_ids: tuple[int, ...], duration: float, source: Any
    ) -> Transcription:
        """Build the Transcription of a request, without text where it failed or has no frame."""
        if output.predictions is None:
            spans = () if output.finish_reason is FinishReason.STOP else None  # too short for a frame
            return Transcription(
                "",
                (),
                output.finish_reason,
                duration,
                error=output.error,
                words=spans,
                characters=spans,
                source=source,
            )
        path = output.predictions["token_ids"].tolist()
        log_probabilities = output.predictions["log_probabilities"].tolist()
        # Special tokens are kept, or a letter would merge with an equal one on the other side of a blank.
        decoded = self._tokenizer.decode(path, output_char_offsets=True, output_word_offsets=True)
        return Transcription(
            text=decoded.text,
            token_ids=tuple(token for token, _ in groupby(path) if token != self._tokenizer.pad_token_id),
            finish_reason=output.finish_reason,
            duration=duration,
            score=math.fsum(log_probabilities) / len(log_probabilities),
            words=self._spans(decoded.word_offsets, "word"),
            characters=self._spans(decoded.char_offsets, "char"),
            source=source,
        )

    def to_text(self, result: Transcription) -> str:
        """Text of the transcription."""
        return result.text

    def _spans(self, offsets: list[dict[str, Any]], unit: str) -> tuple[Span, ...]:
        """Convert the tokenizer's offsets in frames to spans in seconds, lowercase where the text is."""
        lower = self._tokenizer.do_lower_case
        return tuple(
            Span(
                offset[unit].lower() if lower else offset[unit],
                offset["start_offset"] * self._hop / self._sampling_rate,
                offset["end_offset"] * self._hop / self._sampling_rate,
            )
            for offset in offsets
        )
