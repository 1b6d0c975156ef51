"""What the tokenizers of ALBERT, T5 and XLNet share: SentencePiece's unigram models, in `spiece.model`."""

from typing import Any, NamedTuple

import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram
from tokenizers.processors import PostProcessor

from ..checkpoints.files import Checkpoint
from .fast import Pieces, UnigramTokenizer, processor_of
from .options import AddedToken
from .sentencepiece_model import read_sentencepiece

_CONTROL, _USER_DEFINED = 3, 4
# Options that name special tokens without a role.
EXTRA_TOKENS = ("additional_special_tokens", "extra_special_tokens")


class Defined(NamedTuple):
    """What a model's own file says beside its pieces: tokens that text is split at, and the unknown one."""

    tokens: tuple[AddedToken, ...]
    unknown_id: int


class SentencePieceTokenizer(UnigramTokenizer):
    """Text to the ids of pieces and back, as transformers 5's tokenizer of the same files.

    Args:
        vocab: pieces with their scores, in the order of their ids.
        charsmap: compiled rules of normalization.
        defined: what else the model's own file says; None without it.
        processor: the "post_processor" of a tokenizer.json, for families that ask it.
        **options: special tokens, the family's settings, and what every `Tokenizer` takes.

    Raises:
        ValueError: a vocabulary that makes no tokenizer, or an option's bad value; TypeError: for its name.
    """

    model_file = "spiece.model"
    neutral = frozenset({"sp_model_kwargs", "unk_id", "legacy", "vocab_file", "from_slow", "remove_space"})

    def _configure(self, options: dict[str, Any]) -> dict[str, Any]:
        # In transformers those that are named go before those of the model's own file.
        self._names_tokens = any(options.get(name) is not None for name in EXTRA_TOKENS)
        return super()._configure(options)

    def _build(
        self,
        vocab: Pieces,
        charsmap: bytes | None = None,
        defined: Defined | None = None,
        processor: Any = None,
    ) -> tokenizers.Tokenizer:
        self._given: PostProcessor | None = processor_of(processor)
        if defined is not None:
            vocab = self._completed(vocab)
            tokens = () if self._names_tokens else defined.tokens
            self._declared |= {token.content: token for token in tokens}
            self._set_extra([*(token.content for token in tokens), *self.additional_special_tokens])
        unknown_id = self._unknown_id(defined)
        backend = tokenizers.Tokenizer(Unigram(vocab, unk_id=unknown_id, byte_fallback=False))
        if (rules := self._rules(charsmap)) is not None:
            backend.normalizer = rules
        scheme = "always" if self._prepends else "never"
        words = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
        backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme=scheme, split=True)
        return backend

    @property
    def _prepends(self) -> bool:
        """Whether each word begins with the piece of a space."""
        return True

    def _unknown_id(self, defined: Defined | None) -> int:
        """The id of what has no piece."""
        raise NotImplementedError

    def _rules(self, charsmap: bytes | None) -> Any:
        """How a text is normalized; None for not at all."""
        raise NotImplementedError

    def _completed(self, pieces: Pieces) -> Pieces:
        """The pieces of a model's own file, with those that the family adds behind them."""
        return pieces

    @classmethod
    def _arranged(cls, pieces: Pieces) -> Pieces:
        return pieces

    @classmethod
    def _vocabulary(cls, checkpoint: Checkpoint) -> tuple[Any, ...]:
        """Pieces, rules, what a model's file defines, and the "post_processor" of a tokenizer.json."""
        if (found := cls._library_file(checkpoint)) is not None:
            return (*super()._vocabulary(checkpoint), None, found[0].get("post_processor"))
        if (path := checkpoint.find(cls.model_file)) is None:
            raise checkpoint.lacks(f"tokenizer.json, nor {cls.model_file}")
        read = read_sentencepiece(path)
        tokens = tuple(
            AddedToken(piece, special=kind == _CONTROL)
            for (piece, _), kind in zip(read.pieces, read.kinds, strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        )
        return list(read.pieces), read.charsmap, Defined(tokens, read.unknown_id), None


def plain_rules(charsmap: bytes | None, *, accents: bool, lower: bool) -> Any:
    """ALBERT's and XLNet's normalization: one kind of quotation marks, no accents, perhaps lower case.

    Args:
        charsmap: compiled rules, applied last.
        accents: keep them.
        lower: make all letters small.
    """
    rules: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not accents:
        rules += [normalizers.NFKD(), normalizers.StripAccents()]
    if lower:
        rules.append(normalizers.Lowercase())
    if charsmap:
        rules.append(normalizers.Precompiled(charsmap))
    return normalizers.Sequence(rules)
