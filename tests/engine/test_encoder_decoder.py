"""A speech encoder with a text decoder in the engine, whose recordings no table of positions bounds."""

import numpy as np
import pytest
from encoder_decoders import write_checkpoint

import tritone
from tritone.engine.audio.reader import AudioError

SOON = 60  # seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("encoder-decoder"))


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
