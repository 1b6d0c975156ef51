"""T5's tokenizer: SentencePiece's pieces, EOS, and sentinel tokens for gaps."""

from typing import Any, ClassVar

from tokenizers import normalizers

from ..tokenizers.options import AddedToken
from ..tokenizers.sentencepiece import Pieces, SentencePieceTokenizer

MAX_EXTRA_IDS = 100_000  # more than any checkpoint has, and cheap in a hostile file


class T5Tokenizer(SentencePieceTokenizer):
    """Text to the ids of pieces and back; vocabulary and errors as in `SentencePieceTokenizer`.

    A text ends with EOS, and so do both of a pair; both have type 0.

    Args:
        **options: eos_token, unk_token, pad_token; extra_ids: number of sentinel tokens <extra_id_0>,
            <extra_id_1>, ... for gaps, from the end of the vocabulary; and those of every `Tokenizer`.
    """

    unknown_id = 2
    special_tokens: ClassVar[dict[str, Any]] = {
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }
    templates = ("$A:0 {eos_token}:0", "$A:0 {eos_token}:0 $B:0 {eos_token}:0")
    neutral = SentencePieceTokenizer.neutral | {"add_prefix_space", "keep_accents", "do_lower_case"}

    extra_ids: int = 100

    def _configure(self, options: dict[str, Any]) -> dict[str, Any]:
        properties = super()._configure(options)
        count = self.extra_ids
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_EXTRA_IDS:
            raise ValueError(f"extra_ids must be a number of tokens up to {MAX_EXTRA_IDS}, got {count!r}")
        given = [token for token in self.additional_special_tokens if "<extra_id_" in token]
        if given and count and len(given) != count:
            raise ValueError(
                f"extra_ids is {count}, and additional_special_tokens holds {len(given)} tokens "
                "<extra_id_...>; name as many, or none of them"
            )
        if not given:
            tokens = _sentinels(count)
            self._declared |= {token: AddedToken(token) for token in tokens}
            self._set_extra([*self.additional_special_tokens, *tokens])
        return properties

    def _complete(self, pieces: Pieces) -> Pieces:
        return [*pieces, *((token, 0.0) for token in reversed(_sentinels(self.extra_ids)))]

    def _normalizer(self, charsmap: bytes | None) -> Any:
        return normalizers.Precompiled(charsmap) if charsmap else None


def _sentinels(count: int) -> list[str]:
    return [f"<extra_id_{number}>" for number in range(count)]
