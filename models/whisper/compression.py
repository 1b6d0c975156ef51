"""Compression ratios, which are high for text that repeats itself, a common failure of Whisper."""

import math
import zlib
from collections.abc import Sequence


def text_compression_ratio(text: str) -> float:
    """Bytes of a text in UTF-8 over those of its zlib compression, as in openai's transcribe."""
    return _ratio(text.encode())


def token_compression_ratio(tokens: Sequence[int], vocab_size: int) -> float:
    """Bytes of token ids over those of their zlib compression, as in transformers' generate.

    Args:
        tokens: token ids of a window, special tokens and times included, padding not.
        vocab_size: size of the model's vocabulary, which fixes the number of bytes of an id.
    """
    width = int(math.log2(vocab_size) / 8) + 1
    return _ratio(b"".join(token.to_bytes(width, "little") for token in tokens))


def _ratio(content: bytes) -> float:
    return len(content) / len(zlib.compress(content))
