"""Cues of subtitles: a transcription's words or segments in a few short lines, each with its time on screen.

Durations and reading speed are those of Netflix's Timed Text Style Guide, as are 42 characters and two lines.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from .units import Unit, clean, columns, spacing, units_of

if TYPE_CHECKING:
    from ..outputs import Span, Transcription

MAX_LINE_WIDTH = 42  # columns
MAX_LINE_COUNT = 2
MIN_LINE_WIDTH = 2  # a wide character
_MIN_SECONDS, _MAX_SECONDS = 5 / 6, 7.0  # seconds on screen
_COLUMNS_PER_SECOND = 20.0
_PAUSE = 1.0  # seconds of silence that end a cue
_SENTENCE_ENDS, _CLAUSE_ENDS = tuple(".?!…。？！؟।"), tuple(",;:、，；：،—–")
_QUOTES = "\"'”’»)]」』）"
_SMALL_REST = 0.25  # of a cue: less of a passage is not left to a cue of its own, where it can be helped


@dataclass(frozen=True, slots=True)
class Cue:
    """Text on the screen between two times.

    Args:
        start, end: milliseconds from the recording's beginning; end is above start.
        lines: lines of units.
        marked: index of the unit that is highlighted, over all lines; None for none.
    """

    start: int
    end: int
    lines: tuple[tuple[Unit, ...], ...]
    marked: int | None = None

    @property
    def speaker(self) -> str | None:
        """Name of the speaker of all its units; None where it is not known."""
        return self.lines[0][0].speaker

    @property
    def text(self) -> str:
        """Text with a line feed between lines."""
        return "\n".join(map(line_text, self.lines))


@dataclass(frozen=True, slots=True)
class _Passage:
    """Units in order that share no cue with others'; timed where each word has a time of its own."""

    units: list[Unit]
    is_timed: bool


def make_cues(
    result: "Transcription",
    max_line_width: int = MAX_LINE_WIDTH,
    max_line_count: int = MAX_LINE_COUNT,
    highlight_words: bool = False,
) -> list[Cue]:
    """Cues of a transcription: in order, none empty, none before the end of the one before it.

    Words have their own times. Where only segments are known, their text shares their time by characters;
    where neither is, the whole text shares the recording's. Cues end with a segment, at a pause, or where the
    lines are full, best behind a sentence or clause; they stay on the screen long enough to be read where the
    next one leaves the time.

    Args:
        result: transcription without error.
        max_line_width: columns of a line; a wide character of East Asia takes two.
        max_line_count: lines of a cue.
        highlight_words: True gives a cue for each word, in which it is marked.

    Raises:
        ValueError: a failed transcription, too narrow a line, no line, or highlighted words without times.
    """
    if result.error is not None:
        raise ValueError(f"a failed transcription has no subtitles: {result.error}")
    if max_line_width < MIN_LINE_WIDTH:
        raise ValueError(f"max_line_width must be at least {MIN_LINE_WIDTH}, got {max_line_width}")
    if max_line_count < 1:
        raise ValueError(f"max_line_count must be at least 1, got {max_line_count}")
    if highlight_words and result.words is None:
        raise ValueError(
            "highlight_words needs the times of words, which this result is without; ask Whisper for "
            "word_timestamps, take a CTC model, or leave it out"
        )
    groups: list[list[Unit]] = []
    for passage in _passages(result, max_line_width):
        groups += _groups(passage, max_line_width, max_line_count)
    groups = _merged(groups, max_line_width, max_line_count)
    times = _times(groups, result.duration)
    cues = [
        Cue(start, end, _even_lines(group, max_line_width))
        for group, (start, end) in zip(groups, times, strict=True)
    ]
    return [marked for cue in cues for marked in _highlighted(cue)] if highlight_words else cues


def words_of_segments(result: "Transcription") -> "list[list[Span]] | None":
    """Words of each segment; None where the segments' text is not that of the words."""
    words = [word for word in result.words or () if _letters(word.text)]
    segments = result.segments or ()
    if not words or "".join(_letters(word.text) for word in words) != _letters(
        "".join(segment.text for segment in segments)
    ):
        return None
    ends = [0]  # letters up to the end of each segment
    for segment in segments:
        ends.append(ends[-1] + len(_letters(segment.text)))
    found: list[list[Span]] = [[] for _ in segments]
    position = index = 0
    for word in words:
        while position >= ends[index + 1]:
            index += 1
        found[index].append(word)
        position += len(_letters(word.text))
    return found


