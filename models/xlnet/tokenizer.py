"""XLNet tokenizer: SentencePiece pieces, then <sep> and <cls>, padded on the left."""

from typing import Any, ClassVar

from ..tokenizers.options import AddedToken, TokenIndex
from ..tokenizers.sentencepiece import Defined, SentencePieceTokenizer, plain_normalizer


class XLNetTokenizer(SentencePieceTokenizer):
    """SentencePiece tokenizer of XLNet: encodes text to token ids and decodes token ids to text.

    Vocabulary arguments and errors are those of `SentencePieceTokenizer`.

    Token types are returned on request, as in transformers 5: 0 and 1 for the first and second text with
    their <sep>, 2 for <cls>, 0 for padding (3 in transformers 4).

    Args:
        **options: bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token; unk_id: id of
            the unknown piece, unless a SentencePiece model file gives it; do_lower_case; remove_space and
            keep_accents, without effect here and in transformers; and the options of every `Tokenizer`.
            padding_side is "left" by default.
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
    templates = ("$A:0 {sep_token}:0 {cls_token}:2", "$A:0 {sep_token}:0 $B:1 {sep_token}:1 {cls_token}:2")

    unk_id: TokenIndex = 0
    do_lower_case: bool = False
    remove_space: bool = True
    keep_accents: bool = False

    def _configure(self, options: dict[str, Any]) -> dict[str, Any]:
        properties = super()._configure(options | {"padding_side": options.get("padding_side") or "left"})
        if not self._names_tokens:
            tokens = ("<eop>", "<eod>")
            self._declared |= {token: AddedToken(token) for token in tokens}
            self._set_extra(tokens)
        return properties

    def _unknown_id(self, defined: Defined | None) -> int:
        if defined is not None:
            self.unk_id = defined.unknown_id
        return self.unk_id

    def _normalizer(self, charsmap: bytes | None) -> Any:
        return plain_normalizer(charsmap, accents=False, lower=self.do_lower_case)
