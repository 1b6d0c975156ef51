"""Recordings of any length with Whisper: windows one after the other or cut at pauses, options, faults.

Windows of the small checkpoint are one second long. The real one is tiny.en, where its package is installed.
"""

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fault_sites import KINDS
from whisper_checkpoints import recording, write_whisper_checkpoint
from whisper_tokenizers import english_folder

import tritone
from tritone.engine.audio.reader import load_audio
from tritone.engine.audio.segments import cut_at_pauses
from tritone.engine.config import EngineConfig
from tritone.engine.tasks import windows

SAMPLES = Path(__file__).parents[2] / "samples" / "english"
SOON = 60  # seconds
LADDER = {"temperature": [0.0, 0.4, 0.8], "logprob_threshold": -3.7, "seed": 5}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_whisper_checkpoint(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def engine(checkpoint):
    with tritone.Engine(checkpoint, device="cpu", num_rows=8) as engine:
        yield engine


def generated(engine, audio: np.ndarray, **options):
    """Text and segments of `generate`, with times that do not pass the end."""
    extractor, tokenizer = engine.processor.feature_extractor, engine.processor.tokenizer
    given = {"truncation": False, "padding": "longest"} if len(audio) > extractor.n_samples else {}
    features = extractor(audio, sampling_rate=16_000, return_tensors="pt", **given).input_features
    known = engine.model.generation_config.options.get("lang_to_id")
    options = ({"task": "transcribe"} if known else {}) | {"return_timestamps": True} | options
    found = engine.model.generate(features, return_segments=True, **options)
    end = len(audio) / 16_000
    segments = [
        (min(one["start"].item(), end), min(one["end"].item(), end), tuple(one["tokens"].tolist()))
        for one in found["segments"][0]
    ]
    first = tokenizer.timestamp_begin
    texts = [[token for token in tokens if token < first] for _, _, tokens in segments]
    return "".join(tokenizer.decode(text, skip_special_tokens=True) for text in texts), segments


def times_and_tokens(result):
    return [(one.start, one.end, one.token_ids) for one in result.segments]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"language": "de", "num_beams": 2},
        {"language": "French", "task": "translate", "condition_on_prev_tokens": True},
        LADDER,
    ],
    ids=["detected", "beams", "conditioned", "ladder"],
)
def test_a_long_recording_has_the_text_and_the_segments_of_generate(engine, options):
    for seconds in (1.01, 4.3):
        audio = recording(seconds, seed=1)
        result = engine.submit(audio, **options).result(SOON)
        text, segments = generated(engine, audio, **options)
        assert result.text == text
        assert times_and_tokens(result) == segments
        assert result.duration == pytest.approx(seconds, abs=1e-3)
        assert result.token_ids == tuple(token for *_, tokens in segments for token in tokens)
        starts = [one.start for one in result.segments]
        assert starts == sorted(starts)
        assert all(one.start <= one.end <= result.duration for one in result.segments)
    if options is LADDER:
        assert len({one.temperature for one in result.segments}) > 1


def test_a_prompt_is_a_text_that_goes_before_the_first_window(engine):
    audio = recording(2.5)
    ids = engine.processor.tokenizer.get_prompt_ids("my country", None)
    result = engine.submit(audio, prompt="my country").result(SOON)
    assert (result.text, times_and_tokens(result)) == generated(engine, audio, prompt_ids=ids)
    assert result.text != engine.submit(audio).result(SOON).text
    short = [engine.submit(audio[:9_000], **{name: value}).result(SOON) for name, value in
             (("prompt", "my country"), ("prompt_ids", ids), ("prompt_ids", np.array(ids)))]  # fmt: skip
    assert short[0].text == short[1].text == short[2].text


def test_a_short_recording_with_times_has_the_segments_of_generate_up_to_its_end(engine):
    audio = recording(0.7, seed=4)
    result = engine.submit(audio, return_timestamps=True).result(SOON)
    _, segments = generated(engine, audio)
    assert times_and_tokens(result) == segments[: len(result.segments)]
    assert result.segments[-1].end > 0.5
    assert engine.submit(audio).result(SOON).segments is None


