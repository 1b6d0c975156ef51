"""T5's tokenizer: SentencePiece's pieces with EOS behind them, and tokens that stand for gaps."""

from typing import Any, ClassVar

from tokenizers import normalizers
from tokenizers.processors import PostProcessor

from ..tokenizers.fast import Pieces
from ..tokenizers.options import AddedToken
from ..tokenizers.sentencepiece import Defined, SentencePieceTokenizer

# More than any checkpoint has, and few enough for a hostile file to cost nothing.
_MOST_EXTRA = 100_000


class T5Tokenizer(SentencePieceTokenizer):
    """Text to the ids of pieces and back, as transformers 5's tokenizer of the same files.

    A text ends with EOS, and so do both of a pair; both have type 0.

    Args:
        vocab, charsmap, defined: see `SentencePieceTokenizer`.
        processor: not asked.
        **options: eos_token, unk_token, pad_token; extra_ids: how many tokens <extra_id_0>, <extra_id_1>, ...
            stand for gaps, counted from the end of the vocabulary; and what every `Tokenizer` takes.

    Raises:
        ValueError: a vocabulary that makes no tokenizer, or an option's bad value; TypeError: for its name.
    """

    special_tokens: ClassVar[dict[str, Any]] = {
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }
    settings: ClassVar[dict[str, Any]] = {"extra_ids": 100}
    neutral = SentencePieceTokenizer.neutral | {"add_prefix_space", "keep_accents", "do_lower_case"}

    extra_ids: int

    def _configure(self, options: dict[str, Any]) -> dict[str, Any]:
        settings = super()._configure(options)
        count = settings["extra_ids"]
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= _MOST_EXTRA:
            raise ValueError(f"extra_ids must be a number of tokens up to {_MOST_EXTRA}, got {count!r}")
        given = [token for token in self.additional_special_tokens if "<extra_id_" in token]
        if given and count and len(given) != count:
            raise ValueError(
                f"extra_ids is {count}, and additional_special_tokens holds {len(given)} tokens "
                "<extra_id_...>; name as many, or none of them"
            )
        if not given:
            tokens = _extra(count)
            self._declared |= {token: AddedToken(token) for token in tokens}
            self._set_extra([*self.additional_special_tokens, *tokens])
        return settings

    def _completed(self, pieces: Pieces) -> Pieces:
        return [*pieces, *((token, 0.0) for token in reversed(_extra(self.extra_ids)))]

    def _unknown_id(self, defined: Defined | None) -> int:
        return 2

    def _rules(self, charsmap: bytes | None) -> Any:
        return normalizers.Precompiled(charsmap) if charsmap else None

    def _around(self) -> PostProcessor:
        single = f"$A:0 {self.eos_token}:0"
        return self._template(single, f"{single} $B:0 {self.eos_token}:0")


def _extra(count: int) -> list[str]:
    return [f"<extra_id_{number}>" for number in range(count)]
