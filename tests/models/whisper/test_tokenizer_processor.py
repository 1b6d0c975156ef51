"""Whisper's processor: audio, text and prompts, beside transformers'."""

import numpy as np
import pytest
from whisper_tokenizers import TEXTS, load_both, write_slow_files

from tritone.models.speech_to_text.feature_extractor import Speech2TextFeatureExtractor
from tritone.models.whisper.processor import WhisperProcessor

transformers = pytest.importorskip("transformers")
AUDIO = [np.zeros(4000, dtype=np.float32), np.ones(3000, dtype=np.float32)]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    ours, theirs = load_both(write_slow_files(tmp_path_factory.mktemp("whisper")))
    extractor = transformers.WhisperFeatureExtractor()
    # Any feature extractor serves to test where inputs go.
    return WhisperProcessor(Speech2TextFeatureExtractor(), ours), transformers.WhisperProcessor(
        extractor, theirs
    )


def test_texts_and_prompts_go_through_the_tokenizer_as_in_transformers(both):
    ours, theirs = both
    options = {"task": "transcribe", "language": "german"}
    assert ours.get_decoder_prompt_ids(**options) == theirs.get_decoder_prompt_ids(**options)
    ids = theirs(text=TEXTS).input_ids
    assert ours(text=TEXTS).input_ids == ids
    for decoding in ({}, {"skip_special_tokens": True}, {"decode_with_timestamps": True}):
        assert ours.batch_decode(ids, **decoding) == theirs.batch_decode(ids, **decoding)
    np.testing.assert_array_equal(ours.get_prompt_ids("ask not"), theirs.get_prompt_ids("ask not"))
    assert ours.get_prompt_ids("ask", return_tensors=None) == theirs.get_prompt_ids("ask").tolist()


def test_audio_and_text_together_make_features_and_labels(both):
    ours, _ = both
    batch = ours(AUDIO, sampling_rate=16000, text=["ask", "what"], padding=True, return_tensors="pt")
    assert batch.input_features.shape[0] == 2
    assert batch.labels.tolist() == ours.tokenizer(["ask", "what"], padding=True).input_ids
    with pytest.raises(ValueError, match="give audio, text or both"):
        ours(sampling_rate=16000)
