"""Recordings of any length with models that generate: pieces cut at pauses, each decoded as if alone."""

import io

import encoder_decoders
import numpy as np
import pytest
import soundfile
import transformers
from factories import write_checkpoint

import tritone
from tritone.engine.audio.segments import cut_at_pauses, sound_span
from tritone.engine.session import PartsInOrder
from tritone.engine.tasks.generation_windows import MIN_SHARE, PieceSession
from tritone.engine.tasks.window_results import WindowResult, join_texts, mean_score

SOON = 60  # seconds
RATE, WINDOW = 16_000, 1.5
OPTIONS = {"max_window": WINDOW, "max_new_tokens": 12}
MARGIN = int(0.3 * RATE)


@pytest.fixture(scope="module", params=["speech_to_text", "speech_encoder_decoder"])
def folder(request, tmp_path_factory):
    """A checkpoint whose weights transformers has written."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "speech_to_text":
        write_checkpoint(folder)
        model = transformers.Speech2TextForConditionalGeneration.from_pretrained(folder)
    else:
        encoder_decoders.write_checkpoint(folder)
        model = transformers.SpeechEncoderDecoderModel.from_pretrained(folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(folder):
    with tritone.Engine(folder, device="cpu", num_rows=8) as engine:
        yield engine


@pytest.fixture(scope="module")
def one_engine(checkpoint):
    """An engine with Speech2Text, for what does not depend on the family."""
    with tritone.Engine(checkpoint, device="cpu", num_rows=8) as engine:
        yield engine


@pytest.fixture(scope="module")
def texts(engine):
    """Options with which each piece has some text."""
    special = set(engine.processor.tokenizer.all_special_ids) - {engine.model.config.eos_token_id}
    return {"max_new_tokens": 12, "min_new_tokens": 4, "suppress_tokens": sorted(special)}


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Tones of 0.1 to 0.5 s with pauses of 0.05 to 0.3 s."""
    draw = np.random.default_rng(seed)
    samples = 1e-4 * draw.standard_normal(int(seconds * RATE)).astype(np.float32)
    place = 0.0
    while (place := place + draw.uniform(0.05, 0.3)) < seconds:
        duration = min(draw.uniform(0.1, 0.5), seconds - place)
        start = int(place * RATE)
        time = np.arange(min(int(duration * RATE), len(samples) - start)) / RATE
        tones = sum(np.sin(2 * np.pi * draw.uniform(100, 3_500) * time) for _ in range(3))
        samples[start : start + len(time)] += (0.1 * tones).astype(np.float32)
        place += duration
    return samples


def pieces_of(audio: np.ndarray, window: float = WINDOW) -> list[tuple[float, float, np.ndarray]]:
    """Seconds of the sound of each piece, and what is decoded of it."""
    found = []
    for piece in cut_at_pauses([audio], RATE, window, MIN_SHARE * window):
        first, last = sound_span(piece.samples, RATE)
        if first < last:
            kept = piece.samples[max(first - MARGIN, 0) : last + MARGIN]
            found.append(((piece.start + first) / RATE, (piece.start + last) / RATE, kept))
    return found


def test_each_piece_has_the_tokens_that_transformers_generates_for_it_alone(folder, engine, texts):
    audio = speech(7.0, seed=1)
    auto = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval()
    processor = engine.processor
    for options in ({}, {"num_beams": 3, "length_penalty": 0.6}):
        result = engine.submit(audio, max_window=WINDOW, **texts, **options).result(SOON)
        pieces = pieces_of(audio)
        assert len(pieces) > 5
        found = []
        for (start, end, samples), segment in zip(pieces, result.segments, strict=True):
            inputs = processor(samples, sampling_rate=RATE, return_tensors="pt")
            inputs = {name: inputs[name] for name in ("input_features", "input_values") if name in inputs}
            ids = auto.generate(**inputs, **texts, **options)[0].tolist()
            found.append(processor.tokenizer.decode(ids, skip_special_tokens=True))
            special = processor.tokenizer.all_special_ids
            assert segment.token_ids == tuple(token for token in ids if token not in special)
            assert (segment.text, segment.start, segment.end) == (found[-1].strip(), start, end)
        assert len(set(found)) > 1  # or the weights would say nothing
        assert result.text == " ".join(text.strip() for text in found)
        assert result.token_ids == tuple(token for one in result.segments for token in one.token_ids)
        assert result.duration == 7.0
        assert result.words is None


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"do_sample": True, "seed": 3}], ids=str)
def test_pieces_have_what_the_engine_gives_each_alone(engine, texts, options):
    options = texts | options
    audio = speech(5.0, seed=2)
    result = engine.submit(audio, max_window=WINDOW, **options).result(SOON)
    alone, weights = [], []
    for index, (_, _, samples) in enumerate(pieces_of(audio)):
        own = options | ({"seed": options["seed"] + 1_000_003 * index} if "seed" in options else {})
        alone.append(engine.submit(samples, max_window=WINDOW, **own).result(SOON))
        weights.append(len(alone[-1].token_ids) - 1)
    assert [one.score for one in result.segments] == [one.score for one in alone]
    assert result.text == " ".join(one.text.strip() for one in alone)
    scores = [one.score for one in alone]
    assert result.score == pytest.approx(np.average(scores, weights=weights))
    at_length = any(one.finish_reason == "length" for one in alone)
    assert result.finish_reason == ("length" if at_length else "stop")