@pytest.mark.parametrize("options", [{}, {"return_timestamps": True}, LADDER], ids=str)
def test_pieces_cut_at_pauses_have_what_each_has_alone(engine, options):
    audio = recording(3.6, seed=8)
    audio[15_000:15_500] = 0
    result = engine.submit(audio, windows="pauses", language="en", **options).result(SOON)
    pieces = list(cut_at_pauses([audio], 16_000, 1.0, 0.75))
    alone = [engine.submit(one.samples, language="en", **options).result(SOON) for one in pieces]
    assert abs(pieces[0].end - 15_250) <= 160
    assert result.text == "".join(one.text for one in alone)
    if options:
        starts = [piece.start / 16_000 + one.start
                  for piece, found in zip(pieces, alone, strict=True) for one in found.segments]  # fmt: skip
        assert [one.start for one in result.segments] == pytest.approx(starts)
    else:
        bounds = [(one.start / 16_000, one.end / 16_000) for one in pieces]
        assert [(one.start, one.end) for one in result.segments] == bounds
    assert result.duration == 3.6


def test_the_language_is_that_of_the_first_window(engine):
    audio = recording(3.0, seed=7)
    found = {cut: engine.submit(audio, windows=cut).result(SOON) for cut in ("sequential", "pauses")}
    first = next(cut_at_pauses([audio], 16_000, 1.0, 0.75)).samples
    assert found["pauses"].language == engine.submit(first).result(SOON).language
    features = engine.processor.feature_extractor(
        audio, truncation=False, padding="longest", return_tensors="pt", sampling_rate=16_000
    ).input_features
    (token,) = engine.model.detect_language(features[..., :100]).tolist()
    assert engine.processor.tokenizer.decode([token]) == f"<|{found['sequential'].language}|>"
    assert engine.submit(audio, language="<|de|>").result(SOON).language == "de"


def test_results_do_not_depend_on_what_else_is_transcribed(engine):
    seconds = [0.2 + 0.05 * (7 * index % 40) for index in range(40)]
    kinds = [
        {},
        {"windows": "pauses", "language": "en"},
        {"task": "translate", "num_beams": 3, "condition_on_prev_tokens": True},
        LADDER | {"compression_ratio_threshold": 1.3, "no_speech_threshold": 0.002},
        {"return_timestamps": True, "prompt": "ask not"},
    ]
    calls = [(recording(one, index), kinds[index % 5]) for index, one in enumerate(seconds)]
    handles = [engine.submit(audio, **options) for audio, options in calls]
    together = [handle.result(SOON) for handle in handles]
    alone = [engine.submit(audio, **options).result(SOON) for audio, options in calls]
    assert together == alone
    assert engine.stats().running == engine.stats().waiting == 0


def test_text_is_streamed_window_by_window_and_token_by_token(engine):
    handle = engine.submit(recording(4.0, seed=1))
    pieces = list(handle)
    assert len(pieces) > 2
    assert "".join(pieces) == handle.result(SOON).text
    short = engine.submit(recording(0.6, seed=1))
    pieces = list(short)
    assert len(pieces) > 2
    assert "".join(pieces) == short.result(SOON).text


def test_a_file_a_file_object_bytes_and_an_array_have_one_result(engine, tmp_path):
    audio, path = recording(2.4, seed=3), tmp_path / "a.flac"
    soundfile.write(path, audio, 16_000, subtype="PCM_16")
    audio = soundfile.read(path, dtype="float32")[0]
    content = path.read_bytes()
    for cut in ("sequential", "pauses"):
        sources = [path, str(path), content, io.BytesIO(content), audio, torch.from_numpy(audio)]
        results = list(engine.transcribe(sources, windows=cut))
        assert [one.error for one in results] == [None] * len(sources)
        assert {one.text for one in results} == {results[0].text}
        assert all(one.segments == results[0].segments for one in results)
    stereo = np.stack([audio, recording(2.4, seed=9)], axis=1)
    split = list(engine.transcribe([stereo], channels="split"))
    assert [one.channel for one in split] == [0, 1]
    assert split[0].segments == engine.submit(audio).result(SOON).segments


def test_windows_without_speech_are_left_out(engine):
    result = engine.submit(recording(2.0), no_speech_threshold=0.0, logprob_threshold=0.0).result(SOON)
    assert (result.text, result.segments, result.score, result.finish_reason) == ("", (), None, "stop")
    assert result.language is not None


