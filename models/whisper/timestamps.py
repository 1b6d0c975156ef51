"""Times of token sequences: text with times, and segments between pairs of times.

A time token counts from the beginning of its window of 30 s. In a sequence of several windows, a time below
the one before it begins the next window: after a pair of times the window moved by the last of these, and
after a single time by all of its length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

WINDOW_POSITIONS = 1500  # time tokens of a window, after that of its beginning


@dataclass(frozen=True, slots=True)
class TimedTokens:
    """Tokens from one time to the next, these included.

    Attributes:
        tokens: token ids.
        start, end: times as positions of the encoder, 0.02 s each, in their window.
        offset: position of the recording at which the window begins.
    """

    tokens: list[int]
    start: int
    end: int
    offset: int


def with_times(tokens: Sequence[int], first: int, precision: float) -> Iterator[str | list[int]]:
    """Parts of a sequence: token ids between times, and times of the recording as text, such as "<|1.08|>".

    Args:
        tokens: token ids.
        first: id of the time 0.00; those from it on are times.
        precision: seconds between two times.
    """
    parts: list[str | list[int]] = []
    between: list[int] = []
    last = before_last = moved = 0.0  # seconds
    for index, token in enumerate(tokens):
        if token < first:
            between.append(token)
            continue
        time = float((token - first) * precision)
        parts.append(between)
        if time < last:
            if _is_single(tokens, index, first):
                moved += precision * WINDOW_POSITIONS
            else:  # the last time is said again as the first one of its window
                last = before_last
                moved += before_last
                del parts[-2:]
        before_last, last = last, time
        parts.append(f"<|{time + moved:.2f}|>")
        between = []
    yield from (*parts, between)


def timed_segments(tokens: Sequence[int], first: int) -> Iterator[TimedTokens]:
    """Segments of a sequence between pairs of times; none without two times.

    Args:
        tokens, first: as in `with_times`.
    """
    times = [index for index, token in enumerate(tokens) if token >= first]
    ends = [after for before, after in pairwise(times) if after == before + 1]
    if not ends and len(times) <= 1:
        return
    if times[-1] + 1 not in ends:
        ends.append(times[-1] + 1)
    begin, last, moved = times[0], 0, 0
    for end in ends:
        if end - begin > 1:
            start, stop = tokens[begin] - first, tokens[end - 1] - first
            if start < last:
                moved += WINDOW_POSITIONS if _is_single(tokens, begin, first) else last
            last = stop
            yield TimedTokens(list(tokens[begin:end]), start, stop, moved)
        begin = end


def _is_single(tokens: Sequence[int], index: int, first: int) -> bool:
    """True where the two tokens before `index` are there and are no pair of times."""
    return index >= 2 and not (tokens[index - 1] >= first and tokens[index - 2] >= first)
