"""Tokenizers: transcripts decoded, texts encoded."""

from pathlib import Path

import pytest

import tritone

DIGITS = Path(__file__).parents[2] / "models" / "digits"
TEXT = "one two three four five six seven eight nine zero " * 4


@pytest.fixture(scope="module")
def tokenizer():
    """The SentencePiece tokenizer of the digits model."""
    return tritone.AutoTokenizer.from_pretrained(DIGITS)


def test_encode(benchmark, tokenizer) -> None:
    assert benchmark(lambda: tokenizer(TEXT).input_ids)


def test_decode(benchmark, tokenizer) -> None:
    token_ids = tokenizer(TEXT).input_ids
    text = benchmark(tokenizer.decode, token_ids, skip_special_tokens=True)
    assert text.split() == TEXT.split()


def test_ctc_path(benchmark, tmp_path) -> None:
    """A CTC best path of 20 s at 20 ms a frame, with the times of words."""
    letters = {
        letter: index for index, letter in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGH"])
    }
    (tmp_path / "vocab.json").write_text(str(letters).replace("'", '"'))
    tokenizer = tritone.Wav2Vec2CTCTokenizer(tmp_path / "vocab.json")
    path = [5, 5, 0, 6, 0, 4, 7, 7, 0, 0] * 100
    assert benchmark(tokenizer.decode, path, output_word_offsets=True).word_offsets
