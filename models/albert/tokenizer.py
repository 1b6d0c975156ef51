"""ALBERT tokenizer: SentencePiece pieces between [CLS] and [SEP]."""

from typing import Any, ClassVar

from ..tokenizers.sentencepiece import SentencePieceTokenizer, plain_normalizer


class AlbertTokenizer(SentencePieceTokenizer):
    """SentencePiece tokenizer of ALBERT: encodes text to token ids and decodes token ids to text.

    Vocabulary arguments and errors are those of `SentencePieceTokenizer`.

    Args:
        **options: bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token;
            do_lower_case; keep_accents; add_prefix_space: begin each word with the word-boundary marker ▁;
            trim_offsets, without effect; and the options of every `Tokenizer`.
    """

    unknown_id = 1
    special_tokens: ClassVar[dict[str, Any]] = {
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
        "unk_token": "<unk>",
        "sep_token": "[SEP]",
        "pad_token": "<pad>",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    templates = (
        "{cls_token}:0 $A:0 {sep_token}:0",
        "{cls_token}:0 $A:0 {sep_token}:0 $B:1 {sep_token}:1",
    )
    reads_post_processor = True

    do_lower_case: bool = True
    keep_accents: bool = False
    add_prefix_space: bool = True
    trim_offsets: bool = True

    def _normalizer(self, charsmap: bytes | None) -> Any:
        return plain_normalizer(charsmap, accents=self.keep_accents, lower=self.do_lower_case)
