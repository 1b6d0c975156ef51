"""RoBERTa's tokenizer, which is BART's too: byte-pair encoding of bytes, as in GPT-2."""

from typing import Any, ClassVar

import tokenizers
from tokenizers.processors import PostProcessor, RobertaProcessing

from ..tokenizers.fast import BytePairTokenizer, Merges, byte_level


class RobertaTokenizer(BytePairTokenizer):
    """Text to the ids of byte pairs and back, as transformers' tokenizer of the same files.

    Args:
        vocab, merges: from token to id, and pairs of tokens; or the paths of vocab.json and merges.txt.
        processor: the "post_processor" of a tokenizer.json, which is not asked.
        **options: bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token;
            add_prefix_space: begin a text like any other word; trim_offsets, which has no effect here; and
            what every `Tokenizer` takes.

    Raises:
        ValueError: a vocabulary that makes no tokenizer, or an option's bad value; TypeError: for its name.
    """

    special_tokens: ClassVar[dict[str, Any]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "mask_token": "<mask>",
    }
    settings: ClassVar[dict[str, Any]] = {"add_prefix_space": False, "trim_offsets": True}
    neutral = frozenset({"errors"})

    add_prefix_space: bool
    trim_offsets: bool

    def _build(
        self, vocab: dict[str, int] | str, merges: Merges | str, processor: Any = None
    ) -> tokenizers.Tokenizer:
        return byte_level(vocab, merges, self.add_prefix_space)

    def _around(self) -> PostProcessor:
        return RobertaProcessing(
            (self.sep_token, self.sep_token_id),
            (self.cls_token, self.cls_token_id),
            self.trim_offsets,
            self.add_prefix_space,
        )
