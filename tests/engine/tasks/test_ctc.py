"""A CTC model in the engine and on the command line: each recording as alone, words and their times."""

import json
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from commands import records, tritone_process

import tritone
from tritone.engine.audio.limits import max_recording_seconds
from tritone.engine.audio.reader import AudioError, TooShortError
from tritone.engine.config import EngineConfig

SOON = 60  # seconds
HOP, RATE = 320, 16_000


@pytest.fixture(scope="module")
def model(ctc_checkpoint):
    return tritone.AutoModelForCTC.from_pretrained(ctc_checkpoint)


@pytest.fixture(scope="module")
def processor(ctc_checkpoint):
    return tritone.AutoProcessor.from_pretrained(ctc_checkpoint)


@pytest.fixture
def engine(ctc_checkpoint):
    with tritone.Engine(ctc_checkpoint, device="cpu") as engine:
        yield engine


@pytest.fixture(scope="module")
def paths(model, processor, waveforms) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each recording's best path by the model's own `forward`, with the log-probabilities."""
    found = []
    for waveform in waveforms:
        inputs = processor(waveform, sampling_rate=RATE, return_tensors="pt")
        with torch.inference_mode():
            best = model(inputs.input_values).logits[0].log_softmax(-1).max(-1)
        found.append((best.indices, best.values))
    return found


def test_text_is_the_best_path_of_each_recording_by_itself(engine, processor, waveforms, paths):
    results = list(engine.transcribe(waveforms))
    for result, (path, log_probabilities) in zip(results, paths, strict=True):
        assert result.text == processor.decode(path)
        assert result.finish_reason == "stop"
        assert result.score == pytest.approx(log_probabilities.double().mean().item(), abs=1e-5)
        merged = torch.unique_consecutive(path)
        assert result.token_ids == tuple(merged[merged != 0].tolist())
    assert len({result.text for result in results}) > 15  # or the weights would say nothing
    assert sum(len(result.words) for result in results) > 30
    assert [result.duration for result in results] == [len(waveform) / RATE for waveform in waveforms]


def test_twenty_at_once_are_to_the_bit_what_each_is_alone(engine, waveforms):
    alone = [engine.submit(waveform).result(SOON) for waveform in waveforms]
    handles = [engine.submit(waveform, priority=index % 3) for index, waveform in enumerate(waveforms)]
    assert [handle.result(SOON) for handle in handles] == alone
    assert list(engine.transcribe(reversed(waveforms))) == alone[::-1]


def test_words_and_characters_have_their_times_in_seconds(engine, processor, waveforms, paths):
    for result, (path, _) in zip(engine.transcribe(waveforms), paths, strict=True):
        read = processor.decode(path, output_char_offsets=True, output_word_offsets=True)
        assert [word.text for word in result.words] == result.text.split()
        assert "".join(character.text for character in result.characters).strip() == result.text
        for spans, offsets in (
            (result.words, read.word_offsets),
            (result.characters, read.char_offsets),
        ):
            assert [(span.start, span.end) for span in spans] == [
                (one["start_offset"] * HOP / RATE, one["end_offset"] * HOP / RATE) for one in offsets
            ]
            assert all(first.end <= second.start for first, second in pairwise(spans))
            assert all(0 <= span.start < span.end <= result.duration for span in spans)


def test_other_models_know_no_times(checkpoint, waveforms):
    with tritone.Engine(checkpoint, device="cpu", num_rows=2) as generative:
        result = generative.submit(waveforms[0]).result(SOON)
    assert (result.words, result.characters) == (None, None)


def test_a_tokenizer_in_lower_case_spells_words_so_as_well(lower_case_ctc_checkpoint, waveforms):
    with tritone.Engine(lower_case_ctc_checkpoint, device="cpu") as lower:
        result = lower.submit(waveforms[0]).result(SOON)
    assert result.text == result.text.lower() != result.text.upper()
    assert [word.text for word in result.words] == result.text.split()


def test_iterating_over_a_handle_yields_the_text_in_one_piece(engine, waveforms):
    handle = engine.submit(waveforms[2])
    assert list(handle) == [handle.result(SOON).text]


def test_a_recording_shorter_than_a_frame_fails_alone_with_the_length_needed(engine, waveforms, tmp_path):
    path = tmp_path / "click.wav"
    soundfile.write(path, np.full(300, 0.1), RATE)
    results = list(engine.transcribe([waveforms[0], path, np.full(331, 0.1), waveforms[1], "gone.wav"]))
    assert [type(result.error) for result in results] == [
        type(None),
        TooShortError,
        TooShortError,
        type(None),
        AudioError,
    ]
    assert str(results[1].error).startswith(f"{path}: a recording of 300 samples is too short")
    assert "332 at least" in str(results[2].error)
    assert engine.submit(np.full(332, 0.1)).result(SOON).duration == 332 / RATE


def test_cancelled_among_others_it_has_no_text_and_the_others_theirs(engine, waveforms, processor, paths):
    handles = [engine.submit(waveform) for waveform in waveforms * 3]
    cancelled = [index for index in range(59, 0, -7) if handles[index].cancel()]
    results = [handle.result(SOON) for handle in handles]
    assert cancelled
    for index, result in enumerate(results):
        if index in cancelled and result.finish_reason == "cancelled":
            assert (result.text, result.token_ids, result.words) == ("", (), None)
        else:
            assert result.text == processor.decode(paths[index % 20][0])
    stats = engine.stats()
    assert stats.finished + stats.cancelled == 60
    assert (stats.running, stats.waiting, stats.failed) == (0, 0, 0)


def test_stats_count_recordings_and_no_tokens(engine, waveforms):
    results = list(engine.transcribe([*waveforms, "gone.wav"]))
    stats = engine.stats()
    assert (stats.finished, stats.failed, stats.pages_used, stats.pages_total) == (20, 1, 0, 0)
    assert (stats.tokens_generated, stats.tokens_per_second) == (0, 0.0)
    assert stats.audio_seconds == pytest.approx(sum(result.duration for result in results))
    assert stats.rtfx == pytest.approx(stats.audio_seconds / stats.busy_seconds)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"num_beams": 2}, "num_beams=2 is for models that decode token by token; a Wav2Vec2ForCTC"),
        ({"do_sample": True}, "do_sample=True"),
        ({"max_new_tokens": 3}, "max_new_tokens=3"),
        ({"nun_beams": 2}, "unknown generation option 'nun_beams'"),
        ({"language": "fr"}, "language 'fr'.* leave it out"),
    ],
)
def test_options_of_generation_are_refused_by_name(engine, waveforms, options, problem):
    with pytest.raises(ValueError, match=problem):
        engine.submit(waveforms[0], **options)
    with pytest.raises(ValueError, match=problem):
        engine.transcribe(waveforms, **options)


def test_options_that_say_what_it_does_anyway_are_taken(engine, waveforms):
    plain = engine.submit(waveforms[0]).result(SOON)
    options = {"num_beams": 1, "do_sample": False, "max_new_tokens": None}
    assert engine.submit(waveforms[0], **options).result(SOON) == plain


def test_a_loaded_model_goes_as_well_as_its_name(model, processor, engine, waveforms):
    wanted = engine.submit(waveforms[3]).result(SOON)
    with tritone.Engine(model, processor=processor) as loaded:
        assert loaded.submit(waveforms[3]).result(SOON) == wanted


@pytest.mark.parametrize("architectures", [None, ["Wav2Vec2ForCTC"], ["SomeUnknownForCTC"]])
def test_a_checkpoint_is_known_by_its_head_or_without_one_by_its_family(
    ctc_checkpoint, tmp_path, waveforms, architectures
):
    for file in ctc_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": architectures}))
    with tritone.Engine(tmp_path, device="cpu") as engine:
        assert engine.submit(waveforms[0]).result(SOON).words


def test_an_encoder_without_a_head_is_refused(model, tmp_path):
    model.base.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is a Wav2Vec2Model, which has no head .* such as a ForCTC"):
        tritone.Engine(tmp_path)


def test_the_longest_recording_follows_the_memory_that_there_is(model, processor, monkeypatch):
    extractor = processor.feature_extractor
    # 12 channels every 10 samples, three times, in a quarter of the memory
    memory = 4 * 3 * (12 / 10) * 4 * RATE * 90
    monkeypatch.setattr("tritone.engine.audio.limits._memory", lambda device: memory)
    assert max_recording_seconds(model, extractor, EngineConfig()) == pytest.approx(90, abs=0.01)
    monkeypatch.setattr("tritone.engine.audio.limits._memory", lambda device: float("inf"))
    assert max_recording_seconds(model, extractor, EngineConfig()) == pytest.approx(24 * 3600, abs=0.01)


def test_a_recording_too_long_for_the_memory_is_read_in_windows_that_are_not(
    ctc_checkpoint, monkeypatch, waveforms
):
    monkeypatch.setattr(
        "tritone.engine.audio.limits._memory", lambda device: 4 * 3 * (12 / 10) * 4 * RATE * 2
    )
    with tritone.Engine(ctc_checkpoint, device="cpu") as small:
        assert small.max_seconds == 24 * 3600
        results = list(small.transcribe(waveforms))
        with pytest.raises(ValueError, match=r"max_window is 3; .* to 1.9, the longest window that this"):
            small.submit(waveforms[0], max_window=3)
    durations = [len(waveform) / RATE for waveform in waveforms]
    assert min(durations) < 2 < max(durations)
    assert [result.duration for result in results] == durations
    assert all(result.error is None for result in results)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_on_a_gpu_twenty_at_once_are_to_the_bit_what_each_is_alone(ctc_checkpoint, waveforms, dtype):
    with tritone.Engine(ctc_checkpoint, device="cuda", dtype=dtype) as engine:
        alone = [engine.submit(waveform).result(SOON) for waveform in waveforms]
        assert list(engine.transcribe(waveforms)) == alone
        assert engine.stats().compiled == 0


# The command.


def test_the_command_writes_words_and_their_times(ctc_checkpoint, engine, tmp_path, waveforms):
    folder = tmp_path / "recordings"
    folder.mkdir()
    for index, waveform in enumerate(waveforms[:4]):
        soundfile.write(folder / f"{index}.wav", waveform, RATE, subtype="FLOAT")
    soundfile.write(folder / "9.wav", np.zeros(99), RATE)
    output = tmp_path / "out.jsonl"
    run = tritone_process(
        "transcribe", folder, "--model", ctc_checkpoint, "--output", output, "--device", "cpu", "--threads", 1
    )
    assert run.returncode == 1
    assert f"{folder / '9.wav'}: a recording of 99 samples is too short" in run.stderr
    *good, bad = records(output)
    wanted = [engine.submit(waveform).result(SOON) for waveform in waveforms[:4]]
    assert [record["text"] for record in good] == [result.text for result in wanted]
    assert [record["score"] for record in good] == [result.score for result in wanted]
    for record, result in zip(good, wanted, strict=True):
        assert record["words"] == [
            {
                "word": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "confidence": round(word.confidence, 3),
            }
            for word in result.words
        ]
        assert record["words"]
    assert (bad["text"], bad["error"] is None) == (None, False)


def test_the_command_refuses_beams_of_a_ctc_model(ctc_checkpoint, tmp_path, waveforms):
    path = tmp_path / "a.wav"
    soundfile.write(path, waveforms[0], RATE)
    run = tritone_process("transcribe", path, "--model", ctc_checkpoint, "--num-beams", 4)
    assert run.returncode == 2
    assert "num_beams=4 is for models that decode token by token" in run.stderr
    assert "Traceback" not in run.stderr
