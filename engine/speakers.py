"""Speakers of transcriptions, from the turns that a diarization gives; there is none in here."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
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
        ValueError: a folder without such files, or a broken line, which is named.
    """
    path = Path(path)
    files = sorted(path.glob("*.rttm")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path}: a folder without .rttm files")
    turns = dict[str, list[Turn]]()
    for file in files:
        for number, line in enumerate(file.read_text("utf-8", errors="replace").splitlines(), 1):
            fields = line.split()
            if fields[:1] == ["SPEAKER"]:
                turn = _turn(fields, f"{file}:{number}")
                turns.setdefault(fields[1], []).append(turn)
    return {name: tuple(sorted(own, key=lambda turn: turn.start)) for name, own in turns.items()}


def with_speakers(result: Transcription, turns: Sequence[Turn]) -> Transcription:
    """Transcription whose segments and words have speakers.

    A word, or a segment without words, has the speaker who talks for most of its time, of equal ones the one
    who began first, or without any overlap the one of the nearest turn. A segment whose words have several
    speakers becomes one for each of them in turn; these have no token ids. A result without segments gets
    one of the whole recording. Without turns, or of a failed request, it is returned as it is.

    Args:
        result: result of a recording.
        turns: turns of its speakers, which may overlap.
    """
    if result.error is not None or not turns:
        return result
    words = None
    if result.words is not None:
        words = tuple(replace(word, speaker=_speaker(word, turns)) for word in result.words)
    whole = Segment(result.text, 0.0, result.duration, result.token_ids, result.score or 0.0)
    segments = result.segments or ((whole,) if result.text else ())
    labeled = replace(result, words=words, segments=segments)
    of_segments = words_of_segments(labeled) or [[] for _ in segments]
    return replace(
        labeled,
        segments=tuple(
            part
            for segment, own in zip(segments, of_segments, strict=True)
            for part in _by_speaker(segment, own, turns)
        ),
    )


def _by_speaker(segment: Segment, words: Iterable[Span], turns: Sequence[Turn]) -> list[Segment]:
    """Segment with its speaker, or the parts of several speakers."""
    groups = [(speaker, list(own)) for speaker, own in groupby(words, key=lambda word: word.speaker)]
    if len(groups) < 2:
        return [replace(segment, speaker=groups[0][0] if groups else _speaker(segment, turns))]
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


def _speaker(span: Span | Segment, turns: Sequence[Turn]) -> str:
    """Speaker of a word or segment."""
    seconds = dict[str, float]()
    for turn in turns:
        shared = min(span.end, turn.end) - max(span.start, turn.start)
        seconds[turn.speaker] = seconds.get(turn.speaker, 0.0) + max(shared, 0.0)
    best = max(seconds, key=lambda speaker: seconds[speaker])
    if seconds[best] > 0:
        return best
    return min(turns, key=lambda turn: max(turn.start - span.end, span.start - turn.end)).speaker


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
