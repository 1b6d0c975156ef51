"""Compression ratios against those of openai (in its formula) and transformers."""

import zlib

import pytest
import torch

from tritone.models.whisper.compression import text_compression_ratio, token_compression_ratio

generation = pytest.importorskip("transformers.models.whisper.generation_whisper")


@pytest.mark.parametrize("vocab_size", [255, 256, 300, 51864, 51866, 70000])
@pytest.mark.parametrize("tokens", [[], [5], [7, 9] * 40, list(range(200))], ids=len)
def test_the_ratio_of_tokens_is_that_of_transformers(tokens, vocab_size):
    theirs = generation.WhisperGenerationMixin._retrieve_compression_ratio(
        torch.tensor(tokens, dtype=torch.int64), vocab_size
    )
    assert token_compression_ratio(tokens, vocab_size) == theirs


def test_the_ratio_of_a_text_is_that_of_its_bytes_and_grows_with_repetition():
    text = "Ça va. " * 20
    written = text.encode("utf-8")
    assert text_compression_ratio(text) == len(written) / len(zlib.compress(written)) > 2.4
    assert text_compression_ratio("Ask not what your country can do for you.") < 1
    assert text_compression_ratio("") == 0
