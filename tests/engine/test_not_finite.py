"""Damaged weights: scores that are NaN or infinite are the request's error, in every kind of search."""

import itertools
import json
import math

import pytest
import torch
from commands import records, tritone_invoke
from factories import write_checkpoint

import tritone
from tritone.engine.tasks.generation import TokenProcessor
from tritone.scheduler.request import FinishReason, Hypothesis, RequestOutput

SOON = 60  # seconds
INF = math.inf
SEARCHES = {
    "greedy": {},
    "greedy with rules": {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2},
    "renormalized": {"renormalize_logits": True},
    "sampling": {"do_sample": True},
    "sampling with warping": {"do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": 0.9},
    "beams": {"num_beams": 3},
    "beams with rules": {"num_beams": 3, "no_repeat_ngram_size": 2},
    "renormalized beams": {"num_beams": 3, "renormalize_logits": True},
    "sampled beams": {"num_beams": 2, "do_sample": True, "top_k": 7},
}


def damaged(checkpoint, place: str, value: float):
    """The model of a checkpoint with one element of one parameter replaced, and its processor."""
    model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint)
    with torch.no_grad():
        model.get_parameter(place).view(-1)[0] = value
    return model, tritone.AutoProcessor.from_pretrained(checkpoint)


@pytest.mark.parametrize("options", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("model.encoder.layers.0.fc1.weight", math.nan),
        ("model.encoder.layers.1.fc2.bias", INF),
        ("model.decoder.layers.0.encoder_attn.k_proj.weight", math.nan),
        ("model.decoder.layers.1.final_layer_norm.bias", -INF),
        ("lm_head.weight", math.nan),
        ("lm_head.weight", INF),
    ],
)
def test_one_damaged_weight_is_the_error_of_every_search(checkpoint, waveforms, place, value, options):
    model, processor = damaged(checkpoint, place, value)
    with tritone.Engine(model, processor=processor, num_rows=6) as engine:
        for result in engine.transcribe(waveforms[:3], **options):
            assert (result.text, result.finish_reason, result.score) == ("", "error", None)
            assert isinstance(result.error, RuntimeError)
            assert "weights are damaged" in str(result.error)
        stats = engine.stats()
        assert (stats.failed, stats.finished) == (3, 0)


def test_a_number_that_goes_bad_in_a_later_step_is_an_error_too(checkpoint, waveforms, monkeypatch):
    model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint)
    decode, steps = model.decode, itertools.count()

    def late(*given):
        logits = decode(*given)
        if next(steps) == 4:
            logits[0, 7] = math.nan
        return logits

    monkeypatch.setattr(model, "decode", late)
    processor = tritone.AutoProcessor.from_pretrained(checkpoint)
    for options in SEARCHES.values():
        steps = itertools.count()
        with tritone.Engine(model, processor=processor, num_rows=6) as engine:
            results = [
                engine.submit(waveform, min_length=8, max_length=12, **options).outcome(SOON)
                for waveform in waveforms[:2]
            ]
        assert [result.error is None for result in results] == [False, True]
        assert math.isfinite(results[1].score)


def test_a_stream_raises_at_its_end(checkpoint, waveforms):
    model, processor = damaged(checkpoint, "lm_head.weight", math.nan)
    with tritone.Engine(model, processor=processor) as engine:
        handle = engine.submit(waveforms[0])
        with pytest.raises(RuntimeError, match="not finite"):
            list(handle)
        with pytest.raises(RuntimeError, match="float32 or bfloat16"):
            handle.result(SOON)


@pytest.mark.parametrize("options", SEARCHES.values(), ids=SEARCHES)
def test_options_that_leave_no_token_are_an_error_of_their_own(engine, waveforms, options):
    every = list(range(engine.model.config.vocab_size))
    handle = engine.submit(waveforms[0], suppress_tokens=every, **options)
    # The log-softmax of a row of -inf is NaN, like the scores of damaged weights.
    renormalized = options.get("renormalize_logits")
    with pytest.raises(RuntimeError if renormalized else ValueError, match=r"finite|forbid every token"):
        handle.result(SOON)
    assert engine.submit(waveforms[0], suppress_tokens=every[4:], **options).result(SOON).error is None


def test_only_a_score_that_is_not_finite_is_an_error():
    processor = TokenProcessor(type("Tokenizer", (), {"clean_up_tokenization_spaces": False}))

    def error_of(tokens, score):
        best = Hypothesis(tokens, score, FinishReason.STOP)
        return type(processor.error_of(RequestOutput(0, (best,), FinishReason.STOP)))

    assert error_of((2, 5), -0.5) is error_of((2, 5), 0.0) is error_of((2, 5), -3e38) is type(None)
    assert error_of((2, 5), math.nan) is error_of((2, 5), INF) is RuntimeError
    assert error_of((2, 5), -INF) is error_of((), -1e9) is ValueError
    assert processor.error_of(RequestOutput(0, (), FinishReason.CANCELLED)) is None


@pytest.mark.parametrize("value", [math.nan, INF])
def test_a_damaged_ctc_model_fails(ctc_checkpoint, waveforms, value):
    model = tritone.AutoModelForCTC.from_pretrained(ctc_checkpoint)
    with torch.no_grad():
        model.lm_head.bias[9] = value
    processor = tritone.AutoProcessor.from_pretrained(ctc_checkpoint)
    with tritone.Engine(model, processor=processor) as engine:
        (result,) = engine.transcribe(waveforms[:1])
        assert (result.text, result.token_ids, result.score, result.words) == ("", (), None, None)
        assert "weights are damaged" in str(result.error)
        assert engine.stats().failed == 1


def test_generate_gives_tokens_as_transformers_does(checkpoint, waveforms):
    model, processor = damaged(checkpoint, "lm_head.weight", math.nan)
    inputs = processor(waveforms[0], sampling_rate=16_000, return_tensors="pt")
    assert model.generate(inputs.input_features, max_length=5).shape[0] == 1


def test_the_command_exits_with_1_writes_strict_json_and_tries_again(tmp_path, waveforms):
    import soundfile

    folder = write_checkpoint(tmp_path)
    whole = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(folder)
    damaged(folder, "lm_head.weight", math.nan)[0].save_pretrained(folder)
    recording, output = tmp_path / "a.wav", tmp_path / "out.jsonl"
    soundfile.write(recording, waveforms[0], 16_000)
    arguments = "transcribe", recording, "--model", folder, "--device", "cpu", "--output", output
    assert tritone_invoke(*arguments).exit_code == 1
    (line,) = output.read_text().splitlines()
    record = json.loads(line, parse_constant=pytest.fail)
    assert (record["text"], record["score"]) == (None, None)
    assert "weights are damaged" in record["error"]
    whole.save_pretrained(folder)
    assert tritone_invoke(*arguments).exit_code == 0
    assert [record["error"] for record in records(output)] == [None]


def test_a_line_with_nan_of_an_earlier_version_is_tried_again(tmp_path, checkpoint, waveforms):
    import soundfile

    recording, output = tmp_path / "a.wav", tmp_path / "out.jsonl"
    soundfile.write(recording, waveforms[0], 16_000)
    arguments = "transcribe", recording, "--model", checkpoint, "--device", "cpu", "--output", output
    assert tritone_invoke(*arguments).exit_code == 0
    good = output.read_text()
    output.write_text(json.dumps({**json.loads(good), "text": "", "score": math.nan}) + "\n")
    assert tritone_invoke(*arguments).exit_code == 0
    assert output.read_text() == good