def test_a_recording_of_one_window_is_one_request_with_the_same_bits(engine, texts):
    audio = speech(1.5, seed=3)
    usual = engine.submit(audio, **texts).result(SOON)
    assert engine.submit(audio, max_window=WINDOW, **texts).result(SOON) == usual
    assert usual.segments is None
    longer = np.append(audio, audio[:1])
    assert engine.submit(longer, max_window=WINDOW, **texts).result(SOON).segments


def test_results_do_not_depend_on_what_else_is_transcribed(engine):
    kinds = [{}, {"num_beams": 3}, {"do_sample": True, "seed": 5}, {"max_window": 2.5}]
    audio = [speech(0.4 + 0.6 * index, seed=index) for index in range(8)]
    given = [OPTIONS | kinds[index % 4] for index in range(8)]
    alone = [engine.submit(one, **options).result(SOON) for one, options in zip(audio, given, strict=True)]
    handles = [engine.submit(one, **options) for one, options in zip(audio, given, strict=True)]
    assert [handle.result(SOON) for handle in handles] == alone


def test_a_language_is_that_of_every_piece(multilingual):
    with tritone.Engine(multilingual, device="cpu", num_rows=8) as engine:
        audio, tokenizer = speech(4.0, seed=4), engine.processor.tokenizer
        for language in ("de", "fr"):
            result = engine.submit(audio, language=language, **OPTIONS).result(SOON)
            alone = [
                engine.submit(samples, language=language, **OPTIONS).result(SOON)
                for _, _, samples in pieces_of(audio)
            ]
            assert all(one.token_ids[1] == tokenizer.lang_code_to_id[language] for one in alone)
            assert result.text == " ".join(one.text for one in alone)


def test_silence_is_not_decoded_and_has_no_segment(one_engine, monkeypatch):
    decoded = []
    real = PieceSession._result

    def counting(self, key, output):
        decoded.append(key)
        return real(self, key, output)

    monkeypatch.setattr(PieceSession, "_result", counting)
    first, second = speech(1.2, seed=5), speech(1.0, seed=6)
    audio = np.concatenate([first, np.zeros(8 * RATE, np.float32), second])
    result = one_engine.submit(audio, **OPTIONS).result(SOON)
    assert len(decoded) == len(result.segments) < 6
    assert [one.start for one in result.segments] == sorted(one.start for one in result.segments)
    assert all(one.end < 1.3 or one.start > 9.1 for one in result.segments)
    assert result.duration == pytest.approx(10.2)
    decoded.clear()
    silent = one_engine.submit(0.9 * 2.0**-15 * np.ones(5 * RATE, np.float32), **OPTIONS).result(SOON)
    assert (silent.text, silent.segments, silent.score, silent.duration) == ("", (), None, 5.0)
    assert silent.finish_reason == "stop"
    assert not decoded


def test_parts_of_the_text_come_as_pieces_end(one_engine):
    handle = one_engine.submit(speech(6.0, seed=7), **OPTIONS)
    parts = list(handle)
    result = handle.result(SOON)
    assert "".join(parts) == result.text
    assert len(result.segments) > 4
    assert list(handle)[-1]


