"""Workload of the engine's benchmarks: models with random weights, recordings and texts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import tritone
from tritone.kernels.features.fbank import frame_count

from .shapes import RATE, durations

TOKENS_PER_SECOND = 3.4
BINS = 80
# Recordings are slices of one long noise: 20,000 separate ones would take 16 GB.
NOISE_SECONDS = 180.0


def _both(attention_heads: int, ffn_dim: int, **more: int) -> dict[str, int]:
    """Sizes that encoder and decoder share, as fields of the configuration."""
    shared = {"attention_heads": attention_heads, "ffn_dim": ffn_dim, **more}
    return {f"{half}_{name}": value for half in ("encoder", "decoder") for name, value in shared.items()}


# Speech2Text with 12 encoder and 6 decoder layers; "tiny" is for smoke runs, "narrow" for counts of launches.
SIZES: dict[str, dict[str, int]] = {
    "small": {},
    "medium": {"d_model": 512, **_both(8, 2048)},
    "large": {"d_model": 1024, **_both(16, 4096)},
    "narrow": {"d_model": 32, **_both(2, 64), "conv_channels": 32, "vocab_size": 300},
    "tiny": {"d_model": 32, **_both(2, 64, layers=2), "conv_channels": 32, "vocab_size": 300},
}


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording: its waveform, features and number of tokens to generate."""

    seconds: float
    waveform: np.ndarray  # float32 [samples] at 16 kHz
    features: Tensor  # float32 [frames, 80], random: their values do not change the cost
    tokens: int


@dataclass(frozen=True, slots=True)
class Text:
    """One text of made-up words, a token each."""

    text: str
    tokens: int  # with the two that a tokenizer puts around it


def made_up_texts(vocabulary: Sequence[str], shortest: int, longest: int, count: int) -> list[Text]:
    """`count` texts of `shortest` to `longest` tokens in a fixed random order, their lengths a geometric
    sequence: short texts are more frequent."""
    rng = np.random.default_rng(0)
    lengths = np.geomspace(shortest, longest, count).round().astype(int)
    rng.shuffle(lengths)
    return [Text(" ".join(rng.choice(vocabulary, tokens - 2)), int(tokens)) for tokens in lengths]


class Recordings:
    """Recordings of noise with a slow envelope, as loud as speech."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        axis = np.arange(int(NOISE_SECONDS * RATE), dtype=np.float32) / RATE
        envelope = 0.05 * (1.1 + np.sin(2 * np.pi * 3 * axis))
        self._noise = envelope * self._rng.standard_normal(len(axis), dtype=np.float32)
        self._features = torch.from_numpy(
            self._rng.standard_normal((int(NOISE_SECONDS * 100), BINS), np.float32)
        )

    def lasting(self, seconds: Sequence[float]) -> list[Recording]:
        """One recording for each length, at most 120 s."""
        return [self._one(length) for length in seconds]

    def evenly(self, shortest: float, longest: float, count: int) -> list[Recording]:
        """`count` recordings of `shortest` to `longest` seconds, evenly spaced, in a fixed random order."""
        lengths = np.linspace(shortest, longest, count)
        np.random.default_rng(0).shuffle(lengths)
        return self.lasting(lengths.tolist())

    def like_librispeech(self, count: int, scale: float = 1.0) -> list[Recording]:
        """`count` recordings of LibriSpeech's lengths, from 1.3 to 35 s with mean 12.3, times `scale`."""
        return self.lasting([scale * length for length in durations(count)])

    def _one(self, seconds: float) -> Recording:
        samples = round(seconds * RATE)
        frames = frame_count(samples, RATE)
        start = int(self._rng.integers(len(self._noise) - samples))
        first = int(self._rng.integers(len(self._features) - frames))
        return Recording(
            seconds=samples / RATE,
            waveform=self._noise[start : start + samples],
            features=self._features[first : first + frames],
            tokens=max(round(TOKENS_PER_SECOND * seconds), 1),
        )


def config_of(size: str) -> tritone.Speech2TextConfig:
    """The configuration of one of `SIZES`."""
    return tritone.Speech2TextConfig(**SIZES[size])


def build_model(
    size: str, device: torch.device, dtype: torch.dtype
) -> tritone.Speech2TextForConditionalGeneration:
    """A model with random weights, ready to run."""
    torch.manual_seed(0)
    with torch.device(device):
        model = tritone.Speech2TextForConditionalGeneration(config_of(size))
    return model.to(device=device, dtype=dtype).eval()


def write_processor(folder: Path, vocabulary: int) -> None:
    """Write a processor with `vocabulary` made-up words, in files that both libraries read. Most words are no
    pieces of the SentencePiece model, which stays small: decoding takes as long.

    Raises:
        ImportError: sentencepiece is not installed.
    """
    import sentencepiece

    words = made_up_words(vocabulary)
    (folder / "words.txt").write_text("\n".join(words[:2000]))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "words.txt"),
        model_prefix=str(folder / "sentencepiece.bpe"),
        vocab_size=200,
        model_type="bpe",
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    tokens = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    for index in range(pieces.get_piece_size()):
        tokens.setdefault(pieces.id_to_piece(index), len(tokens))
    for word in words:
        if len(tokens) < vocabulary:
            tokens.setdefault(f"▁{word}", len(tokens))
    (folder / "vocab.json").write_text(json.dumps(tokens))
    tokenizer = tritone.Speech2TextTokenizer(folder / "vocab.json", folder / "sentencepiece.bpe.model")
    tritone.Speech2TextProcessor(tritone.Speech2TextFeatureExtractor(), tokenizer).save_pretrained(folder)


class WordTokenizer:
    """Tokenizer of made-up words, for decoding alone: needs no package, and decodes as fast as any.

    Args:
        vocabulary: number of tokens, of which the first four are special.
    """

    clean_up_tokenization_spaces = False

    def __init__(self, vocabulary: int) -> None:
        self._words = ["", "", "", "", *made_up_words(vocabulary - 4)]

    def decode(self, token_ids: Sequence[int], **_: Any) -> str:
        """Words of the tokens, with spaces between them."""
        return " ".join(filter(None, map(self._words.__getitem__, token_ids)))

    def batch_decode(self, rows: Tensor, **_: Any) -> list[str]:
        """Texts of token ids [n, tokens]."""
        return [self.decode(row) for row in rows.tolist()]


@dataclass(frozen=True, slots=True)
class InMemoryProcessor:
    """Processor made of a library's feature extractor and a tokenizer, without files."""

    feature_extractor: Any
    tokenizer: Any

    def __call__(self, *waveforms: Any, **options: Any) -> Any:
        return self.feature_extractor(*waveforms, **options)

    def batch_decode(self, rows: Tensor, **options: Any) -> list[str]:
        return self.tokenizer.batch_decode(rows, **options)


def make_processor(folder: Path, vocabulary: int) -> Any:
    """Processor of Speech2Text: from files that both libraries read, or in memory without sentencepiece."""
    try:
        write_processor(folder, vocabulary)
    except ImportError:
        return InMemoryProcessor(tritone.Speech2TextFeatureExtractor(), WordTokenizer(vocabulary))
    return tritone.AutoProcessor.from_pretrained(folder)


def made_up_words(count: int) -> list[str]:
    """`count` different words of 3 to 8 letters, in random order."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(rng.choice(letters, rng.integers(3, 9)))] = None
    return list(words)


def audio_seconds(recordings: Sequence[Recording]) -> float:
    return sum(recording.seconds for recording in recordings)


def tokens_of(recordings: Sequence[Recording]) -> int:
    return sum(recording.tokens for recording in recordings)
