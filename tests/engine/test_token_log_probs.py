"""Log-probabilities of tokens: those of transformers, which zip with the tokens, alone and among others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from encoder_decoders import write_checkpoint as write_encoder_decoder
from whisper_checkpoints import recording, write_whisper_checkpoint
from whisper_tokenizers import english_folder

import tritone
from tritone.engine.audio.reader import load_audio

SAMPLES = Path(__file__).parents[2] / "samples" / "english"
SOON = 60  # seconds
GREEDY = {"token_log_probs": True, "num_beams": 1, "suppress_tokens": [1]}  # padding would be no position
SAMPLED = {**GREEDY, "do_sample": True, "seed": 3, "temperature": 1.3, "top_k": 0}


@pytest.fixture(scope="module")
def speech_to_text(checkpoint):
    with tritone.Engine(checkpoint, device="cpu", num_rows=8) as engine:
        yield engine


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    folder = write_whisper_checkpoint(tmp_path_factory.mktemp("whisper"))
    with tritone.Engine(folder, device="cpu", num_rows=8) as engine:
        yield engine


def forced(model: Any, inputs: dict[str, torch.Tensor], ids: tuple[int, ...]) -> list[float]:
    """Log-probabilities under a model of transformers of each token behind the first."""
    given = torch.tensor([ids])
    with torch.inference_mode():
        logits = model(**inputs, decoder_input_ids=given[:, :-1]).logits
    return logits.log_softmax(-1)[0].gather(1, given[0, 1:, None])[:, 0].tolist()


def generated(model: Any, features: torch.Tensor, **options: Any) -> tuple[list[int], list[float]]:
    """Sequence and log-probabilities of its generated tokens, after the rules, of transformers' Whisper.

    `compute_transition_scores` sums a vocabulary one by one in float32, which is 5e-4 off for 50,000 tokens.
    """
    with torch.inference_mode():
        found = model.generate(features, output_scores=True, return_dict_in_generate=True, **options)
    tokens = found.sequences[0].tolist()
    steps = zip(found.scores, tokens[-len(found.scores) :], strict=True)
    return tokens, [float(scores[0].double().log_softmax(-1)[token]) for scores, token in steps]


@pytest.mark.parametrize("options", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_each_of_many_at_once_has_the_log_probabilities_of_transformers(
    speech_to_text, checkpoint, waveforms, options
):
    theirs = transformers.Speech2TextForConditionalGeneration.from_pretrained(checkpoint).eval()
    waveforms = waveforms[:10]
    results = list(speech_to_text.transcribe(waveforms, **options))
    for result, waveform in zip(results, waveforms, strict=True):
        inputs = speech_to_text.processor(waveform, sampling_rate=16_000, return_tensors="pt")
        assert len(result.token_log_probs) == len(result.token_ids) - 1, "all behind the start token"
        assert result.token_log_probs == pytest.approx(forced(theirs, inputs, result.token_ids), abs=1e-4)
        assert result.score == pytest.approx(np.mean(result.token_log_probs), abs=1e-5)
    assert len({len(result.token_ids) for result in results}) > 3
    for result, waveform in zip(results[:5], waveforms, strict=False):
        assert speech_to_text.submit(waveform, **options).result(SOON) == result, "bits of the numbers too"


def test_the_log_probabilities_of_an_encoder_with_a_decoder_are_the_models_own(tmp_path, waveforms):
    folder = write_encoder_decoder(tmp_path)
    theirs = transformers.SpeechEncoderDecoderModel.from_pretrained(folder).eval()
    with tritone.Engine(folder, device="cpu", num_rows=4) as engine:
        result = engine.submit(waveforms[0], max_new_tokens=6, **GREEDY).result(SOON)
        inputs = engine.processor(waveforms[0], sampling_rate=16_000, return_tensors="pt")
    wanted = forced(theirs, {"input_values": inputs.input_values}, result.token_ids)
    assert result.token_log_probs == pytest.approx(wanted, abs=1e-4)


def test_those_of_whisper_are_after_its_rules_as_in_transformers(whisper, tmp_path):
    whisper.model.save_pretrained(tmp_path)
    whisper.model.generation_config.save_pretrained(tmp_path)
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path).eval()
    for seed, seconds in enumerate((0.9, 0.4, 1.0)):
        sound = recording(seconds, seed)
        result = whisper.submit(sound, language="en", token_log_probs=True).result(SOON)
        features = whisper.processor.feature_extractor(sound, sampling_rate=16_000, return_tensors="pt")
        sequence, wanted = generated(theirs, features.input_features, language="en", task="transcribe")
        count = len(result.token_log_probs)
        assert list(result.token_ids[-count:]) == sequence[-count:]
        assert result.token_log_probs == pytest.approx(wanted[-count:], abs=1e-4)
        assert result.score == pytest.approx(np.mean(result.token_log_probs), abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"windows": "pauses"}, {"return_timestamps": True, "word_timestamps": False}, {"temperature": 0.7}],
    ids=["sequential", "pauses", "times", "sampled"],
)
def test_those_of_windows_zip_with_the_tokens_of_segments(whisper, options):
    sounds = [recording(seconds, seed) for seed, seconds in enumerate((2.6, 0.7))]
    options = {"language": "en", "seed": 2, **options}
    together = list(whisper.transcribe(sounds, token_log_probs=True, **options))
    for result, sound in zip(together, sounds, strict=True):
        assert whisper.submit(sound, token_log_probs=True, **options).result(SOON) == result
        if result.segments is None:
            continue
        assert len(result.token_log_probs) == len(result.token_ids)
        assert result.token_log_probs == sum((one.token_log_probs for one in result.segments), ())
        assert all(len(one.token_log_probs) == len(one.token_ids) for one in result.segments)
        assert all(one <= 0 for one in result.token_log_probs)
    assert together[0].segments
    plain = whisper.submit(sounds[0], **options).result(SOON)
    assert plain.token_log_probs is None
    assert all(one.token_log_probs is None for one in plain.segments)
    assert plain.token_ids == together[0].token_ids


def test_those_of_pieces_zip_with_the_tokens_of_segments(speech_to_text, waveforms):
    long = np.concatenate([np.concatenate([one, np.zeros(8_000, np.float32)]) for one in waveforms[:4]])
    result = speech_to_text.submit(long, max_window=2.5, **GREEDY).result(SOON)
    assert len(result.segments) > 1
    assert len(result.token_log_probs) == len(result.token_ids)
    for one in result.segments:
        assert len(one.token_log_probs) == len(one.token_ids)
        assert speech_to_text.processor.decode(one.token_ids) == one.text


def test_those_of_a_window_that_was_decoded_again_are_of_the_attempt_that_was_kept(whisper):
    sound = recording(0.9, seed=4)
    options = {"language": "en", "token_log_probs": True}
    again = {"temperature": [0.0, 0.8], "logprob_threshold": -0.001}
    result = whisper.submit(sound, seed=5, **again, **options).result(SOON)
    assert [one.temperature for one in result.segments] == [0.8]
    alone = whisper.submit(sound, seed=5 + 7919, temperature=0.8, **options).result(SOON)  # its own draws
    count = len(result.token_ids)
    assert count >= len(alone.token_log_probs) - 1 > 0, "all but the end token"
    assert result.token_ids == alone.token_ids[-len(alone.token_log_probs) :][:count]
    assert result.token_log_probs == alone.token_log_probs[:count]


def test_a_journal_brings_them_back(whisper, tmp_path):
    sound, path = recording(3.2, seed=1), tmp_path / "journal"
    options = {"language": "en", "journal": path}
    result = whisper.submit(sound, token_log_probs=True, **options).result(SOON)
    whole, before = path.read_bytes(), whisper.stats().tokens_generated
    assert whisper.submit(sound, token_log_probs=True, **options).result(SOON) == result
    assert whisper.stats().tokens_generated == before
    assert path.read_bytes() == whole
    assert whisper.submit(sound, **options).result(SOON).token_log_probs is None
    assert path.read_bytes() != whole, "another option is another request"


def test_beam_search_refuses_them_with_the_remedy(speech_to_text, whisper, waveforms):
    for engine in (speech_to_text, whisper):
        with pytest.raises(ValueError, match=r"num_beams is 3: beams share .*; give num_beams=1 too"):
            engine.submit(waveforms[0], token_log_probs=True, num_beams=3)
        with pytest.raises(ValueError, match="token_log_probs must be True or False, got 'yes'"):
            engine.submit(waveforms[0], token_log_probs="yes")
        assert engine.submit(waveforms[0], token_log_probs=False, num_beams=3).result(SOON).text is not None
    with pytest.raises(ValueError, match="num_beams is 2"):
        whisper.submit(waveforms[0], token_log_probs=True, num_beams=2, temperature=[0.4, 0.0])
    sampled = whisper.submit(waveforms[0], token_log_probs=True, num_beams=2, temperature=0.4).result(SOON)
    assert sampled.token_log_probs


def test_models_without_generation_refuse_them_by_name(ctc_checkpoint, audio, waveforms, speech_to_text):
    with tritone.Engine(ctc_checkpoint, device="cpu") as engine:
        with pytest.raises(ValueError, match=r"token_log_probs=True is for models that decode .*confidence"):
            engine.submit(waveforms[0], token_log_probs=True)
        assert engine.submit(waveforms[0], token_log_probs=False).result(SOON).token_log_probs is None
    with pytest.raises(ValueError, match="unknown option 'token_log_probs'"):
        audio.submit(waveforms[0], token_log_probs=True)
    with pytest.raises(ValueError, match="unknown generation option 'token_log_probs'"):
        speech_to_text.model.generate(torch.zeros(1, 9, 80), token_log_probs=True)


@pytest.mark.slow
def test_real_speech_has_the_log_probabilities_of_transformers(tmp_path):
    sound = load_audio(SAMPLES / "weather_22k.flac", 16_000).samples
    with tritone.Engine(english_folder(), device="cpu") as engine:
        result = engine.submit(sound, token_log_probs=True).result(SOON)
        features = engine.processor.feature_extractor(sound, sampling_rate=16_000, return_tensors="pt")
        engine.model.save_pretrained(tmp_path)
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path).eval()
    sequence, wanted = generated(theirs, features.input_features)
    count = len(result.token_log_probs)
    assert count > 20
    assert list(result.token_ids[-count:]) == sequence[-count:]
    assert result.token_log_probs == pytest.approx(wanted[-count:], abs=1e-4)
