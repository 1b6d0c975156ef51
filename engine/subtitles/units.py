"""Units of text between which a line may break: words, or characters in scripts without spaces."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Spaces at which lines break; the no-break spaces, which French has before some punctuation, are not.
_SPACES = re.compile(r"[^\S\u00a0\u202f]+")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATES = re.compile("[\ud800-\udfff]")
# Thai, Lao and Tibetan; Burmese; Khmer; Chinese and Japanese with their punctuation; full-width forms.
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
# No line begins with these: small kana, marks of repetition and length, and Thai and Lao vowels that follow.
_NOT_FIRST = frozenset(
    "ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶー々ゝゞヽヾ～\u0e30\u0e32\u0e33\u0eb0\u0eb2\u0eb3"
)
_NOT_LAST = frozenset("\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4")  # vowels that go before
_JOINER = "\u200d"


class Unit(NamedTuple):
    """Part of a text that stays on one line.

    Args:
        text: its characters, without spaces at either end.
        start, end: seconds from the recording's beginning.
        spaced: True where a space goes before it on the same line.
        speaker: name of its speaker; None where it is not known.
    """

    text: str
    start: float
    end: float
    spaced: bool
    speaker: str | None = None


def clean(text: str) -> str:
    """Text without control characters, and without surrogates, which no encoding takes."""
    return _SURROGATES.sub("\ufffd", _UNPRINTABLE.sub(" ", text))


def columns(text: str) -> int:
    """Width of a text on the screen: two columns for a wide character of East Asia, one for others."""
    if text.isascii():
        return len(text)
    return len(text) + sum(unicodedata.east_asian_width(character) in "WF" for character in text)


def units_of(text: str, start: float, end: float, width: int, *, spaced: bool = True) -> list[Unit]:
    """Units of a text, at most `width` columns each; they share its time by their columns."""
    pieces = list(_pieces(text, width))
    total = sum(columns(piece) for piece, _ in pieces)
    units: list[Unit] = []
    done = 0
    for piece, is_spaced in pieces:
        begin = start + (end - start) * (done / total)
        done += columns(piece)
        finish = start + (end - start) * (done / total)
        units.append(Unit(piece, begin, finish, is_spaced if units else spaced))
    return units


def spacing(text: str, words: Sequence[str]) -> list[bool]:
    """For each word of a text, in order, True where the text has a space before it."""
    spaced: list[bool] = []
    position = 0
    for number, word in enumerate(words):
        found = text.find(word, position)
        between = text[position:found]
        if found >= 0 and not between.strip():
            spaced.append(bool(between) or not number)
            position = found + len(word)
        else:  # the words are not the text's own
            spaced.append(not (word and _WITHOUT_SPACES.match(word)))
    return spaced


def _pieces(text: str, width: int) -> Iterator[tuple[str, bool]]:
    """Pieces of a text, each with whether a space goes before it."""
    for word in _SPACES.split(clean(text)):
        spaced = True
        for part in _breakable(word.strip()):
            for piece in _cut(part, width):
                yield piece, spaced
                spaced = False


def _breakable(word: str) -> Iterator[str]:
    """Parts of a word between which a line may break: all of it in a script with spaces."""
    start = 0
    for index in range(1, len(word)):
        if _may_break(word[index - 1], word[index]):
            yield word[start:index]
            start = index
    if word:
        yield word[start:]


def _may_break(before: str, after: str) -> bool:
    if not (_WITHOUT_SPACES.match(before) or _WITHOUT_SPACES.match(after)):
        return False
    if after in _NOT_FIRST or before in _NOT_LAST or _JOINER in (before, after):
        return False
    # Marks and closing punctuation stay with the character before them, opening punctuation with the next.
    after_kind, before_kind = unicodedata.category(after), unicodedata.category(before)
    return not (after_kind[0] == "M" or after_kind in ("Pe", "Pf", "Po") or before_kind in ("Ps", "Pi"))


def _cut(piece: str, width: int) -> Iterator[str]:
    """Parts of at most `width` columns."""
    start = used = 0
    for index, character in enumerate(piece):
        size = columns(character)
        if used + size > width:
            yield piece[start:index]
            start, used = index, 0
        used += size
    yield piece[start:]
