"""Recordings of nothing: too short for a frame, silent, constant, faint or loud, in every family and dtype.

The table in docs/errors.md says the same.
"""

import json
import math
from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from commands import records, tritone_invoke
from factories import (
    LETTERS,
    seeded,
    tiny_bert_config,
    tiny_speech_to_text_config,
    tiny_wav2vec2_config,
    write_vocabulary,
)
from torch.nn.init import xavier_normal_

import tritone
from tritone.engine.audio.reader import AudioError
from tritone.models.speech_encoder_decoder.config import SpeechEncoderDecoderConfig
from tritone.models.speech_encoder_decoder.model import SpeechEncoderDecoderModel

RATE = 16_000
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
NOISE = np.random.default_rng(0).standard_normal(RATE)
QUIET = {
    "silence": np.zeros(RATE),
    "silence as PCM": np.zeros(RATE, np.int16),
    "constant": np.full(RATE, 0.3),
    "full scale": np.full(RATE, 1.0),
    "faint": 1e-30 * NOISE,
    "below the least normal number": 1e-42 * NOISE,
    "a click": np.eye(1, RATE, 500)[0],
    "half silence": np.concatenate([np.zeros(RATE // 2), NOISE[: RATE // 2]]),
}
LOUD = {"loud": 6e4 * np.sin(np.arange(RATE)), "too loud for float16": 1e6 * np.sin(np.arange(RATE))}
FAMILIES = ["Wav2Vec2", "Hubert", "UniSpeech", "UniSpeechSat", "SEW", "SEWD"]
JOBS = [
    "Speech2Text",
    "SpeechEncoderDecoder",
    *(f"{family}For{head}" for family in FAMILIES for head in ("CTC", "SequenceClassification")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tokenizers")


def make(job: str, folder, norm: str = "group", normalize: bool = True):
    """A model with random weights, and its processor."""
    if job == "Speech2Text":
        vocabulary = write_vocabulary(folder, [])
        tokenizer = tritone.Speech2TextTokenizer(folder / "vocab.json", folder / "sentencepiece.bpe.model")
        processor = tritone.Speech2TextProcessor(tritone.Speech2TextFeatureExtractor(), tokenizer)
        config = tiny_speech_to_text_config(vocab_size=vocabulary)
        return seeded(tritone.Speech2TextForConditionalGeneration, config), processor
    extractor = tritone.Wav2Vec2FeatureExtractor(do_normalize=normalize)
    if job == "SpeechEncoderDecoder":
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "zero", "one", "two"]
        (folder / "vocab.txt").write_text("\n".join(tokens))
        config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
            tiny_wav2vec2_config(feat_extract_norm=norm), tiny_bert_config(vocab_size=len(tokens))
        )
        config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
        processor = tritone.Wav2Vec2Processor(extractor, tritone.BertTokenizer(folder / "vocab.txt"))
        return seeded(partial(SpeechEncoderDecoderModel, config=config)), processor
    family = job.split("For")[0]
    fields = {"position_buckets": 4, "max_position_embeddings": 9} if family == "SEWD" else {}
    config = tiny_wav2vec2_config(getattr(tritone, f"{family}Config"), feat_extract_norm=norm, **fields)
    model = seeded(getattr(tritone, job), config, init=partial(xavier_normal_, gain=1.5))
    if not job.endswith("CTC"):
        return model, extractor
    (folder / "letters.json").write_text(json.dumps({letter: index for index, letter in enumerate(LETTERS)}))
    tokenizer = tritone.Wav2Vec2CTCTokenizer(folder / "letters.json")
    return model, tritone.Wav2Vec2Processor(extractor, tokenizer)


def results_of(engine, sources, **options):
    if type(engine.model).__name__.endswith("Classification"):
        return list(engine.classify(sources, **options))
    if not type(engine.model).__name__.endswith("CTC"):
        options["max_new_tokens"] = 6
    return list(engine.transcribe(sources, **options))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("job", JOBS)
def test_silence_and_its_like_have_a_result(job, dtype, folder):
    for norm, normalize in [("group", True), ("layer", False)]:
        model, processor = make(job, folder, norm, normalize)
        with tritone.Engine(model.to(dtype), processor=processor) as engine:
            found = dict(zip(QUIET | LOUD, results_of(engine, (QUIET | LOUD).values()), strict=True))
        if dtype is torch.float16 and not normalize and job != "Speech2Text":
            assert "float16" in str(found.pop("too loud for float16").error)
            found.pop("loud")  # as the weights say
        assert {name: result.error for name, result in found.items() if result.error is not None} == {}
        for result in found.values():
            for label in getattr(result, "labels", ()):
                assert math.isfinite(label.score)
            assert getattr(result, "score", None) is None or math.isfinite(result.score)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("job", JOBS)
def test_too_short_fails_or_is_empty_with_a_warning(job, dtype, folder):
    model, processor = make(job, folder)
    sources = [np.zeros(0), np.zeros((0, 2)), np.zeros(1), np.zeros(80), np.zeros(RATE)]
    with tritone.Engine(model.to(dtype), processor=processor) as engine:
        assert [type(one.error).__mro__[1] for one in results_of(engine, sources[:4])] == [AudioError] * 4
        *short, long = results_of(engine, sources, short="empty")
        bad = results_of(engine, [np.full(80, np.nan), np.full(80, np.inf), "gone.wav"], short="empty")
        stats = engine.stats()
    for result, source in zip(short, sources, strict=False):
        assert result == type(result)(
            **({"labels": ()} if job.endswith("Classification") else {"text": "", "token_ids": ()}),
            **({"words": (), "characters": ()} if job.endswith("CTC") else {}),
            finish_reason="stop",
            duration=len(source) / RATE,
            warnings=result.warnings,
        )
        (warning,) = result.warnings
        assert warning.endswith(": no result")
    assert (long.error, long.warnings) == (None, ())
    assert all(isinstance(result.error, AudioError) for result in bad)
    assert (stats.finished, stats.failed) == (5, 7)


@pytest.mark.parametrize("line_format", ["jsonl", "text"])
def test_the_command_writes_an_empty_result_that_counts_as_done(
    line_format, ctc_checkpoint, waveforms, tmp_path
):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "b.wav", waveforms[0], RATE)
    (tmp_path / "c.wav").touch()
    output = tmp_path / "out"
    arguments = ["transcribe", tmp_path, "--model", ctc_checkpoint, "--device", "cpu", "--output", output]
    arguments += ["--format", line_format]
    assert tritone_invoke(*arguments, "--short", "fail").exit_code == 1
    output.unlink()
    (tmp_path / "c.wav").unlink()
    run = tritone_invoke(*arguments, "--short", "empty")
    assert run.exit_code == 0
    assert run.stderr.count("warning: ") == 1
    assert f"{tmp_path / 'a.wav'}: holds no samples: no result" in run.stderr
    if line_format == "jsonl":
        empty, good = records(output)
        assert (empty["text"], empty["error"], empty["finish_reason"]) == ("", None, "stop")
        assert empty["warnings"] == [f"{tmp_path / 'a.wav'}: holds no samples: no result"]
        assert "warnings" not in good
    else:
        assert output.read_text().splitlines()[1] == f"{tmp_path / 'a.wav'}\t"
    assert "goes on: 2 of 2" in tritone_invoke(*arguments, "--short", "empty").stderr
    refused = tritone_invoke(*arguments, "--short", "fail")
    assert refused.exit_code == 2
    assert "short empty" in refused.stderr


def test_a_classifier_with_an_empty_recording_has_no_labels(audio_classifier, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(9), RATE)
    options = "--model", audio_classifier, "--device", "cpu", "--short", "empty", "--format", "jsonl"
    run = tritone_invoke("classify", tmp_path / "a.wav", *options)
    record = json.loads(run.stdout)
    assert (run.exit_code, record["labels"], record["error"]) == (0, [], None)


def test_texts_have_no_such_options(texts, text_classifier):
    for name, value in {"channel": 0, "encoding": "mulaw", "short": "empty", "sampling_rate": 8000}.items():
        with pytest.raises(ValueError, match=f"{name} .* is of recordings"):
            texts.submit("one", **{name: value})
    with pytest.raises(ValueError, match="channels 'split' is of recordings"):
        texts.classify(["one"], channels="split")
    arguments = "classify", "--text", "one", "--model", text_classifier, "--channels", "split"
    run = tritone_invoke(*arguments)
    assert run.exit_code == 2
    assert "--channels is of recordings" in run.stderr
