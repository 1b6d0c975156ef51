"""A speech encoder with a text decoder in the engine, whose recordings no table of positions bounds."""

from functools import partial

import numpy as np
import pytest
from factories import seeded, tiny_bert_config, tiny_wav2vec2_config

import tritone
from tritone.engine.audio.reader import AudioError
from tritone.models.speech_encoder_decoder.config import SpeechEncoderDecoderConfig
from tritone.models.speech_encoder_decoder.model import SpeechEncoderDecoderModel

SOON = 60  # seconds
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "zero", "one", "two", "three", "##teen", "##ty"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder-decoder")
    (folder / "vocab.txt").write_text("\n".join(TOKENS))
    tritone.BertTokenizer(folder / "vocab.txt").save_pretrained(folder)
    tritone.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    decoder = tiny_bert_config(
        vocab_size=len(TOKENS),
        hidden_size=20,
        num_attention_heads=2,
        intermediate_size=30,
        max_position_embeddings=40,
    )
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        tiny_wav2vec2_config(vocab_size=32), decoder
    )
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    model = seeded(partial(SpeechEncoderDecoderModel, config=config), seed=4)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "seed": 7}])
def test_each_of_twenty_at_once_has_the_tokens_that_generate_finds_for_it_alone(folder, waveforms, options):
    options = {"max_new_tokens": 8, **options}
    model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(folder)
    processor = tritone.AutoProcessor.from_pretrained(folder)
    with tritone.Engine(folder, device="cpu", num_rows=8) as engine:
        results = list(engine.transcribe(waveforms, **options))
    assert len({result.token_ids for result in results}) > 3  # or the weights would say nothing
    for result, waveform in zip(results, waveforms, strict=True):
        inputs = processor(waveform, sampling_rate=16_000, return_tensors="pt")
        ids = tuple(model.generate(inputs.input_values, **options)[0].tolist())
        assert result.token_ids == ids
        assert result.text == processor.decode(ids, skip_special_tokens=True)
        assert result.words is None


def test_a_cache_of_default_size_holds_the_longest_recording_that_memory_allows(
    folder, waveforms, monkeypatch
):
    monkeypatch.setattr(
        "tritone.engine.audio.limits._memory", lambda device: 4 * 3 * (12 / 10) * 4 * 16_000 * 30
    )
    with tritone.Engine(folder, device="cpu", num_rows=2) as engine:
        longest = np.tile(waveforms[0], 99)[: 30 * 16_000]
        options = {"num_beams": 2, "max_new_tokens": 4, "max_window": 29.99}
        assert len(engine.submit(longest[:-160], **options).result(SOON).token_ids) <= 5
        with pytest.raises(ValueError, match=r"max_window is 31; it must be .* to 29\.9, the longest"):
            engine.submit(longest, max_window=31)
        with pytest.raises(AudioError, match="300 samples is too short: this model needs 332 at least"):
            engine.submit(waveforms[0][:300]).result(SOON)