def test_arrays_files_bytes_and_file_objects_are_cut_alike(one_engine, tmp_path):
    audio = speech(4.0, seed=8)
    path = tmp_path / "long.wav"
    soundfile.write(path, audio, RATE, "FLOAT")
    sources = [audio, path, path.read_bytes(), io.BytesIO(path.read_bytes()), audio.astype(np.float64)]
    results = [one_engine.submit(source, **OPTIONS).result(SOON) for source in sources]
    assert len(results[0].segments) > 2
    assert all(result == results[0] for result in results)


def test_each_channel_of_a_long_recording_has_a_result(one_engine, tmp_path):
    left, right = speech(4.0, seed=9), speech(4.0, seed=10)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([left, right], 1), RATE, "FLOAT")
    results = list(one_engine.transcribe([path], channels="split", **OPTIONS))
    alone = [one_engine.submit(one, **OPTIONS).result(SOON) for one in (left, right)]
    assert [one.segments for one in results] == [one.segments for one in alone]
    assert [one.channel for one in results] == [0, 1]


def test_a_recording_that_cannot_be_read_to_its_end_fails_alone(one_engine, tmp_path):
    good = speech(6.0, seed=11)
    with_nan = good.copy()
    with_nan[5 * RATE] = np.nan
    path = tmp_path / "cut.flac"
    soundfile.write(path, good, RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    results = list(one_engine.transcribe([with_nan, good, path], **OPTIONS))
    assert "sample 80000 is nan" in str(results[0].error)
    assert results[1].error is None
    assert results[1] == one_engine.submit(good, **OPTIONS).result(SOON)
    assert isinstance(results[2].error, tritone.AudioError)
    assert [result.text for result in (results[0], results[2])] == ["", ""]


@pytest.mark.parametrize("place", ["next_request", "receive"])
def test_an_error_in_a_piece_ends_its_recording_alone(one_engine, monkeypatch, place):
    culprit, other = speech(5.0, seed=12), speech(3.0, seed=13)
    alone = one_engine.submit(other, **OPTIONS).result(SOON)
    real = getattr(PieceSession, place)

    def failing(self, *given):
        if self.duration > 3.5:
            raise MemoryError("injected")
        return real(self, *given)

    monkeypatch.setattr(PieceSession, place, failing)
    handles = [one_engine.submit(one, **OPTIONS) for one in (culprit, other)]
    with pytest.raises(MemoryError, match="injected"):
        handles[0].result(SOON)
    assert handles[1].result(SOON) == alone


def test_a_cancelled_recording_has_the_pieces_so_far(one_engine):
    audio = np.tile(speech(6.0, seed=14), 20)
    handle = one_engine.submit(audio, **OPTIONS)
    parts = iter(handle)
    first = next(parts)
    assert handle.cancel()
    result = handle.outcome(SOON)
    assert result.finish_reason == "cancelled"
    assert result.text.startswith(first)
    assert 0 < len(result.segments) < 80
    assert result.segments[-1].end <= result.duration < 120


def test_texts_join_with_a_space_where_the_script_has_them():
    assert join_texts(["one", "", "two three", "four"]) == "one two three four"
    assert join_texts(["", "", ""]) == ""
    assert join_texts(["你好。", "再见", "ok", "您"]) == "你好。再见 ok 您"
    assert join_texts(["안녕", "세계", "ありがとう", "ございます"]) == "안녕 세계 ありがとうございます"


def test_the_score_is_the_mean_over_tokens():
    assert (
        mean_score([WindowResult("a", score=-1.0, tokens=3), WindowResult("b", score=-2.0, tokens=1)])
        == -1.25
    )
    assert mean_score([WindowResult(""), WindowResult("")]) is None


def test_parts_wait_for_those_of_earlier_pieces():
    parts = PartsInOrder[WindowResult]()
    assert not parts.is_open
    results = [WindowResult(text) for text in "abcd"]
    numbers = [parts.begin() for _ in range(3)]
    assert numbers == [0, 1, 2]
    parts.add(1, results[2])
    parts.end(1)
    assert parts.take() == []
    parts.add(0, results[0])
    assert parts.take() == [results[0]]
    parts.add(0, results[1])
    parts.end(0)
    assert parts.take() == results[1:3]
    assert parts.is_open
    parts.end(2)
    assert parts.take() == []
    assert not parts.is_open
