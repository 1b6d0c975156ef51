"""CTC task of an engine: encoder-only requests whose best path becomes text with times."""

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ...models.core.generation_config import GenerationConfig
from ...scheduler.request import FinishReason, RequestOutput
from ..audio.errors import TooLongError
from ..audio.segments import overlapping
from ..config import EngineConfig
from ..jobs import Prepared
from ..outputs import OutputProcessor, Segment, Span, Transcription, not_finite
from ..session import Session
from .base import EncoderOnlyTask, Verb
from .ctc_windows import CTCWindowSession, Frames, Section, WindowGrid
from .inputs import ReadOptions
from .windowed_recordings import WindowedRecordings, while_wanted

_PAUSE = 0.5  # seconds between two words that are the end of a segment
_MAX_SEGMENT = 30.0  # seconds

# Generation options that are accepted with these values, which describe CTC's best path too.
_NEUTRAL = {"num_beams": 1, "do_sample": False, "num_return_sequences": 1}


class CTCTask(EncoderOnlyTask):
    """Task of an engine with a CTC model.

    Args:
        model: an `EncoderOnlyModel` whose predictions hold `token_ids` and `log_probabilities` per frame.
        inputs: reader of recordings of any length.
        tokenizer: tokenizer of the same checkpoint.
        config: configuration, as of `EncoderOnlyTask`, and with the overlap of windows.
    """

    verb: Verb = "transcribe"
    inputs: WindowedRecordings

    def __init__(self, model: Any, inputs: WindowedRecordings, tokenizer: Any, config: EngineConfig) -> None:
        super().__init__(model, inputs, config)
        self._model, self._context = model, config.window_context
        self._processor = CTCProcessor(tokenizer, model.samples_per_token, inputs.sampling_rate)
        token = tokenizer.word_delimiter_token
        self._delimiter = tokenizer.word_delimiter_token_id if token in tokenizer.get_vocab() else None

    def check(self, language: str | None, options: dict[str, Any]) -> dict[str, Any]:
        """Validate the longest window, and that no other options are given but neutral ones.

        Raises:
            ValueError: a window out of range, or an option of other models.
        """
        options = dict(options)
        max_window = self.inputs.check_window(options.pop("max_window", None))
        if language is not None:
            raise ValueError(f"language {language!r}: a {self.name} writes down what is said; leave it out")
        if options.pop("token_log_probs", False):
            raise ValueError(
                f"token_log_probs=True is for models that decode token by token; a {self.name} has a "
                "`confidence` for each of its words and characters; leave it out"
            )
        for name, value in GenerationConfig(**options).options.items():
            if name not in _NEUTRAL or value != _NEUTRAL[name]:
                raise ValueError(
                    f"{name}={value!r} is for models that decode token by token; a {self.name} takes its "
                    "best path, frame by frame; leave it out"
                )
        return {"max_window": max_window}

    def start(
        self, snapshot: Any, reading: ReadOptions, options: dict[str, Any], is_wanted: Callable[[], bool]
    ) -> Prepared | Session:
        """Inputs of a recording of one window; a session of a longer one.

        Raises:
            AudioError: the recording cannot be used.
        """
        try:
            return super().start(snapshot, reading, options, is_wanted)
        except TooLongError:
            inputs, model = self.inputs, self._model
        blocks = inputs.blocks(snapshot, reading)
        size = round(options["max_window"] * inputs.sampling_rate)
        grid = WindowGrid.of(
            size, self._context, model.window_step, model.samples_per_token, model.receptive_field
        )
        return CTCWindowSession(
            blocks,
            overlapping(while_wanted(blocks, is_wanted), grid.size, grid.step),
            grid,
            inputs.sampling_rate,
            round(inputs.min_input_seconds * inputs.sampling_rate),
            self._processor.section,
            self._delimiter,
        )

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
        section = self.section(Frames.of(output), 0)
        return self._transcription([section], output.finish_reason, duration, source)

    def section(self, frames: Frames, first: int) -> Section:
        """Decode frames, of which the first is the recording's frame `first`."""
        # Special tokens are kept, or a letter would merge with an equal one on the other side of a blank.
        decoded = self._tokenizer.decode(
            frames.token_ids.tolist(), output_char_offsets=True, output_word_offsets=True
        )
        return Section(
            frames,
            decoded.text,
            self._spans(decoded.word_offsets, "word", frames, first),
            self._spans(decoded.char_offsets, "char", frames, first),
        )

    def text_of(self, parts: Sequence[Any]) -> str:
        """Text of the first sections of a recording, with the space between words between them."""
        between: str = self._tokenizer.replace_word_delimiter_char
        return between.join(part.text for part in parts if part.text)

    def join(
        self, output: RequestOutput, parts: Sequence[Any], duration: float, source: Any
    ) -> Transcription:
        """Build the Transcription of a recording in windows; a cancelled one has the words so far."""
        return self._transcription(parts, output.finish_reason, duration, source)

    def to_text(self, result: Transcription) -> str:
        """Text of the transcription."""
        return result.text

    def _transcription(
        self, sections: Sequence[Section], finish_reason: FinishReason, duration: float, source: Any
    ) -> Transcription:
        frames = Frames.joined(section.frames for section in sections)
        words = tuple(word for section in sections for word in section.words)
        return Transcription(
            text=self.text_of(sections),
            token_ids=self._tokens(frames),
            finish_reason=finish_reason,
            duration=duration,
            score=_score(frames),
            words=words,
            characters=tuple(one for section in sections for one in section.characters),
            segments=self._segments(words, frames),
            source=source,
        )

    def _tokens(self, frames: Frames) -> tuple[int, ...]:
        """Token ids of a path without repetitions and blanks."""
        path = frames.token_ids.tolist()
        return tuple(token for token, _ in groupby(path) if token != self._tokenizer.pad_token_id)

    def _segments(self, words: Sequence[Span], frames: Frames) -> tuple[Segment, ...]:
        """Segments of words without long pauses between them."""
        groups = list[list[Span]]()
        for word in words:
            last = groups[-1] if groups else None
            if last and word.start - last[-1].end < _PAUSE and word.end - last[0].start <= _MAX_SEGMENT:
                last.append(word)
            else:
                groups.append([word])
        segments = list[Segment]()
        for group in groups:
            start, end = group[0].start, group[-1].end
            own = frames[self._frame(start) : self._frame(end)]
            text = self._tokenizer.replace_word_delimiter_char.join(word.text for word in group)
            segments.append(Segment(text, start, end, self._tokens(own), _score(own)))
        return tuple(segments)

    def _frame(self, seconds: float) -> int:
        return round(seconds * self._sampling_rate / self._hop)

    def _spans(
        self, offsets: list[dict[str, Any]], unit: str, frames: Frames, first: int
    ) -> tuple[Span, ...]:
        """Convert the tokenizer's offsets in frames to spans in seconds, lowercase where the text is."""
        lower = self._tokenizer.do_lower_case
        probabilities = np.exp(frames.log_probabilities.astype(np.float64))
        said = frames.token_ids != self._tokenizer.pad_token_id
        spans = list[Span]()
        for offset in offsets:
            start, end = offset["start_offset"], offset["end_offset"]
            confidence = float(probabilities[start:end][said[start:end]].mean())
            text = offset[unit].lower() if lower else offset[unit]
            begin, behind = ((first + frame) * self._hop / self._sampling_rate for frame in (start, end))
            spans.append(Span(text, begin, behind, confidence))
        return tuple(spans)


def _score(frames: Frames) -> float:
    """Mean log-probability of frames."""
    return math.fsum(frames.log_probabilities.tolist()) / len(frames)
