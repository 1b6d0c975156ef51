"""T5 tokenizer: SentencePiece pieces, EOS, and sentinel tokens for masked spans."""

from typing import Any, ClassVar

from tokenizers import normalizers

from ..tokenizers.options import AddedToken
from ..tokenizers.sentencepiece import Pieces, SentencePieceTokenizer

MAX_EXTRA_IDS = 100_000  # above any checkpoint's number, and bounds the work that a hostile file can ask for


class T5Tokenizer(SentencePieceTokenizer):
    """SentencePiece tokenizer of T5: encodes text to token ids and decodes token ids to text.

    Vocabulary arguments and errors are those of `SentencePieceTokenizer`.

    Each text, also of a pair, ends with EOS and has token type 0.

    Args:
        **options: eos_token, unk_token, pad_token; extra_ids: number of sentinel tokens <extra_id_0>,
            <extra_id_1>, ... for masked spans, numbered from the end of the vocabulary; and the options of
            every `Tokenizer`.
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
