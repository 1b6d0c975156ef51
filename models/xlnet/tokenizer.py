"""XLNet's tokenizer: SentencePiece's pieces with <sep> and <cls> behind them, padded on the left."""

from typing import Any, ClassVar

from tokenizers.processors import PostProcessor

from ..tokenizers.options import AddedToken
from ..tokenizers.sentencepiece import Defined, SentencePieceTokenizer, plain_rules


class XLNetTokenizer(SentencePieceTokenizer):
    """Text to the ids of pieces and back, as transformers 5's tokenizer of the same files.

    Token types are returned where they are asked for, as there: 0 and 1 for the texts of a pair with their
    <sep>, 2 for <cls>; padding has 0, where transformers 4 wrote 3.

    Args:
        vocab, charsmap, defined: see `SentencePieceTokenizer`.
        processor: not asked.
        **options: bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token; unk_id: of
            what has no piece, where no model's file says it; do_lower_case; remove_space and keep_accents,
            which have no effect there either; and what every `Tokenizer` takes. Padding is on the left by
            default.

    Raises:
        ValueError: a vocabulary that makes no tokenizer, or an option's bad value; TypeError: for its name.
    """

    special_tokens: ClassVar[dict[str, Any]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "sep_token": "<sep>",
        "pad_token": "<pad>",
        "cls_token": "<cls>",
        "mask_token": AddedToken("<mask>", lstrip=True),
    }
    settings: ClassVar[dict[str, Any]] = {
        "unk_id": 0,
        "do_lower_case": False,
        "remove_space": True,
        "keep_accents": False,
    }

    unk_id: int
    do_lower_case: bool
    remove_space: bool
    keep_accents: bool

    def _configure(self, options: dict[str, Any]) -> dict[str, Any]:
        settings = super()._configure(options | {"padding_side": options.get("padding_side") or "left"})
        if not self._names_tokens:
            tokens = ("<eop>", "<eod>")
            self._declared |= {token: AddedToken(token) for token in tokens}
            self._set_extra(tokens)
        return settings

    def _unknown_id(self, defined: Defined | None) -> int:
        if defined is not None:
            self.unk_id = defined.unknown_id
        return self.unk_id

    def _rules(self, charsmap: bytes | None) -> Any:
        return plain_rules(charsmap, accents=False, lower=self.do_lower_case)

    def _around(self) -> PostProcessor:
        sep, cls = self.sep_token, self.cls_token
        return self._template(f"$A:0 {sep}:0 {cls}:2", f"$A:0 {sep}:0 $B:1 {sep}:1 {cls}:2")
