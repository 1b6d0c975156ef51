"""Speakers of transcriptions, from the turns that a diarization gives; there is none in here."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from pathlib import Path

from .outputs import Segment, Span, Transcription
from .subtitles.cues import words_of_segments
from .tasks.window_results import join_texts

_FIELDS = 9  # of a SPEAKER line of RTTM that are needed; a tenth, the lookahead, may follow


@dataclass(frozen=True, slots=True)
class Turn:
    """Stretch of a recording in which a speaker talks.

    Args:
        start, end: seconds from the recording's beginning.
        speaker: name of the speaker.
    """

    start: float
    end: float
    speaker: str


def read_rttm(path: str | Path) -> dict[str, tuple[Turn, ...]]:
    """Read the turns of recordings, by file id, from an RTTM file, or from all those of a folder.

    RTTM is NIST's format (Rich Transcription 2009, appendix A): lines of `SPEAKER ID CHANNEL START DURATION
    <NA> <NA> NAME <NA>`. Lines of other types are skipped.

    Raises:
        OSError: the file cannot be read.
        ValueError: a folder without such files, no turns in files that are not empty, or a
            broken line, which is named.
    """
    path = Path(path)
    files = sorted(path.glob("*.rttm")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path}: a folder without .rttm files")
    turns = dict[str, list[Turn]]()
    for file in files:
        for number, line in enumerate(file.read_text("utf-8-sig", errors="replace").splitlines(), 1):
            fields = line.split()
            if fields[:1] == ["SPEAKER"]:
                turn = _turn(fields, f"{file}:{number}")
                turns.setdefault(fields[1], []).append(turn)
    # An empty file is a diarization's of silence.
    if not turns and any(file.stat().st_size for file in files):
        raise ValueError(f"{path}: no SPEAKER lines; turns are read from RTTM in UTF-8")
    return {name: tuple(sorted(own, key=lambda turn: turn.start)) for name, own in turns.items()}


def with_speakers(result: Transcription, turns: Sequence[Turn]) -> Transcription:
    """Transcription whose segments and words have speakers.

    A word, or a segment without words, has the speaker who talks for most of its time, of equal ones the one
    who began first, or without any overlap the one of the nearest turn. A segment whose words have several
    speakers becomes one for each of them in turn; these have no token ids. A result without segments gets
    one of the whole recording. Without turns, or of a failed request, it is returned as it is.

    Args:
        result: result of a recording.
        turns: turns of its speakers, in any order, which may overlap.
    """
    if result.error is not None or not turns:
        return result
    talk = _Talk(turns)
    words = None
    if result.words is not None:
        words = tuple(replace(word, speaker=talk.speaker(word)) for word in result.words)
    whole = Segment(result.text, 0.0, result.duration, result.token_ids, result.score or 0.0)
    segments = result.segments or ((whole,) if result.text else ())
    labeled = replace(result, words=words, segments=segments)
    of_segments = words_of_segments(labeled) or [[] for _ in segments]
    return replace(
        labeled,
        segments=tuple(
            part
            for segment, own in zip(segments, of_segments, strict=True)
            for part in _by_speaker(segment, own, talk)
        ),
    )


class _Talk:
    """Turns by their start, those of one speaker that overlap as one, to find the speaker of a time."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        self._turns: list[Turn] = []
        newest = dict[str, int]()  # index of a speaker's last turn
        for turn in sorted(turns, key=lambda turn: turn.start):
            index = newest.get(turn.speaker)
            if index is not None and turn.start <= self._turns[index].end:
                end = max(turn.end, self._turns[index].end)
                self._turns[index] = replace(self._turns[index], end=end)
            else:
                newest[turn.speaker] = len(self._turns)
                self._turns.append(turn)
        self._starts = [turn.start for turn in self._turns]
        self._ends = list(accumulate((turn.end for turn in self._turns), max))  # the last up to each turn

    def speaker(self, span: Span | Segment) -> str:
        """Speaker of a word or segment."""
        first, last = bisect_right(self._ends, span.start), bisect_left(self._starts, span.end)
        seconds = dict[str, float]()
        for turn in self._turns[first:last]:
            shared = min(span.end, turn.end) - max(span.start, turn.start)
            seconds[turn.speaker] = seconds.get(turn.speaker, 0.0) + max(shared, 0.0)
        best = max(seconds, key=lambda speaker: seconds[speaker], default="")
        if seconds.get(best, 0.0) > 0:
            return best
        return min(self._turns, key=lambda turn: max(turn.start - span.end, span.start - turn.end)).speaker


def _by_speaker(segment: Segment, words: Iterable[Span], talk: _Talk) -> list[Segment]:
    """Segment with its speaker, or the parts of several speakers."""
    groups = [(speaker, list(own)) for speaker, own in groupby(words, key=lambda word: word.speaker)]
    if len(groups) < 2:
        return [replace(segment, speaker=groups[0][0] if groups else talk.speaker(segment))]
    return [
        replace(
            segment,
            text=join_texts(word.text.strip() for word in own),
            start=own[0].start,
            end=own[-1].end,
            token_ids=(),
            speaker=speaker,
        )
        for speaker, own in groups
    ]


def _turn(fields: Sequence[str], place: str) -> Turn:
    """Turn of a SPEAKER line. Raises ValueError with its place for a broken one."""
    if len(fields) < _FIELDS:
        raise ValueError(f"{place}: a SPEAKER line has {_FIELDS} fields or more, this one {len(fields)}")
    try:
        start, duration = float(fields[3]), float(fields[4])
    except ValueError:
        start = duration = math.nan
    if not (0 <= start < math.inf and 0 <= duration < math.inf):
        raise ValueError(
            f"{place}: start {fields[3]!r} and duration {fields[4]!r} must be numbers of seconds from 0"
        )
    return Turn(start, start + duration, fields[7])
