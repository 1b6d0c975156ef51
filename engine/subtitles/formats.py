"""Formats of a transcription: SubRip, WebVTT, and the TSV and JSON of openai-whisper."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .cues import Cue, line_text, make_cues, words_of_segments
from .units import clean

if TYPE_CHECKING:
    from ..outputs import Segment, Span, Transcription

_ARROW = re.compile("-{2,}>")  # readers of SubRip look for it anywhere in a line
_TAG = re.compile("<(?=[A-Za-z/])")  # SubRip has no escapes: a tag such as <unk> would not be shown
_WORD_JOINER = "\u2060"  # takes no space
_VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_MARK = ("<u>", "</u>")


class _Stretch(NamedTuple):
    """Text between two times in seconds: a segment, or what stands for one."""

    start: float
    end: float
    text: str


def srt(result: "Transcription", **layout: Any) -> str:
    """SubRip text of a transcription; `layout` is as of `make_cues`. A line feed where nothing is said."""
    blocks = [
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n{_srt_text_of(cue)}\n\n"
        for number, cue in enumerate(make_cues(result, **layout), 1)
    ]
    return "".join(blocks) or "\n"


def vtt(result: "Transcription", **layout: Any) -> str:
    """WebVTT text of a transcription; `layout` is as of `make_cues`."""
    blocks = [
        f"{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n{_vtt_speaker(cue)}{_text(cue, _vtt_text)}\n\n"
        for cue in make_cues(result, **layout)
    ]
    return "".join(["WEBVTT\n\n", *blocks])


def tsv(result: "Transcription") -> str:
    """Rows of start, end and text with tabs between, times in milliseconds, below a header, as Whisper's."""
    rows = [
        f"{round(start * 1000)}\t{round(end * 1000)}\t{text}\n" for start, end, text in _stretches(result)
    ]
    return "".join(["start\tend\ttext\n", *rows])


def text(result: "Transcription") -> str:
    """Text of a transcription, with a line for each segment where it has some."""
    return "".join(f"{stretch.text}\n" for stretch in _of_segments(result)) or f"{_one_line(result.text)}\n"


def to_json(result: "Transcription") -> str:
    """JSON object of a transcription, named as openai-whisper and OpenAI's verbose_json do."""
    record: dict[str, Any] = {"text": clean(result.text)}
    segments = result.segments or ()
    if any(_of_segments(result)):
        words: Sequence[list[Span] | None] = words_of_segments(result) or [None] * len(segments)
        record["segments"] = [
            {"id": number} | _json_segment(segment, own)
            for number, (segment, own) in enumerate(zip(segments, words, strict=True))
        ]
    else:
        record["segments"] = [
            {"id": number, "start": round(start, 3), "end": round(end, 3), "text": text}
            for number, (start, end, text) in enumerate(_stretches(result))
        ]
    if result.words is not None:
        record["words"] = list(map(_json_word, result.words))
    record |= {"language": result.language, "duration": round(result.duration, 3)}
    if result.channel is not None:
        record["channel"] = result.channel
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def _json_segment(segment: "Segment", words: "list[Span] | None") -> dict[str, Any]:
    fields: dict[str, Any] = {
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": clean(segment.text),
        "tokens": list(segment.token_ids),
        "temperature": segment.temperature,
        "avg_logprob": segment.score,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_probability,
    }
    if segment.speaker is not None:
        fields["speaker"] = segment.speaker
    return fields if words is None else fields | {"words": list(map(_json_word, words))}


def _json_word(word: "Span") -> dict[str, Any]:
    times: dict[str, Any] = {
        "word": clean(word.text),
        "start": round(word.start, 3),
        "end": round(word.end, 3),
    }
    if word.speaker is not None:
        times["speaker"] = word.speaker
    return times if word.confidence is None else times | {"probability": round(word.confidence, 3)}


def _stretches(result: "Transcription") -> Iterator[_Stretch]:
    """Segments with text; of a transcription without segments its cues."""
    cues = make_cues(result)  # which refuses a failed one
    found = list(_of_segments(result))
    yield from found or (
        _Stretch(cue.start / 1000, cue.end / 1000, line_text([unit for line in cue.lines for unit in line]))
        for cue in cues
    )


def _of_segments(result: "Transcription") -> Iterator[_Stretch]:
    for segment in result.segments or ():
        if line := _one_line(segment.text):
            yield _Stretch(segment.start, segment.end, line)


def _one_line(text: str) -> str:
    return " ".join(clean(text).split())


def _text(cue: Cue, escape: Callable[[str], str]) -> str:
    """Lines of a cue, each unit escaped, around the marked one its tags."""
    lines, first = [], 0
    for line in cue.lines:
        escaped = [unit._replace(text=escape(unit.text)) for unit in line]
        marked = None if cue.marked is None else cue.marked - first
        lines.append(line_text(escaped, _MARK, marked))
        first += len(line)
    return "\n".join(lines)


def _srt_text(text: str) -> str:
    return _TAG.sub(f"<{_WORD_JOINER}", _ARROW.sub("->", text))


def _vtt_text(text: str) -> str:
    return text.translate(_VTT_ESCAPES)


def _srt_text_of(cue: Cue) -> str:
    """Text of a cue behind the name of its speaker, which SubRip has no other place for."""
    text = _text(cue, _srt_text)
    return text if cue.speaker is None else f"{_srt_text(_one_line(cue.speaker))}: {text}"


def _vtt_speaker(cue: Cue) -> str:
    return "" if cue.speaker is None else f"<v {_vtt_text(_one_line(cue.speaker))}>"


def _time(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{milliseconds:03}"
