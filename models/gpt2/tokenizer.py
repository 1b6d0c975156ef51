"""GPT-2 tokenizer: byte-level byte-pair encoding."""

from typing import Any, ClassVar

from tokenizers.processors import PostProcessor

from ..tokenizers.fast import BytePairTokenizer


class GPT2Tokenizer(BytePairTokenizer):
    """Byte-level BPE tokenizer of GPT-2: encodes text to token ids and decodes token ids to text.

    Args:
        vocab, merges: dict from token to id, and pairs of tokens; or the paths of vocab.json and merges.txt.
        post_processor: "post_processor" of a tokenizer.json, which overrides add_bos_token and add_eos_token.
        **options: unk_token, bos_token, eos_token, pad_token (None by default); add_prefix_space: put a
            space before a text; add_bos_token, add_eos_token: add these tokens around every text; and the
            options of every `Tokenizer`.

    Raises:
        ValueError: an invalid vocabulary or option value.
        TypeError: an unknown option.
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