def _letters(text: str) -> str:
    return "".join(clean(text).split())


def _passages(result: "Transcription", width: int) -> Iterator[_Passage]:
    """Parts of a transcription that share no cue, with units of at most `width` columns."""
    of_segments = words_of_segments(result)
    if of_segments is not None:
        for segment, words in zip(result.segments or (), of_segments, strict=True):
            yield _Passage(_spoken(_word_units(segment.text, words, width), segment.speaker), True)
    elif any(segment.text.strip() for segment in result.segments or ()):
        for segment in result.segments or ():
            units = units_of(segment.text, segment.start, segment.end, width)
            yield _Passage(_spoken(units, segment.speaker), False)
    elif any(_letters(word.text) for word in result.words or ()):
        yield _Passage(_word_units(result.text, result.words or (), width), True)
    else:
        yield _Passage(units_of(result.text, 0.0, result.duration, width), False)


def _spoken(units: list[Unit], speaker: str | None) -> list[Unit]:
    return units if speaker is None else [unit._replace(speaker=speaker) for unit in units]


def _word_units(text: str, words: "Sequence[Span]", width: int) -> list[Unit]:
    texts = [clean(word.text).strip() for word in words]
    found: list[Unit] = []
    for word, own, spaced in zip(words, texts, spacing(clean(text), texts), strict=True):
        found += units_of(own, word.start, word.end, width, spaced=spaced)
    return found


def _wrap(units: Sequence[Unit], width: int) -> list[list[Unit]]:
    """Lines that are each as full as `width` allows; a wider unit has one of its own."""
    lines: list[list[Unit]] = []
    used = 0
    for unit in units:
        size = columns(unit.text)
        if lines and used + unit.spaced + size <= width:
            lines[-1].append(unit)
            used += unit.spaced + size
        else:
            lines.append([unit])
            used = size
    return lines


