"""Speakers of results: turns from RTTM, words and segments that get them, and what the formats show."""

import json
import re
import shutil
from pathlib import Path

import pytest
import webvtt
from commands import records, tritone_process

from tritone import Segment, Span, Transcription, Turn, read_rttm, with_speakers

SAMPLES = Path(__file__).parents[2] / "samples"
TURNS = (Turn(0.0, 2.0, "ann"), Turn(1.5, 4.0, "ben"), Turn(6.0, 8.0, "ann"))
RTTM = """\
;; a comment
SPKR-INFO talk 1 <NA> <NA> <NA> unknown ben <NA> <NA>
SPEAKER talk 1 1.50 2.5 <NA> <NA> ben <NA> <NA>
SPEAKER talk 1 0 2.0 <NA> <NA> ann <NA>
SPEAKER other 1 0.1 0.2 <NA> <NA> cy <NA> <NA>
"""


def result(**fields) -> Transcription:
    words = (
        Span(" one", 0.0, 1.0),
        Span(" two,", 1.2, 1.8),
        Span(" three", 2.5, 3.0),
        Span(" four.", 3.6, 4.6),
    )
    segments = (Segment(" one two, three four.", 0.0, 4.6, (5, 6, 7), -0.5),)
    return Transcription(
        "one two, three four.", (5, 6, 7), "stop", 9.0, words=words, segments=segments, **fields
    )


def test_turns_are_read_by_recording_in_order_of_time(tmp_path):
    path = tmp_path / "all.rttm"
    path.write_text(RTTM)
    wanted = {"talk": (Turn(0.0, 2.0, "ann"), Turn(1.5, 4.0, "ben")), "other": (Turn(0.1, 0.1 + 0.2, "cy"),)}
    assert read_rttm(path) == wanted
    (tmp_path / "more.rttm").write_text("SPEAKER third 1 0 1 <NA> <NA> dee <NA> <NA>\n")
    assert read_rttm(tmp_path) == wanted | {"third": (Turn(0.0, 1.0, "dee"),)}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("SPEAKER talk 1 0 1 <NA> <NA>", "a SPEAKER line has 9 fields or more, this one 7"),
        ("SPEAKER", "a SPEAKER line has 9 fields or more, this one 1"),
        ("SPEAKER talk 1 zero 1 <NA> <NA> ann <NA>", "start 'zero' and duration '1' must be numbers"),
        ("SPEAKER talk 1 0 -1 <NA> <NA> ann <NA>", "start '0' and duration '-1' must be numbers"),
        ("SPEAKER talk 1 nan 1 <NA> <NA> ann <NA>", "start 'nan'"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, problem):
    path = tmp_path / "a.rttm"
    path.write_text(f"\n{line}\n")
    with pytest.raises(ValueError, match=re.escape(f"{path}:2: ") + ".*" + problem):
        read_rttm(path)


def test_a_folder_without_turns_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a folder without \.rttm files"):
        read_rttm(tmp_path)


def test_a_file_without_turns_is_refused(tmp_path):
    path = tmp_path / "turns.csv"
    path.write_text("start,end,speaker\n0,1,ann\n")
    with pytest.raises(ValueError, match="no SPEAKER lines"):
        read_rttm(path)
    path.write_text("")
    assert read_rttm(path) == {}


def test_a_byte_order_mark_hides_no_turn(tmp_path):
    path = tmp_path / "a.rttm"
    path.write_text("SPEAKER talk 1 0 1 <NA> <NA> ann <NA> <NA>\n", "utf-8-sig")
    assert read_rttm(path) == {"talk": (Turn(0.0, 1.0, "ann"),)}


@pytest.mark.parametrize("order", [1, -1])
def test_of_equal_speakers_a_word_has_the_one_who_began_first_in_any_order_of_turns(order):
    turns = (Turn(0.0, 1.5, "ben"), Turn(1.5, 3.0, "ann"))[::order]
    word = Transcription("x", (1,), "stop", 3.0, words=(Span("x", 1.0, 2.0),))
    assert with_speakers(word, turns).words[0].speaker == "ben"