def test_a_checkpoint_that_knows_english_alone_has_neither_task_nor_language(tmp_path):
    folder = write_whisper_checkpoint(tmp_path, multilingual=False)
    with tritone.Engine(folder, device="cpu", num_rows=4) as engine:
        audio = recording(2.2)
        result = engine.submit(audio).result(SOON)
        assert (result.text, times_and_tokens(result)) == generated(engine, audio)
        assert result.language == engine.submit(audio[:8_000]).result(SOON).language == "en"
        named = engine.submit(audio, language="English", task="transcribe").result(SOON)
        assert named == result
        with pytest.raises(ValueError, match="language 'de'"):
            engine.submit(audio, language="de")
        with pytest.raises(ValueError, match="task 'translate'"):
            engine.submit(audio, task="translate")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": "fast"}, "windows must be"),
        ({"language": "klingon"}, "klingon"),
        ({"task": "sing"}, "task"),
        ({"temperature": [0.0, -1.0]}, "temperature"),
        ({"temperature": []}, "temperature"),
        ({"no_speech_threshold": "high"}, "no_speech_threshold"),
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "a", "prompt_ids": [1]}, "give one of them"),
        ({"prompt": "<|en|>"}, "special token"),
        ({"max_new_tokens": 999}, "max_new_tokens"),
        ({"loudness": 1}, "loudness"),
    ],
    ids=str,
)
def test_options_are_checked_when_a_recording_is_submitted(engine, options, message):
    with pytest.raises(ValueError, match=message):
        engine.submit(recording(0.3), **options)


def test_a_long_recording_may_be_as_long_as_the_configuration_says(checkpoint):
    with tritone.Engine(checkpoint, device="cpu", config=EngineConfig(max_seconds=3.0)) as engine:
        assert engine.max_seconds == 3.0
        long, longer = engine.submit(recording(2.9)), engine.submit(recording(3.1))
        assert long.result(SOON).duration == pytest.approx(2.9)
        with pytest.raises(tritone.AudioError, match="longer than 3"):
            longer.result(SOON)
        with pytest.raises(tritone.AudioError, match="longer than 3"):
            engine.submit(recording(3.1), windows="pauses").result(SOON)


