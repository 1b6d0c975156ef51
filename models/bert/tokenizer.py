"""BERT tokenizer: words and punctuation, split into WordPiece tokens."""

from pathlib import Path
from typing import Any, ClassVar

import tokenizers
from tokenizers.models import WordPiece

from ..tokenizers.fast import WordPieceTokenizer


class BertTokenizer(WordPieceTokenizer):
    """WordPiece tokenizer of BERT: encodes text to token ids and decodes ids to text, as in transformers.

    Args:
        vocab: dict from token to id, or the path of a vocab.txt.
        **options: unk_token, sep_token, pad_token, cls_token, mask_token; do_lower_case;
            tokenize_chinese_chars: split between Chinese characters; strip_accents: by default if
            do_lower_case is set; and the options of every `Tokenizer`.

    Raises:
        ValueError: an invalid vocabulary or option value.
        TypeError: an unknown option.
    """

    model_input_names: tuple[str, ...] = ("input_ids", "token_type_ids", "attention_mask")
    special_tokens: ClassVar[dict[str, Any]] = {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    templates = (
        "{cls_token}:0 $A:0 {sep_token}:0",
        "{cls_token}:0 $A:0 {sep_token}:0 $B:1 {sep_token}:1",
    )
    neutral = frozenset({"do_basic_tokenize", "never_split", "basic_tokenizer"})

    do_lower_case: bool = True
    tokenize_chinese_chars: bool = True
    strip_accents: bool | None = None

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
