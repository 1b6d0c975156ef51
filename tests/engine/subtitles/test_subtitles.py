"""Subtitles: lines that fit, cues that follow each other, and files that other programs read back."""

import io
import json
from dataclasses import replace
from itertools import pairwise

import pytest
import srt
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

from tritone.engine.outputs import Segment, Span, Transcription
from tritone.engine.subtitles.cues import make_cues
from tritone.engine.subtitles.formats import text as to_text
from tritone.engine.subtitles.units import clean, columns
from tritone.scheduler.request import FinishReason

SENTENCE = (
    "The lighthouse stood at the end of the long road, where the land ran out and the water began. For forty "
    "years the same man had climbed its stairs every evening and lit the lamp."
)


def transcription(text: str = "", duration: float = 10.0, **fields) -> Transcription:
    return Transcription(text, (1,), FinishReason.STOP, duration, -0.25, **fields)


def segment(text: str, start: float, end: float) -> Segment:
    return Segment(text, start, end, (5, 6), -0.25, 1.5, 0.01, 0.0)


def spoken(text: str, seconds: float = 0.3) -> tuple[Span, ...]:
    """Words of a text, one after the other."""
    return tuple(
        Span(word, number * seconds, (number + 1) * seconds, 0.5) for number, word in enumerate(text.split())
    )


def seconds(cue: srt.Subtitle) -> tuple[float, float]:
    return cue.start.total_seconds(), cue.end.total_seconds()


def without_spaces(text: str) -> str:
    return "".join(clean(text).split())


# Lines and cues.


def test_words_fill_two_lines_of_42_characters_and_keep_their_times():
    words = spoken(SENTENCE)
    cues = list(srt.parse(transcription(SENTENCE, 12.0, words=words).to_srt()))
    assert [cue.content for cue in cues] == [
        "The lighthouse stood at\nthe end of the long road,",
        "where the land ran out\nand the water began.",
        "For forty years the same man had climbed\nits stairs every evening and lit the lamp.",
    ]
    for cue, first in zip(cues, ("The", "where", "For"), strict=True):
        at = next(word.start for word in words if word.text == first)
        assert cue.start.total_seconds() == pytest.approx(at, abs=1e-3)
    assert (cues[0].end, cues[1].end) == (cues[1].start, cues[2].start)
    assert seconds(cues[2])[1] == 10.5


def test_a_pause_ends_a_cue_and_a_short_cue_stays_to_be_read():
    words = (Span("one", 1.0, 1.2), Span("two", 1.2, 1.4), Span("three", 5.0, 5.1))
    cues = list(srt.parse(transcription("one two three", 5.5, words=words).to_srt()))
    assert [(cue.content, *seconds(cue)) for cue in cues] == [
        ("one two", 1.0, 1.833),
        ("three", 5.0, 5.5),
    ]


def test_without_words_a_segment_shares_its_time_by_characters():
    result = transcription(SENTENCE, 20.0, segments=(segment(SENTENCE, 2.0, 14.0),))
    cues = list(srt.parse(result.to_srt()))
    assert len(cues) == 3
    done = 0
    for cue in cues:
        assert cue.start.total_seconds() == pytest.approx(2 + 12 * done / len(SENTENCE), abs=0.2)
        done += len(cue.content) + 1
    assert seconds(cues[-1])[1] == 14.0


def test_without_any_times_a_text_is_one_cue_of_the_whole_recording():
    (cue,) = srt.parse(transcription("two seven", 31.5).to_srt())
    assert (cue.content, seconds(cue)) == ("two seven", (0.0, 31.5))
    assert transcription("two seven", 31.5).to_tsv() == "start\tend\ttext\n0\t31500\ttwo seven\n"


def test_segments_share_no_cue_unless_one_is_too_short_to_be_read():
    segments = (segment(" Yes.", 0.0, 0.4), segment(" No.", 0.4, 0.8), segment(" Then we went.", 2.0, 4.0))
    text = " Yes. No. Then we went."
    for words in (None, ()):
        cues = list(srt.parse(transcription(text, segments=segments, words=words).to_srt()))
        assert [cue.content for cue in cues] == ["Yes. No.", "Then we went."]


def test_words_are_found_in_their_segments_where_times_disagree():
    segments = (segment(" One two.", 0.0, 2.0), segment(" Three four.", 2.0, 4.0))
    words = (Span("One", 0, 1), Span("two.", 1, 2.4), Span("Three", 2.4, 3), Span("four.", 3, 4))
    result = transcription(" One two. Three four.", segments=segments, words=words)
    assert [cue.text for cue in make_cues(result)] == ["One two.", "Three four."]
    found = json.loads(result.to_json())
    assert [[word["word"] for word in one["words"]] for one in found["segments"]] == [
        ["One", "two."],
        ["Three", "four."],
    ]


