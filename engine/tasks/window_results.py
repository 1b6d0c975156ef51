"""Results of windows, and how they join to that of a recording."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from ..outputs import Segment, Span

# First words of the Unicode names of letters that are written without spaces between words.
_UNSPACED = {"BOPOMOFO", "CJK", "HIRAGANA", "KATAKANA", "KHMER", "LAO", "MYANMAR", "THAI", "TIBETAN"}


@dataclass(frozen=True, slots=True)
class WindowResult:
    """Result of a window: part of the result of a recording.

    Attributes:
        text: its text, without special tokens and times.
        segments: its segments; none where it has no speech.
        score: mean log-probability of its tokens, or beam search's score.
        tokens: number of these.
        language: code of the language; None where it is not known.
        words: its words with times; None where they are not wanted.
    """

    text: str
    segments: tuple[Segment, ...] = ()
    score: float = 0.0
    tokens: int = 0
    language: str | None = None
    words: tuple[Span, ...] | None = None


def join_texts(texts: Iterable[str]) -> str:
    """Texts of windows with a space between two of them, unless both letters there are written without."""
    joined = ""
    for text in texts:
        if joined and text and not (_is_unspaced(joined[-1]) and _is_unspaced(text[0])):
            joined += " "
        joined += text
    return joined


def mean_score(windows: Iterable[WindowResult]) -> float | None:
    """Mean of the windows' scores, weighted by their tokens; None without any."""
    weighted = [(window.score * window.tokens, window.tokens) for window in windows]
    count = sum(tokens for _, tokens in weighted)
    return sum(score for score, _ in weighted) / count if count else None


def _is_unspaced(letter: str) -> bool:
    first, _, _ = unicodedata.name(letter, "").partition(" ")
    return first in _UNSPACED or letter in "、。，！？"
