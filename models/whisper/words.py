"""Words of a sequence of tokens, as openai's Whisper splits them for word times."""

import math
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

PREPENDED = "\"'“¡¿([{-"  # joined to the word behind
APPENDED = "\"'.。,，!！?？:：”)]}、"  # joined to the word before
_REPLACEMENT = "\ufffd"  # decoded from bytes that are no whole character

Seconds = Sequence[float]
Decode = Callable[[Sequence[int]], str]


@dataclass(slots=True)
class Word:
    """Word of a sequence of tokens.

    Attributes:
        text: text with the space before it.
        tokens: its token ids.
        indices: positions of these in the sequence.
    """

    text: str
    tokens: list[int]
    indices: list[int]

    def __add__(self, other: "Word") -> "Word":
        return Word(self.text + other.text, self.tokens + other.tokens, self.indices + other.indices)


@dataclass(frozen=True, slots=True)
class TimedWord:
    """Word of a transcript with its times.

    Attributes:
        text: text without spaces around it.
        start, end: seconds.
        confidence: mean probability of its tokens; None where these were not given.
    """

    text: str
    start: float
    end: float
    confidence: float | None = None


class WordTokenizer(Protocol):
    """Interface by which `words_of` splits tokens, that of `WhisperTokenizer`."""

    @property
    def eos_token_id(self) -> Any:
        """Id from which on tokens are no text."""
        ...

    def split_tokens(self, tokens: Sequence[int], language: str | None = None) -> list[Word]:
        """Split token ids into words, with punctuation apart."""
        ...


def words_of(
    tokens: Sequence[int],
    times: Seconds,
    tokenizer: WordTokenizer,
    *,
    probabilities: Seconds | None = None,
    begin: float = 0.0,
    bounds: tuple[float, float] = (0.0, math.inf),
    language: str | None = None,
) -> list[TimedWord]:
    """Words of a segment or window, with punctuation, from the times at which its tokens end.

    Args:
        tokens: token ids, times and the end token included.
        times: of each token, as `word_times.token_times` gives them, in seconds.
        tokenizer: tokenizer of the checkpoint.
        probabilities: of each token, for confidences.
        begin: start of the segment. The first word begins no earlier if it ends later, though the path of
            times begins with the window.
        bounds: seconds that no word goes beyond.
        language: language of the text; None for the tokenizer's.
    """
    places = [place for place, token in enumerate(tokens) if token < tokenizer.eos_token_id]
    split = merge_punctuation(tokenizer.split_tokens([tokens[place] for place in places], language))
    words = list[TimedWord]()
    latest, limit = bounds
    for word in split:
        if not word.text.strip():
            continue
        own = [places[index] for index in word.indices]
        end = min(max(times[own[-1]], latest), limit)
        start = max(times[own[0] - 1] if own[0] else 0.0, latest)
        start = min(start if words else max(start, begin), end)
        confidence = None
        if probabilities is not None:
            confidence = sum(probabilities[place] for place in own) / len(own)
        words.append(TimedWord(word.text.strip(), start, end, confidence))
        latest = end
    return words


def split_at_characters(tokens: Sequence[int], decode: Decode) -> list[Word]:
    """Shortest groups of tokens that decode to whole characters; tokens of a broken last one are left out.

    Args:
        tokens: token ids.
        decode: function from token ids to text, special tokens and times included.
    """
    whole = decode(tokens)
    words: list[Word] = []
    start = offset = 0  # of the group: its first token, and where its text begins
    for end in range(1, len(tokens) + 1):
        text = decode(tokens[start:end])
        broken = text.find(_REPLACEMENT)
        # The text itself may have the character that stands for broken ones.
        if broken < 0 or whole[offset + broken : offset + broken + 1] in ("", _REPLACEMENT):
            words.append(Word(text, list(tokens[start:end]), list(range(start, end))))
            start, offset = end, offset + len(text)
    return words


def split_at_spaces(tokens: Sequence[int], decode: Decode, first_special: int) -> list[Word]:
    """Groups of tokens that begin with a space, punctuation marks, and special tokens.

    Args:
        tokens, decode: as in `split_at_characters`.
        first_special: id from which on tokens are special.
    """
    words: list[Word] = []
    for part in split_at_characters(tokens, decode):
        is_special = part.tokens[0] >= first_special
        is_punctuation = part.text.strip() in string.punctuation
        if is_special or is_punctuation or part.text.startswith(" ") or not words:
            words.append(part)
        else:
            words[-1] += part
    return words


def merge_punctuation(
    words: Sequence[Word], prepended: str = PREPENDED, appended: str = APPENDED
) -> list[Word]:
    """Join punctuation to the words beside it.

    Args:
        words: words as `WhisperTokenizer.split_tokens` returns them.
        prepended: marks that join the word behind them, where a space is before the mark.
        appended: marks that join the word before them.
    """
    behind: list[Word] = []  # from the last word to the first
    for word in reversed(words):
        if behind and word.text.startswith(" ") and word.text.strip() in prepended:
            behind[-1] = word + behind[-1]
        else:
            behind.append(word)
    merged: list[Word] = []
    for word in reversed(behind):
        if merged and not merged[-1].text.endswith(" ") and word.text in appended:
            merged[-1] += word
        else:
            merged.append(word)
    return [word for word in merged if word.text]