def test_overlapping_turns_of_a_speaker_count_once():
    turns = (Turn(0.0, 1.0, "ann"), Turn(0.2, 0.8, "ann"), Turn(0.0, 1.5, "ben"))
    word = Transcription("x", (1,), "stop", 3.0, words=(Span("x", 0.0, 1.5),))
    assert with_speakers(word, turns).words[0].speaker == "ben"


def test_words_have_the_speaker_of_most_of_their_time_or_of_the_nearest_turn():
    words = with_speakers(result(), TURNS).words
    assert [word.speaker for word in words] == ["ann", "ann", "ben", "ben"]
    assert [(word.text, word.start, word.end) for word in words] == [
        (word.text, word.start, word.end) for word in result().words
    ]


def test_a_segment_of_two_speakers_becomes_two():
    segments = with_speakers(result(), TURNS).segments
    assert [(one.text, one.start, one.end, one.speaker) for one in segments] == [
        ("one two,", 0.0, 1.8, "ann"),
        ("three four.", 2.5, 4.6, "ben"),
    ]


def test_a_segment_of_one_speaker_stays_as_it_is():
    (segment,) = with_speakers(result(), TURNS[:1]).segments
    assert (segment.text, segment.token_ids, segment.speaker) == (" one two, three four.", (5, 6, 7), "ann")


def test_a_text_without_times_has_one_speaker():
    plain = Transcription("one two", (5, 6), "stop", 9.0)
    labeled = with_speakers(plain, TURNS)
    assert [(one.text, one.start, one.end, one.speaker) for one in labeled.segments] == [
        ("one two", 0.0, 9.0, "ann")
    ]
    assert labeled.words is None


def test_nothing_changes_without_turns_or_text():
    assert with_speakers(result(), ()) == result()
    empty = Transcription("", (), "stop", 9.0)
    assert with_speakers(empty, TURNS).segments == ()
    failed = Transcription("", (), "error", 0.0, error=ValueError("broken"))
    assert with_speakers(failed, TURNS) is failed


def test_formats_show_speakers_and_no_cue_has_two():
    labeled = with_speakers(result(), TURNS)
    assert labeled.to_srt().count("ann: one two,\n") == 1
    assert labeled.to_srt().count("ben: three four.\n") == 1
    captions = webvtt.from_string(labeled.to_vtt())
    assert [(one.voice, one.text) for one in captions] == [("ann", "one two,"), ("ben", "three four.")]
    record = json.loads(labeled.to_json())
    assert [one["speaker"] for one in record["segments"]] == ["ann", "ben"]
    assert [one["speaker"] for one in record["words"]] == ["ann", "ann", "ben", "ben"]


def test_the_command_gives_speakers_by_the_recordings_stem(ctc_checkpoint, tmp_path):
    for name in ("talk", "silent"):
        shutil.copy(SAMPLES / "digits" / "two_digits_16k.wav", tmp_path / f"{name}.wav")
    (tmp_path / "turns.rttm").write_text(RTTM)
    arguments = (
        "--model",
        ctc_checkpoint,
        "--device",
        "cpu",
        "--threads",
        1,
        "--output",
        tmp_path / "out.jsonl",
    )
    run = tritone_process("transcribe", tmp_path, *arguments, "--rttm", tmp_path / "turns.rttm")
    assert run.returncode == 0
    assert (
        f"silent.wav: warning: no turns of 'silent' in {tmp_path / 'turns.rttm'}: no speakers" in run.stderr
    )
    silent, talk = sorted(records(tmp_path / "out.jsonl"), key=lambda record: record["path"])
    assert {one["speaker"] for one in talk["segments"]} <= {"ann", "ben"}
    assert {one["speaker"] for one in talk["words"]} <= {"ann", "ben"}
    assert talk["words"]
    assert "speaker" not in json.dumps(silent["segments"])
    bad = tritone_process("transcribe", tmp_path, *arguments, "--rttm", tmp_path / "gone.rttm")
    assert bad.returncode == 2
    assert f"--rttm {tmp_path / 'gone.rttm'}: cannot be read (No such file or directory)" in bad.stderr
