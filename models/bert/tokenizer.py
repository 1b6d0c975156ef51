"""BERT's tokenizer: words and punctuation, cut into word pieces."""

from pathlib import Path
from typing import Any, ClassVar

import tokenizers
from tokenizers.models import WordPiece
from tokenizers.processors import PostProcessor

from ..tokenizers.fast import WordPieceTokenizer


class BertTokenizer(WordPieceTokenizer):
    """Text to the ids of word pieces and back, as transformers' tokenizer of the same files.

    Args:
        vocab: from token to id, or the path of a vocab.txt.
        **options: unk_token, sep_token, pad_token, cls_token, mask_token; do_lower_case;
            tokenize_chinese_chars: split between Chinese characters; strip_accents: by default where
            do_lower_case is set; and what every `Tokenizer` takes.

    Raises:
        ValueError: a vocabulary that makes no tokenizer, or an option's bad value; TypeError: for its name.
    """

    model_input_names: tuple[str, ...] = ("input_ids", "token_type_ids", "attention_mask")
    special_tokens: ClassVar[dict[str, Any]] = {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    settings: ClassVar[dict[str, Any]] = {
        "do_lower_case": True,
        "tokenize_chinese_chars": True,
        "strip_accents": None,
    }
    neutral = frozenset({"do_basic_tokenize", "never_split", "basic_tokenizer"})

    do_lower_case: bool
    tokenize_chinese_chars: bool
    strip_accents: bool | None

    def _build(self, vocab: dict[str, int] | str | Path) -> tokenizers.Tokenizer:
        table = vocab if isinstance(vocab, dict) else WordPiece.read_file(str(vocab))
        if self.unk_token not in table:
            raise ValueError(f"the vocabulary does not have the unk_token {self.unk_token!r}; name its own")
        backend = tokenizers.Tokenizer(WordPiece(table, unk_token=self.unk_token))
        backend.normalizer = tokenizers.normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=self.tokenize_chinese_chars,
            strip_accents=self.strip_accents,
            lowercase=self.do_lower_case,
        )
        backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        backend.decoder = tokenizers.decoders.WordPiece(prefix="##")
        return backend

    def _around(self) -> PostProcessor:
        single = f"{self.cls_token}:0 $A:0 {self.sep_token}:0"
        return self._template(single, f"{single} $B:1 {self.sep_token}:1")