def test_words_of_another_text_than_the_segments_are_left_for_these():
    result = transcription(
        " All of it.", segments=(segment(" All of it.", 1, 2),), words=(Span("All", 1, 2),)
    )
    assert [cue.text for cue in make_cues(result)] == ["All of it."]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("吾輩は猫である。名前はまだ無い。どこで生れたか頓と見當がつかぬ。", 2),
        ("今天天气很好，我们一起去公园散步，然后在湖边坐了一会儿，看见很多小鸟。", 2),
        ("ภาษาไทยเป็นภาษาที่เขียนติดกันโดยไม่มีช่องว่างระหว่างคำ", 2),
        ("A" * 60, 2),
    ],
)
def test_a_text_without_spaces_breaks_between_characters(text, lines):
    (cue,) = make_cues(transcription(text))
    assert cue.text.replace("\n", "") == text
    found = cue.text.split("\n")
    assert len(found) == lines
    for line in found:
        assert columns(line) <= 42
        assert line[0] not in "。，、ー็่ีิ"
        assert line[-1] not in "เแโ「"


def test_wide_characters_take_two_columns():
    cues = make_cues(transcription("猫" * 100, 20.0))
    assert max(len(line) for cue in cues for line in cue.text.split("\n")) == 21


def test_words_of_a_script_without_spaces_are_joined_as_in_the_text():
    words = tuple(
        Span(word, number, number + 1) for number, word in enumerate(["吾輩", "は", "GPT", "である"])
    )
    (cue,) = make_cues(transcription("吾輩はGPT である", words=words))
    assert cue.text == "吾輩はGPT である"


def test_the_width_and_number_of_lines_are_the_calls():
    result = transcription(SENTENCE, words=spoken(SENTENCE))
    for width, count in ((42, 1), (20, 3), (2, 1), (200, 1)):
        for cue in srt.parse(result.to_srt(max_line_width=width, max_line_count=count)):
            lines = cue.content.split("\n")
            assert len(lines) <= count
            assert max(map(len, lines)) <= width


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_line_width": 1}, "max_line_width must be at least 2, got 1"),
        ({"max_line_count": 0}, "max_line_count must be at least 1, got 0"),
        ({"highlight_words": True}, "highlight_words needs the times of words"),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    for write in (Transcription.to_srt, Transcription.to_vtt):
        with pytest.raises(ValueError, match=message):
            write(transcription("one"), **options)


def test_a_failed_transcription_has_no_subtitles():
    failed = replace(transcription(), error=ValueError("a.wav: is empty"))
    for write in (Transcription.to_srt, Transcription.to_vtt, Transcription.to_tsv, Transcription.to_json):
        with pytest.raises(ValueError, match=r"a\.wav: is empty"):
            write(failed)


# Formats.


def test_numbers_times_and_characters_are_written_as_each_format_has_them():
    segments = (segment(" a --> b & <c>\td", 0.0, 3599.9996), segment(" two", 3599.9996, 36000.5))
    result = transcription(" a --> b & <c>\td two", 40000.0, segments=segments)
    assert result.to_srt() == (
        "1\n00:00:00,000 --> 01:00:00,000\na -> b & <\u2060c> d\n\n2\n01:00:00,000 --> 10:00:00,500\ntwo\n\n"
    )
    assert result.to_vtt() == (
        "WEBVTT\n\n00:00:00.000 --> 01:00:00.000\na --&gt; b &amp; &lt;c&gt; d\n\n"
        "01:00:00.000 --> 10:00:00.500\ntwo\n\n"
    )
    assert result.to_tsv() == ("start\tend\ttext\n0\t3600000\ta --> b & <c> d\n3600000\t36000500\ttwo\n")
    assert to_text(result) == "a --> b & <c> d\ntwo\n"
    assert to_text(transcription(" one\ntwo ")) == "one two\n"


def test_silence_gives_files_that_are_read_as_nothing():
    for result in (transcription(), transcription(" \n", segments=(segment("", 0, 1),), words=())):
        assert result.to_srt() == to_text(result) == "\n"
        assert list(srt.parse(result.to_srt())) == []
        assert list(webvtt.from_string(result.to_vtt())) == []
        assert result.to_tsv() == "start\tend\ttext\n"
        assert json.loads(result.to_json())["text"].strip() == ""


