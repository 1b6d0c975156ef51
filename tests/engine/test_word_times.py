"""Words with times of an engine with Whisper: as of `generate`, the same alone and among others."""

import pytest
import soundfile
import torch
from commands import records, tritone_invoke
from whisper_checkpoints import recording, write_whisper_checkpoint

import tritone
from tritone.engine.outputs import Span
from tritone.engine.tasks import word_times as module
from tritone.engine.tasks.word_times import without_pauses
from tritone.kernels.runtime.packing import cumulative
from tritone.models.whisper.word_times import token_times
from tritone.models.whisper.words import words_of
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.request import Request
from tritone.scheduler.runner import ModelRunner

HEADS = [[1, 0], [1, 1], [0, 1]]
SOON = 60  # seconds


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    return write_whisper_checkpoint(folder, alignment_heads=HEADS)


@pytest.fixture(scope="module")
def engine(checkpoint):
    with tritone.Engine(checkpoint, device="cpu", num_rows=8) as engine:
        yield engine


def test_words_have_the_times_of_the_models_tokens(engine):
    audio = recording(0.9, seed=4)
    result = engine.submit(audio, language="en", word_timestamps=True).result(SOON)
    extractor, tokenizer = engine.processor.feature_extractor, engine.processor.tokenizer
    given = extractor(audio, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True)
    options = {"language": "en", "task": "transcribe", "return_dict_in_generate": True}
    model, features = engine.model, given.input_features
    whole = model.generate(features, **options).sequences[0].tolist()
    prompt = model.whisper_options(options | {"return_dict_in_generate": None}).windows.start_tokens
    tokens, frames = whole[len(prompt) :], int(given.attention_mask.sum())
    encoded = model.get_encoder()(features).last_hidden_state[0].detach()
    times = token_times(
        model, encoded, prompt, tokens, model.alignment_heads, frames=frames, from_prompt=True
    )
    seconds = [round(one, 2) for one in times.seconds]
    words = words_of(tokens, seconds, tokenizer, bounds=(0.0, 0.9), language="en")
    got = [(word.text, round(word.start, 2), round(word.end, 2)) for word in result.words]
    assert got == [(word.text, word.start, word.end) for word in words]
    assert got
    assert all(0 < word.confidence <= 1 for word in result.words)


@pytest.mark.parametrize("options", [{}, {"windows": "pauses"}, {"return_timestamps": True}], ids=str)
def test_words_are_the_same_alone_and_among_others_and_their_times_never_fall(engine, options):
    audio = [recording(seconds, seed=index) for index, seconds in enumerate((2.6, 0.4, 4.1, 1.0))]
    options = {"word_timestamps": True, **options}
    together = list(engine.transcribe(audio, **options))
    for samples, result in zip(audio, together, strict=True):
        assert result.error is None
        assert result == engine.submit(samples, **options).result(SOON)
        times = [seconds for word in result.words for seconds in (word.start, word.end)]
        assert times == sorted(times)
        assert not times or (times[0] >= 0 and times[-1] <= result.duration)
    assert sum(len(result.words) for result in together) > 4


def test_a_request_keeps_its_encoder_output_if_it_asks_for_that(engine):
    model, given = engine.model, torch.randn(2, 100, 8, generator=torch.Generator().manual_seed(0))
    options = model.resolve_options(language="en", task="transcribe")
    requests = [Request(index, given[index], options, keep_encoded=index == 1) for index in range(2)]
    loop = GenerationLoop(ModelRunner.sized_for(model, requests))
    for request in requests:
        loop.submit(request)
    outputs = {}
    while loop.has_work:
        outputs |= {event.request_id: event for event in loop.step()}
    assert outputs[0].encoded is None
    with torch.inference_mode():
        wanted, _ = model.encode(given[1], cumulative([100]))
    assert torch.equal(outputs[1].encoded, wanted)


def test_text_and_segments_are_those_without_words(engine):
    audio = recording(2.6)
    plain, timed = (engine.submit(audio, word_timestamps=asked).result(SOON) for asked in (False, True))
    assert (timed.text, timed.segments) == (plain.text, plain.segments)
    assert plain.words is None


def test_a_fault_of_the_computation_ends_its_recording_alone(engine, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(module, "token_times", fail)
        with pytest.raises(MemoryError):
            engine.submit(recording(0.6), word_timestamps=True).result(SOON)
    assert engine.submit(recording(0.6), word_timestamps=True).result(SOON).error is None


def test_words_need_alignment_heads_and_a_flag(engine, tmp_path):
    with pytest.raises(ValueError, match="word_timestamps must be True or False, got 1"):
        engine.submit(recording(0.6), word_timestamps=1)
    without = tritone.Engine(write_whisper_checkpoint(tmp_path), device="cpu")
    with without, pytest.raises(ValueError, match="need alignment_heads"):
        without.submit(recording(0.6), word_timestamps=True)


def test_json_lines_have_words_by_default_and_text_has_none(checkpoint, tmp_path):
    source, output = tmp_path / "a.wav", tmp_path / "a.jsonl"
    soundfile.write(source, recording(0.9, seed=4), 16_000, "FLOAT")
    common = ("transcribe", source, "--model", checkpoint, "--device", "cpu", "--language", "en")
    assert tritone_invoke(*common, "--output", output).exit_code == 0
    (line,) = records(output)
    assert {"word", "start", "end", "confidence"} == set(line["words"][0])
    assert tritone_invoke(*common, "--output", output, "--overwrite", "--no-words").exit_code == 0
    assert "words" not in records(output)[0]


def test_words_beside_a_pause_do_not_last_as_long_as_it():
    words = [
        Span("One", 0.0, 0.3),
        Span("two.", 0.3, 9.0),
        Span("Three", 9.0, 40.0),
        Span("four", 40.0, 48.0),
    ]
    assert [(word.start, word.end) for word in without_pauses(words)] == [
        (0.0, 0.3),
        (0.3, pytest.approx(1.7)),
        (pytest.approx(38.6), 40.0),
        (40.0, 48.0),
    ]
    assert without_pauses([]) == ()
