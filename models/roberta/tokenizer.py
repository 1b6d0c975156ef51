"""RoBERTa tokenizer: byte-level byte-pair encoding, as in GPT-2."""

from typing import Any, ClassVar

from tokenizers.processors import PostProcessor, RobertaProcessing

from ..tokenizers.fast import BytePairTokenizer


class RobertaTokenizer(BytePairTokenizer):
    """Byte-level BPE tokenizer of RoBERTa: encodes text to token ids and decodes token ids to text.

    Args:
        vocab, merges: dict from token to id, and pairs of tokens; or the paths of vocab.json and merges.txt.
        post_processor: "post_processor" of a tokenizer.json; ignored.
        **options: bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token;
            add_prefix_space: put a space before a text; trim_offsets, without effect; and the options of
            every `Tokenizer`.

    Raises:
        ValueError: an invalid vocabulary or option value.
        TypeError: an unknown option.
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
    neutral = frozenset({"errors"})

    trim_offsets: bool = True

    def _around(self) -> PostProcessor:
        return RobertaProcessing(
            (self.sep_token, self.sep_token_id),
            (self.cls_token, self.cls_token_id),
            self.trim_offsets,
            self.add_prefix_space,
        )