def _even_lines(units: Sequence[Unit], width: int) -> tuple[tuple[Unit, ...], ...]:
    """Lines of about the same width, as few as `width` columns allow."""
    lines = _wrap(units, width)
    count = len(lines)
    if count > 1:
        for narrower in range(columns(line_text(units)) // count, width):
            evener = _wrap(units, narrower)
            if len(evener) == count and all(columns(line_text(line)) <= width for line in evener):
                lines = evener
                break
    return tuple(map(tuple, lines))


def _groups(passage: _Passage, width: int, count: int) -> Iterator[list[Unit]]:
    """Units of each cue of a passage."""
    capacity = width * count
    longest = _MAX_SECONDS if passage.is_timed else float("inf")
    start = 0
    while start < len(passage.units):
        ahead = passage.units[start : start + 2 * capacity]  # more than a cue, as a unit has a column
        size, is_natural = _fill(ahead, width, count, longest)
        if not is_natural:
            size = _best_break(ahead, size, capacity)
        yield ahead[:size]
        start += size


def _fill(units: Sequence[Unit], width: int, count: int, longest: float) -> tuple[int, bool]:
    """Number of units that one cue holds at most, and whether the passage ends or pauses there."""
    lines, used = 1, columns(units[0].text)
    for index, (before, unit) in enumerate(pairwise(units), 1):
        if unit.start - before.end >= _PAUSE:
            return index, True
        size = columns(unit.text)
        if used + unit.spaced + size <= width:
            used += unit.spaced + size
        else:
            lines, used = lines + 1, size
        if lines > count or unit.end - units[0].start > longest:
            return index, False
    return len(units), True


def _best_break(units: Sequence[Unit], size: int, capacity: int) -> int:
    """Number of units of a cue that can hold `size`: full, but better behind a sentence or clause."""
    sizes = [columns(unit.text) + unit.spaced for unit in units]
    rest = sum(sizes) / capacity
    best, best_score = size, float("-inf")
    full = 0.0
    for index in range(1, size + 1):
        full += sizes[index - 1] / capacity
        last = units[index - 1]
        score = full + _ends_sentence(last) * 1.0 + (last.text[-1] in _CLAUSE_ENDS) * 0.4
        score += min(max(units[index].start - units[index - 1].end, 0.0), 0.5)
        score -= max(_SMALL_REST - (rest - full), 0.0) / _SMALL_REST  # an orphan
        if full >= _SMALL_REST and score >= best_score:
            best, best_score = index, score
    return best


def _ends_sentence(unit: Unit) -> bool:
    return unit.text.rstrip(_QUOTES)[-1:] in _SENTENCE_ENDS


def _merged(groups: list[list[Unit]], width: int, count: int) -> list[list[Unit]]:
    """Groups; one too short to be read takes in the next, and a sentence its end, if both fit."""
    merged: list[list[Unit]] = []
    for group in groups:
        if merged:
            both = merged[-1] + group
            is_short = group[0].start - both[0].start < _MIN_SECONDS
            is_orphan = columns(line_text(group)) < _SMALL_REST * width * count
            if (
                (is_short or (is_orphan and not _ends_sentence(merged[-1][-1])))
                and group[0].start - merged[-1][-1].end < _PAUSE
                and group[0].speaker == both[0].speaker
                and len(_wrap(both, width)) <= count
                and group[-1].end - both[0].start <= _MAX_SECONDS
            ):
                merged[-1] = both
                continue
        merged.append(group)
    return merged


def _times(groups: Sequence[Sequence[Unit]], duration: float) -> list[tuple[int, int]]:
    """Start and end of each cue in milliseconds: starts rise, and no cue lasts beyond the next one's."""
    if not groups:
        return []
    last = round(max(unit.end for group in groups for unit in group) * 1000)
    limit = max(round(duration * 1000) or last, len(groups))
    starts = _rising([round(group[0].start * 1000) for group in groups], groups, limit)
    times = []
    for group, start, following in zip(groups, starts, [*starts[1:], limit], strict=True):
        readable = 1000 * max(_MIN_SECONDS, columns(line_text(group)) / _COLUMNS_PER_SECOND)
        end = max(round(max(unit.end for unit in group) * 1000), start + round(readable))
        times.append((start, max(min(end, following), start + 1)))
    return times


def _rising(starts: list[int], groups: Sequence[Sequence[Unit]], limit: int) -> list[int]:
    """Starts that rise from 0 to below `limit`: those that are equal share the time to the next."""
    rising: list[int] = []
    for start in starts:
        rising.append(min(max(start, rising[-1] if rising else 0), limit))
    index = 0
    while index < len(rising):
        stop = index + 1
        while stop < len(rising) and rising[stop] == rising[index]:
            stop += 1
        begin = rising[index]
        latest = round(max(unit.end for group in groups[index:stop] for unit in group) * 1000)
        room = (rising[stop] if stop < len(rising) else min(max(latest, begin), limit)) - begin
        sizes = [columns(line_text(group)) for group in groups[index:stop]]
        done = 0
        for place in range(index, stop):
            rising[place] = begin + room * done // sum(sizes)
            done += sizes[place - index]
        index = stop
    for index in range(1, len(rising)):  # a millisecond each where there is no time to share
        rising[index] = max(rising[index], rising[index - 1] + 1)
    for index, start in enumerate(rising):
        rising[index] = min(start, limit - (len(rising) - index))
    return rising


def _highlighted(cue: Cue) -> Iterator[Cue]:
    """Cues of the same lines, one for each unit that is marked from its start to the next one's."""
    units = [unit for line in cue.lines for unit in line]
    starts = [min(max(round(unit.start * 1000), cue.start), cue.end) for unit in units]
    starts[0] = cue.start
    begin = cue.start
    for index, following in enumerate([*starts[1:], cue.end]):
        if following > begin:
            yield Cue(begin, following, cue.lines, index)
            begin = following


def line_text(units: Sequence[Unit], mark: tuple[str, str] = ("", ""), marked: int | None = None) -> str:
    """Text of a line, with `mark` around the unit of index `marked`."""
    shown = [
        f"{mark[0]}{unit.text}{mark[1]}" if index == marked else unit.text for index, unit in enumerate(units)
    ]
    return "".join(
        (" " if unit.spaced and index else "") + text
        for index, (unit, text) in enumerate(zip(units, shown, strict=True))
    )