def test_a_recording_that_is_damaged_behind_its_first_window_fails_alone(engine, tmp_path):
    path = tmp_path / "cut.flac"
    soundfile.write(path, recording(8.0), 16_000)
    content = path.read_bytes()
    broken = content[: len(content) * 2 // 3]
    for cut in ("sequential", "pauses"):
        bad, good = engine.transcribe([broken, content], windows=cut)
        assert isinstance(bad.error, tritone.AudioError)
        assert bad.text == ""
        assert good.error is None


def test_a_recording_that_shrinks_between_the_passes_is_an_error(engine, monkeypatch):
    calls = []
    blocks = type(engine._inputs).blocks

    def shrinking(self, source, reading):
        calls.append(1)
        return blocks(self, source[: len(source) // len(calls)], reading)

    monkeypatch.setattr(type(engine._inputs), "blocks", shrinking)
    with pytest.raises(tritone.AudioError, match="shorter while it was read"):
        engine.submit(recording(4.0)).result(SOON)


@pytest.mark.parametrize("fault", ["extract_excerpts", "input", "decode"])
def test_an_error_in_a_window_ends_its_recording_alone(engine, monkeypatch, fault):
    culprit, others = recording(5.0, seed=1), [recording(n / 2, seed=n) for n in range(1, 5)]
    alone = [engine.submit(one).result(SOON) for one in others]
    level = float(np.abs(culprit).max())
    if fault == "input":
        real = windows.LongSource.input

        def failing(self, window):
            if self.samples == len(culprit) and window.start > 150:
                raise MemoryError("injected")
            return real(self, window)

        monkeypatch.setattr(windows.LongSource, "input", failing)
    elif fault == "extract_excerpts":
        extractor = type(engine.processor.feature_extractor)
        real = extractor.extract_excerpts

        def failing(self, waveforms, *rest):
            if waveforms.abs().max() == level:
                raise MemoryError("injected")
            return real(self, waveforms, *rest)

        monkeypatch.setattr(extractor, "extract_excerpts", failing)
    else:
        real = windows.WindowSession.receive

        def failing(self, key, output):
            if self.duration == 5.0:
                raise MemoryError("injected")
            return real(self, key, output)

        monkeypatch.setattr(windows.WindowSession, "receive", failing)
    handles = [engine.submit(one) for one in (culprit, *others)]
    with pytest.raises(MemoryError, match="injected"):
        handles[0].result(SOON)
    assert [handle.result(SOON) for handle in handles[1:]] == alone
    until = time.monotonic() + SOON
    while engine.stats().running and time.monotonic() < until:
        time.sleep(0.001)
    assert engine.stats().running == 0


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_raised_between_windows_is_the_recordings_own_error(engine, monkeypatch, kind):
    culprit, other = recording(2.2, seed=1), recording(1.5, seed=2)
    alone = engine.submit(other).result(SOON)
    sites = [
        (windows.LongSource, "input", "sequential"),
        (windows.ShortSource, "input", "pauses"),
        (windows.Texts, "ratio", "sequential"),  # in a generator
        (windows.Texts, "segment", "pauses"),
    ]

    def failing(*given):
        raise KINDS[kind]()

    for owner, name, cut in sites:
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, failing)
            outcome = engine.submit(culprit, windows=cut).outcome(SOON)
        assert "injected" in f"{outcome.error!r} {outcome.error.__cause__!r}"
        assert engine.submit(other).result(SOON) == alone
    assert engine.health().status != "failed"


@pytest.mark.parametrize("cut", ["sequential", "pauses"])
def test_a_cancelled_recording_has_the_windows_so_far(engine, cut):
    audio = recording(60.0, seed=1)
    handle = engine.submit(audio, windows=cut, language="en")
    first = next(iter(handle))
    assert handle.cancel()
    result = handle.result(SOON)
    assert result.finish_reason == "cancelled"
    assert result.text.startswith(first)
    assert 0 < result.segments[-1].end < 60
    assert engine.submit(audio[:9_000]).result(SOON).finish_reason in ("stop", "length")


def test_a_recording_that_is_cancelled_in_its_first_pass_is_read_no_further(engine, monkeypatch):
    read = []
    blocks = type(engine._inputs).blocks

    def counted(self, source, reading):
        found = blocks(self, source, reading)
        real = type(found).__next__

        class Slow(type(found)):
            def __next__(self):
                read.append(1)
                time.sleep(0.01)
                return real(self)

        found.__class__ = Slow
        return found

    monkeypatch.setattr(type(engine._inputs), "blocks", counted)
    handle = engine.submit(np.zeros(16_000 * 600, np.float32))
    while not read:
        time.sleep(0.001)
    assert handle.cancel()
    assert handle.result(SOON).finish_reason == "cancelled"
    time.sleep(0.1)
    assert len(read) < 100


@pytest.mark.parametrize("cancel", [False, True])
def test_closing_an_engine_finishes_long_recordings_or_cancels_them(checkpoint, cancel):
    engine = tritone.Engine(checkpoint, device="cpu", num_rows=4)
    handles = [
        engine.submit(recording(2.0 + n, n), windows=("pauses", "sequential")[n % 2]) for n in range(4)
    ]
    next(iter(handles[1]))
    engine.close(cancel=cancel)
    reasons = {handle.result(0).finish_reason for handle in handles}
    assert ("cancelled" in reasons) == cancel
    if not cancel:
        assert all(handle.result(0).segments for handle in handles)


MEMORY = """
import json, resource, sys, tritone
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
with tritone.Engine(sys.argv[1], device="cpu", num_rows=8) as engine:
    found = []
    for path in sys.argv[2:]:
        for cut in ("sequential", "pauses"):
            result = engine.submit(path, windows=cut, max_new_tokens=1, language="en").result()
            assert result.error is None and len(result.segments) > 3, result
        found.append(peak())
print(json.dumps(found))
"""


def test_memory_does_not_grow_with_the_length_of_a_recording(checkpoint, tmp_path):
    paths = []
    for seconds in (60, 380):  # 24 MB as float32
        path = tmp_path / f"{seconds}.wav"
        with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16") as file:
            for part in range(seconds // 10):
                file.write(recording(10.0, part))
        paths.append(path)
    command = [sys.executable, "-c", MEMORY, checkpoint, *paths]
    shorter, longer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert longer - shorter < 12  # MB


# Real speech


@pytest.fixture(scope="module")
def english():
    english_folder()
    with tritone.Engine("english", device="cpu") as engine:
        yield engine


def words(text: str) -> list[str]:
    return "".join(one for one in text.lower() if one.isalnum() or one in " '").split()


def test_a_minute_of_speech_has_the_text_and_the_segments_of_generate(english):
    audio = load_audio(SAMPLES / "three_minutes.m4a", 16_000).samples[: 70 * 16_000]
    result = english.submit(audio).result(SOON)
    text, segments = generated(english, audio)
    assert (result.text, times_and_tokens(result)) == (text.lstrip(), segments)
    assert result.text.startswith("The lighthouse stood at the end of the long road")
    assert result.language == "en"
    assert all(one.compression_ratio < 2.4 for one in result.segments)


def test_both_ways_through_a_long_pause_find_both_sentences(english):
    spoken = json.loads((SAMPLES / "transcripts.json").read_text())["pause_of_40_seconds.opus"]
    for cut in ("sequential", "pauses"):
        result = english.submit(SAMPLES / "pause_of_40_seconds.opus", windows=cut).result(SOON)
        found, wanted = words(result.text), words(spoken)
        assert found[-6:] == wanted[-6:]
        assert found[:4] == wanted[:4]
        assert result.segments[-1].end <= result.duration
