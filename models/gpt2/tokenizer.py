"""GPT-2's tokenizer: byte-pair encoding of bytes."""

from typing import Any, ClassVar

from tokenizers.processors import PostProcessor

from ..tokenizers.fast import BytePairTokenizer


class GPT2Tokenizer(BytePairTokenizer):
    """Text to the ids of byte pairs and back, as transformers' tokenizer of the same files.

    Args:
        vocab, merges: from token to id, and pairs of tokens; or the paths of vocab.json and merges.txt.
        post_processor: of a tokenizer.json, which overrides add_bos_token and add_eos_token.
        **options: unk_token, bos_token, eos_token, pad_token (none); add_prefix_space: begin a text like any
            other word; add_bos_token, add_eos_token: around every text; and those of every `Tokenizer`.

    Raises:
        ValueError: a vocabulary that makes no tokenizer, or an option's bad value; TypeError: an unknown
            option.
    """

    special_tokens: ClassVar[dict[str, Any]] = {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": None,
    }
    reads_post_processor = True
    neutral = frozenset({"errors"})

    add_bos_token: bool = False
    add_eos_token: bool = False

    def _around(self) -> PostProcessor:
        before = [self.bos_token] if self.add_bos_token and self.bos_token else []
        behind = [self.eos_token] if self.add_eos_token and self.eos_token else []
        single, second = (
            " ".join(f"{token}:{number}" for token in (*before, text, *behind))
            for number, text in enumerate(("$A", "$B"))
        )
        return self._template(single, f"{single} {second}")
