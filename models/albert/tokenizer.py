"""ALBERT's tokenizer: SentencePiece's pieces between [CLS] and [SEP]."""

from typing import Any, ClassVar

from tokenizers.processors import PostProcessor

from ..tokenizers.sentencepiece import Defined, SentencePieceTokenizer, plain_rules


class AlbertTokenizer(SentencePieceTokenizer):
    """Text to the ids of pieces and back, as transformers 5's tokenizer of the same files.

    Args:
        vocab, charsmap, defined: see `SentencePieceTokenizer`.
        processor: the "post_processor" of a tokenizer.json, which goes before the family's own.
        **options: bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token;
            do_lower_case; keep_accents; add_prefix_space: begin each word with the piece of a space;
            trim_offsets, which has no effect here; and what every `Tokenizer` takes.

    Raises:
        ValueError: a vocabulary that makes no tokenizer, or an option's bad value; TypeError: for its name.
    """

    special_tokens: ClassVar[dict[str, Any]] = {
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
        "unk_token": "<unk>",
        "sep_token": "[SEP]",
        "pad_token": "<pad>",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    settings: ClassVar[dict[str, Any]] = {
        "do_lower_case": True,
        "keep_accents": False,
        "add_prefix_space": True,
        "trim_offsets": True,
    }

    do_lower_case: bool
    keep_accents: bool
    add_prefix_space: bool
    trim_offsets: bool

    @property
    def _prepends(self) -> bool:
        return self.add_prefix_space

    def _unknown_id(self, defined: Defined | None) -> int:
        return 1

    def _rules(self, charsmap: bytes | None) -> Any:
        return plain_rules(charsmap, accents=self.keep_accents, lower=self.do_lower_case)

    def _around(self) -> PostProcessor:
        if self._given is not None:
            return self._given
        single = f"{self.cls_token}:0 $A:0 {self.sep_token}:0"
        return self._template(single, f"{single} $B:1 {self.sep_token}:1")
