"""Words of a sequence of tokens, as openai's Whisper splits them for word times."""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PREPENDED = "\"'“¡¿([{-"  # joined to the word behind
APPENDED = "\"'.。,，!！?？:：”)]}、"  # joined to the word before
_REPLACEMENT = "\ufffd"  # decoded from bytes that are no whole character

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