def test_json_has_the_names_of_whisper():
    words = (Span("one", 0.12345, 0.5, 0.98765), Span("two", 0.5, 1.0))
    result = transcription(
        " one two", 1.23456, words=words, language="en", segments=(segment(" one two", 0.1, 1.0),)
    )
    first = {"word": "one", "start": 0.123, "end": 0.5, "probability": 0.988}
    both = [first, {"word": "two", "start": 0.5, "end": 1.0}]
    assert json.loads(result.to_json()) == {
        "text": " one two",
        "segments": [
            {
                "id": 0,
                "start": 0.1,
                "end": 1.0,
                "text": " one two",
                "tokens": [5, 6],
                "temperature": 0.0,
                "avg_logprob": -0.25,
                "compression_ratio": 1.5,
                "no_speech_prob": 0.01,
                "words": both,
            }
        ],
        "words": both,
        "language": "en",
        "duration": 1.235,
    }
    bare = json.loads(replace(result, segments=None, words=None, channel=1).to_json())
    assert bare["segments"] == [{"id": 0, "start": 0.0, "end": 1.235, "text": "one two"}]
    assert bare["channel"] == 1
    assert "words" not in bare


def test_each_word_is_underlined_in_turn():
    result = transcription("one <two> three", 3.0, words=spoken("one <two> three", 1.0))
    cues = list(srt.parse(result.to_srt(highlight_words=True)))
    assert [(cue.content, *seconds(cue)) for cue in cues] == [
        ("<u>one</u> <\u2060two> three", 0.0, 1.0),
        ("one <u><\u2060two></u> three", 1.0, 2.0),
        ("one <\u2060two> <u>three</u>", 2.0, 3.0),
    ]
    assert "one <u>&lt;two&gt;</u> three" in result.to_vtt(highlight_words=True)


# Any text and any times.

TIMES = st.floats(-1, 50, width=32) | st.sampled_from([0.0, 1.0, 1.0004, 2.0])
TEXTS = st.text(max_size=60) | st.text(alphabet="ab .,-->&<\n\u3042\u3000\u0e40\u00a0\u2028", max_size=120)
SPANS = st.tuples(TEXTS, TIMES, TIMES).map(lambda given: (given[0], *sorted(given[1:])))


@st.composite
def transcriptions(draw):
    segments = draw(st.none() | st.lists(SPANS.map(lambda span: segment(*span)), max_size=6).map(tuple))
    words = draw(st.none() | st.lists(SPANS.map(lambda span: Span(*span)), max_size=12).map(tuple))
    text = draw(TEXTS)
    if segments and draw(st.booleans()):
        text = "".join(one.text for one in segments)
    if draw(st.booleans()):
        words = tuple(
            Span(word, number * 0.2, number * 0.2 + 0.1) for number, word in enumerate(text.split())
        )
    return transcription(text, draw(st.sampled_from([0.0, 0.001, 3.0, 50.0])), segments=segments, words=words)


@settings(max_examples=200, deadline=None)
@given(transcriptions(), st.integers(2, 50), st.integers(1, 3))
def test_any_transcription_is_read_back_with_its_text_in_lines_that_fit(result, width, count):
    cues = make_cues(result, width, count)
    layout = {"max_line_width": width, "max_line_count": count}
    for cue in cues:
        lines = cue.text.split("\n")
        assert len(lines) <= count
        assert all(0 < columns(line) <= width and line == line.strip(" \n") for line in lines)
        assert 0 <= cue.start < cue.end
    assert all(before.end <= after.start for before, after in pairwise(cues))
    if cues and result.duration > 1:
        assert cues[-1].end <= result.duration * 1000
    candidates = [result.text, "".join(one.text for one in result.segments or ())]
    candidates += ["".join(word.text for word in result.words or ())]
    shown = "".join(without_spaces(cue.text) for cue in cues)
    assert shown in list(map(without_spaces, candidates))

    read = list(srt.parse(result.to_srt(**layout)))
    assert [(*seconds(cue), cue.index) for cue in read] == [
        (cue.start / 1000, cue.end / 1000, number) for number, cue in enumerate(cues, 1)
    ]
    assert [cue.content.count("\n") for cue in read] == [cue.text.count("\n") for cue in cues]
    captions = list(webvtt.from_buffer(io.StringIO(result.to_vtt(**layout))))
    assert [caption.start_time.in_milliseconds() for caption in captions] == [cue.start for cue in cues]
    assert [caption.end_time.in_milliseconds() for caption in captions] == [cue.end for cue in cues]

    def strict(value):
        raise AssertionError(value)

    record = json.loads(result.to_json(), parse_constant=strict)
    assert without_spaces(record["text"]) == without_spaces(result.text)
    rows = result.to_tsv().split("\n")
    assert rows[-1] == ""
    assert all(row.count("\t") == 2 for row in rows[:-1])
    assert len(rows) == 2 + len([one for one in record["segments"] if without_spaces(one["text"])])
    for write in (result.to_srt(), result.to_vtt(), result.to_tsv(), result.to_json()):
        write.encode()
