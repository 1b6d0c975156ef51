"""GPT-2's tokenizer: byte-pair encoding of bytes."""

from typing import Any, ClassVar

import tokenizers
from tokenizers.processors import PostProcessor

from ..tokenizers.fast import BytePairTokenizer, Merges, byte_level, processor_of


class GPT2Tokenizer(BytePairTokenizer):
    """Text to the ids of byte pairs and back, as transformers' tokenizer of the same files.

    Args:
        vocab, merges: from token to id, and pairs of tokens; or the paths of vocab.json and merges.txt.
        processor: the "post_processor" of a tokenizer.json, which goes before the two options below.
        **options: unk_token, bos_token, eos_token, pad_token (none); add_prefix_space: begin a text like any
            other word; add_bos_token, add_eos_token: around every text; and what every `Tokenizer` takes.

    Raises:
        ValueError: a vocabulary that makes no tokenizer, or an option's bad value; TypeError: for its name.
    """

    special_tokens: ClassVar[dict[str, Any]] = {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": None,
    }
    settings: ClassVar[dict[str, Any]] = {
        "add_prefix_space": False,
        "add_bos_token": False,
        "add_eos_token": False,
    }
    neutral = frozenset({"errors"})

    add_prefix_space: bool
    add_bos_token: bool
    add_eos_token: bool

    def _build(
        self, vocab: dict[str, int] | str, merges: Merges | str, processor: Any = None
    ) -> tokenizers.Tokenizer:
        self._given = processor_of(processor)
        return byte_level(vocab, merges, self.add_prefix_space)

    def _around(self) -> PostProcessor:
        if self._given is not None:
            return self._given
        before = [self.bos_token] if self.add_bos_token and self.bos_token else []
        behind = [self.eos_token] if self.add_eos_token and self.eos_token else []
        single, second = (
            " ".join(f"{word}:{text}" for word in (*before, name, *behind))
            for text, name in enumerate(("$A", "$B"))
        )
        return self._template(single, f"{single} {second}")
