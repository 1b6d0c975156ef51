"""Words of Whisper's windows with their times, for sessions that were asked for them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ...models.whisper.options import WhisperOptions
from ...models.whisper.windows import FRAME_SECONDS, Decoded, Window
from ...models.whisper.windows import Segment as DecodedSegment
from ...models.whisper.word_times import TokenTimes, token_times
from ...models.whisper.words import words_of
from ..outputs import Span

_SENTENCE_ENDS = (".", "。", "!", "！", "?", "？")  # wide ones too
_USUAL_SECONDS = 0.7  # most that the median of words counts


class WordTimes:
    """Computation of words with times, of one recording.

    Args:
        model, tokenizer: those of the checkpoint.
        options: options of the recording.
        language: function from the token of a language, or None, to the language's code.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        options: WhisperOptions,
        language: Callable[[Sequence[int]], str | None],
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._options, self._language = options, language

    def call(
        self, encoded: Tensor, window: Window, language: int | None, decoded: Decoded
    ) -> Callable[[], TokenTimes]:
        """Function that computes the times of a window's tokens, for the loop's thread.

        It computes the window alone, so that times do not depend on what else is decoded.

        Args:
            encoded: encoder output of the window.
            window, decoded: the window, and the result of that request.
            language: token of the language, where the model chose it.
        """
        prompt = self._options.prompt(window, language)
        text_tokens = self._options.windows.end_token

        def compute() -> TokenTimes:
            model, heads = self._model, self._model.alignment_heads
            options: dict[str, Any] = {"frames": window.frames, "text_tokens": text_tokens}
            return token_times(model, encoded, prompt, decoded.tokens, heads, from_prompt=True, **options)

        return compute

    def words(
        self,
        segments: Sequence[DecodedSegment],
        times: TokenTimes,
        begin: float,
        end: float,
        prompt: Sequence[int],
    ) -> tuple[Span, ...]:
        """Words of a window's segments.

        Args:
            segments: segments of the window.
            times: times of its tokens.
            begin: second at which its piece of the recording begins.
            end: second at which that ends, or the next window begins.
            prompt: tokens that tell the language.
        """
        found = list[Span]()
        for segment in segments:
            part = slice(segment.tokens_from, segment.tokens_from + len(segment.tokens))
            offset = begin + segment.window.start * FRAME_SECONDS
            for word in words_of(
                segment.tokens,
                [offset + seconds for seconds in times.seconds[part]],
                self._tokenizer,
                probabilities=times.probabilities[part],
                begin=begin + segment.start,
                bounds=(found[-1].end if found else offset, end),
                language=self._language(prompt),
            ):
                found.append(Span(word.text, word.start, word.end, word.confidence))
        return without_pauses(found)


def without_pauses(words: Sequence[Span]) -> tuple[Span, ...]:
    """Shorten words at the ends of sentences that reach into a pause, as openai's transcribe does.

    A word is too long at twice the median of a window's words, of which 0.7 s count at most.
    """
    durations = sorted(word.end - word.start for word in words if word.end > word.start)
    if not durations:
        return tuple(words)
    longest = 2 * min(durations[len(durations) // 2], _USUAL_SECONDS)
    shortened, behind_end = list[Span](), True
    for word in words:
        ends = word.text.endswith(_SENTENCE_ENDS)
        if word.end - word.start > longest:
            if ends:
                word = replace(word, end=word.start + longest)
            elif behind_end:
                word = replace(word, start=word.end - longest)
        shortened.append(word)
        behind_end = ends
    return tuple(shortened)
