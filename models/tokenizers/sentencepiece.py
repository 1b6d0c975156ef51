"""Base class of SentencePiece unigram tokenizers: ALBERT, MBart, T5 and XLNet."""

import base64
from typing import Any, ClassVar, NamedTuple

import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram

from ..checkpoints.files import Checkpoint
from ..core.field_types import shown
from .fast import LibraryTokenizer
from .options import AddedToken
from .sentencepiece_model import read_sentencepiece

Pieces = list[tuple[str, float]]

_CONTROL, _USER_DEFINED = 3, 4
# Options that name special tokens without a role.
EXTRA_TOKENS = ("additional_special_tokens", "extra_special_tokens")


class Defined(NamedTuple):
    """Special tokens and unknown id that a SentencePiece model file defines besides its pieces."""

    tokens: tuple[AddedToken, ...]  # control and user-defined pieces, at which text is split
    unknown_id: int


class SentencePieceTokenizer(LibraryTokenizer):
    """SentencePiece tokenizer: encodes text to token ids and decodes ids to text, as in transformers 5.

    Args:
        vocab: (piece, score) pairs in id order.
        charsmap: precompiled normalization rules; None without any.
        defined: further definitions of a SentencePiece model file; None if `vocab` is a tokenizer.json's.
        post_processor: "post_processor" of a tokenizer.json, for subclasses that use it.
        **options: special tokens, settings of the subclass, and the options of every `Tokenizer`.

    Raises:
        ValueError: an invalid vocabulary or option value.
        TypeError: an unknown option.
    """

    model = "Unigram"
    model_file: ClassVar[str] = "spiece.model"
    unknown_id: ClassVar[int]
    neutral = frozenset({"sp_model_kwargs", "unk_id", "legacy", "vocab_file", "from_slow", "remove_space"})
    add_prefix_space = True  # begin each word with the word-boundary marker ▁

    def _configure(self, options: dict[str, Any]) -> dict[str, Any]:
        # As in transformers, special tokens of the options replace those of the model file.
        self._names_tokens = any(options.get(name) is not None for name in EXTRA_TOKENS)
        return super()._configure(options)

    def _build(
        self,
        vocab: Pieces,
        charsmap: bytes | None = None,
        defined: Defined | None = None,
        post_processor: Any = None,
    ) -> tokenizers.Tokenizer:
        self._use_post_processor(post_processor)
        if defined is not None:
            vocab = self._complete(vocab)
            tokens = () if self._names_tokens else defined.tokens
            self._declared |= {token.content: token for token in tokens}
            self._set_extra([*(token.content for token in tokens), *self.additional_special_tokens])
        unknown_id = self._unknown_id(defined)
        backend = tokenizers.Tokenizer(Unigram(vocab, unk_id=unknown_id, byte_fallback=False))
        if (normalizer := self._normalizer(charsmap)) is not None:
            backend.normalizer = normalizer
        scheme = "always" if self.add_prefix_space else "never"
        words = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
        backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme=scheme, split=True)
        return backend

    def _complete(self, pieces: Pieces) -> Pieces:
        """Complete the pieces of a SentencePiece model file to the tokenizer's vocabulary."""
        return pieces

    def _unknown_id(self, defined: Defined | None) -> int:
        """Id of the unknown piece."""
        return self.unknown_id

    def _normalizer(self, charsmap: bytes | None) -> Any:
        """Normalizer of the `tokenizers` library for a text; None for no normalization."""
        return None

    @classmethod
    def _vocabulary(cls, checkpoint: Checkpoint) -> tuple[Any, ...]:
        """Constructor arguments `vocab`, `charsmap`, `defined` and `post_processor`, from a checkpoint."""
        if (found := cls._library_file(checkpoint)) is None:
            if (path := checkpoint.find(cls.model_file)) is None:
                raise checkpoint.lacks(f"tokenizer.json, nor {cls.model_file}")
            read = read_sentencepiece(path)
            tokens = tuple(
                AddedToken(piece, special=kind == _CONTROL)
                for (piece, _), kind in zip(read.pieces, read.kinds, strict=True)
                if kind in (_CONTROL, _USER_DEFINED)
            )
            return list(read.pieces), read.charsmap, Defined(tokens, read.unknown_id), None
        fields, path = found
        try:
            pieces = [(str(piece), float(score)) for piece, score in fields["model"]["vocab"]]
            return pieces, _charsmap(fields.get("normalizer")), None, fields.get("post_processor")
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            reason = shown(f"{type(error).__name__}: {error}")
            raise ValueError(f"{path} has no pieces with scores as vocab of its model: {reason}") from error


def _charsmap(normalizer: Any) -> bytes | None:
    """Precompiled normalization rules in the "normalizer" of a tokenizer.json; None without any."""
    steps = (normalizer or {}).get("normalizers", [normalizer]) if isinstance(normalizer, dict) else []
    for step in steps:
        if step.get("type") == "Precompiled" and step.get("precompiled_charsmap"):
            return base64.b64decode(step["precompiled_charsmap"])
    return None


def plain_normalizer(charsmap: bytes | None, *, accents: bool, lower: bool) -> Any:
    """Normalizer of ALBERT and XLNet: quotation marks made uniform, accents and case optionally removed.

    Args:
        charsmap: precompiled normalization rules, applied last; None without any.
        accents: keep accents.
        lower: convert to lower case.
    """
    rules: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not accents:
        rules += [normalizers.NFKD(), normalizers.StripAccents()]
    if lower:
        rules.append(normalizers.Lowercase())
    if charsmap:
        rules.append(normalizers.Precompiled(charsmap))
    return normalizers.Sequence(rules)
