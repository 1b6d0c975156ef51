"""Base classes of tokenizers that wrap the `tokenizers` library: BPE, WordPiece and others."""

import json
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import tokenizers
from tokenizers import Encoding
from tokenizers.models import BPE, WordPiece
from tokenizers.processors import PostProcessor, TemplateProcessing

from ..checkpoints import contents
from ..checkpoints.contents import check_file, read_json
from ..checkpoints.files import Checkpoint
from ..core.field_types import conform, shown
from .base import Encoded, Tokenizer
from .charsmap import check_normalizer
from .options import NAMED_TOKENS, AddedToken, TokenIndex, as_added, check_count, numbered_tokens
from .panics import no_panic
from .pieces import byte_level_bytes, sentencepiece_bytes, word_piece_bytes
from .slow import check_vocabulary
from .special_tokens import Ids

LIBRARY_FILE = "tokenizer.json"

Merges = list[tuple[str, str]]
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class LibraryTokenizer(Tokenizer):
    """Base class of tokenizers whose encoding and decoding run in the `tokenizers` library.

    As in transformers 5, the subclass builds the pipeline; tokenizer.json gives vocabulary and added tokens.

    Args:
        *vocabulary: arguments of the subclass's `_build`.
        **options: special tokens, settings of the subclass, and the options of every `Tokenizer`.

    Raises:
        ValueError: an invalid vocabulary or option value.
        TypeError: an unknown option.
    """

    backend: tokenizers.Tokenizer
    model: str  # type name of the model in the library, such as "BPE"
    # Special tokens around a text and around a pair, in the library's notation; {role} stands for its token.
    templates: ClassVar[tuple[str, str]]
    reads_post_processor: ClassVar[bool] = False  # True: a tokenizer.json's overrides `templates`

    def __init__(self, *vocabulary: Any, **options: Any) -> None:
        self._configure(options)
        self._post_processor: PostProcessor | None = None
        try:
            with no_panic(type(self).__name__):
                self.backend = self._build(*vocabulary)
                self._add(options.get("added_tokens_decoder") or {})
                self.backend.post_processor = self._post_processor or self._around()
        except (OSError, ValueError):
            raise
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"the vocabulary makes no {type(self).__name__}: {error}") from error

    @abstractmethod
    def _build(self, *vocabulary: Any) -> tokenizers.Tokenizer:
        """Build the library's tokenizer for a vocabulary: normalizer, pre-tokenizer, model and decoder."""

    def _use_post_processor(self, written: Any) -> None:
        """Use the "post_processor" of a tokenizer.json, if `reads_post_processor` is set."""
        if self.reads_post_processor and written is not None:
            try:
                self._post_processor = read_post_processor(written)
            except Exception as error:  # the library raises nothing narrower
                raise ValueError(
                    f"post_processor {shown(written)} is not known ({shown(str(error))})"
                ) from error

    def _around(self) -> PostProcessor:
        """Post-processor that adds special tokens around a text or a pair."""
        tokens = {name: self._named.get(name) for name in NAMED_TOKENS}
        return self._template(*(template.format_map(tokens) for template in self.templates))

    def _add(self, added: dict[Any, Any]) -> None:
        """Register added tokens, in id order, and special tokens with the library, to split text at them."""
        tokens = {
            token.content: token
            for _, token in sorted(numbered_tokens(added, "added_tokens_decoder").items())
        }
        for token in self._declared.values():
            tokens.setdefault(token.content, token)
        named = set(self._named.values())
        self.backend.add_tokens(
            [
                _library_token(replace(token, special=True) if content in named else token)
                for content, token in tokens.items()
                if content
            ]
        )

    @property
    def _added(self) -> dict[int, AddedToken]:
        return {
            index: AddedToken(token.content, **{flag: getattr(token, flag) for flag in _FLAGS})
            for index, token in self.backend.get_added_tokens_decoder().items()
        }

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary, without added tokens."""
        return self.backend.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self.backend.get_vocab_size(with_added_tokens=True)

    def get_vocab(self) -> dict[str, int]:
        """Vocabulary with added tokens: a dict from token to id."""
        return self.backend.get_vocab(with_added_tokens=True)

    def tokenize(self, text: str) -> list[str]:
        """Split a text into tokens; adds no special tokens, and keeps those in the text whole."""
        with no_panic(type(self).__name__):
            return self.backend.encode(text, add_special_tokens=False).tokens

    def _encode(
        self, text: str, pair: str | None, special: bool, limit: int | None, strategy: str
    ) -> Encoded:
        with no_panic(type(self).__name__):
            first = self.backend.encode(text, add_special_tokens=False)
            second = None if pair is None else self.backend.encode(pair, add_special_tokens=False)
            processor = self.backend.post_processor
            if limit is not None:
                around = processor.num_special_tokens_to_add(second is not None) if special else 0
                self._truncate(first, second, max(0, limit - around), strategy)
            whole = processor.process(first, second, special)
            return Encoded(whole.ids, whole.type_ids, whole.special_tokens_mask)

    def _truncate(self, first: Encoding, second: Encoding | None, limit: int, strategy: str) -> None:
        """Truncate an encoded text or pair in place to `limit` tokens in all."""
        over = len(first) + (0 if second is None else len(second)) - limit
        if over <= 0:
            return
        if strategy == "longest_first":
            of_first, of_second = _pair_limits(len(first), 0 if second is None else len(second), limit)
            first.truncate(limit if second is None else of_first, direction=self.truncation_side)
            if second is not None:
                second.truncate(of_second, direction=self.truncation_side)
            return
        if not limit:  # both become empty whatever the strategy, as in the library
            for one in filter(None, (first, second)):
                one.truncate(0)
            return
        target = first if strategy == "only_first" else second
        if target is None or len(target) <= over:
            raise ValueError(
                f"truncation={strategy!r} cannot take away {over} tokens of "
                f"{'no second text' if target is None else f'a text of {len(target)}'}; "
                "use truncation='longest_first' or a larger max_length"
            )
        target.truncate(len(target) - over, direction=self.truncation_side)

    def _decode(self, token_ids: Any, skip_special_tokens: bool) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else [int(index) for index in token_ids]
        if any(index < 0 for index in ids):
            raise ValueError(
                f"{min(ids)} is no token id; in labels, replace -100 by pad_token_id before decoding"
            )
        with no_panic(type(self).__name__):
            return self.backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def _cleans(self, asked: bool | None) -> bool:
        if not super()._cleans(asked):
            return False
        if self.model == "BPE":  # as in transformers: BPE tokens contain the text's spaces
            warnings.warn(
                "clean_up_tokenization_spaces has no effect on a BPE tokenizer, whose text has its spaces",
                stacklevel=3,
            )
            return False
        return True

    def _id(self, token: str) -> Any:
        index = self.backend.token_to_id(token)
        if index is None and self.unk_token is not None:
            return self.backend.token_to_id(self.unk_token)
        return index

    def _tokens(self, ids: Ids) -> list[Any]:
        return [self.backend.id_to_token(index) for index in ids]

    def _bytes(self, token: str) -> bytes:
        decoder = self.backend.decoder
        if isinstance(decoder, tokenizers.decoders.ByteLevel):
            return byte_level_bytes(token)
        if isinstance(decoder, tokenizers.decoders.WordPiece):
            return word_piece_bytes(token, decoder.prefix)
        return sentencepiece_bytes(token)

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Join tokens to text."""
        with no_panic(type(self).__name__):
            return self.backend.decoder.decode(list(tokens))

    @classmethod
    def _added_in_vocabulary(cls, checkpoint: Checkpoint) -> dict[int, AddedToken]:
        path = checkpoint.find(LIBRARY_FILE)
        tokens = [] if path is None else read_json(path).get("added_tokens") or []
        if not isinstance(tokens, list) or not all(isinstance(one, dict) and "id" in one for one in tokens):
            raise ValueError(f"{path} must have added_tokens as a list of objects, got {shown(tokens)}")
        check_count(len(tokens), f"{path}: added_tokens")
        try:
            return {conform("id", token["id"], TokenIndex): as_added(token) for token in tokens}
        except ValueError as error:
            raise ValueError(f"{path}: added_tokens: {error}") from error

    def _save_vocabulary(self, folder: Path) -> tuple[str, ...]:
        path = folder / LIBRARY_FILE
        path.write_text(self.backend.to_str(pretty=True) + "\n", encoding="utf-8")
        return (str(path),)

    def _template(self, single: str, pair: str) -> PostProcessor:
        """Post-processor from templates in the library's notation, such as "[CLS]:0 $A:0 [SEP]:0"."""
        words = {word.rpartition(":")[0] for word in (*single.split(" "), *pair.split(" "))}
        names = [word for word in words if word and not word.startswith("$")]
        try:
            return TemplateProcessing(
                single=single, pair=pair, special_tokens=[(name, self._id(name)) for name in names]
            )
        except Exception as error:  # the library raises nothing narrower
            roles = ", ".join(f"{name} {shown(token)}" for name, token in self._named.items())
            raise ValueError(
                f"a special token cannot go around a text ({error}); there are {roles}"
            ) from None

    @classmethod
    def _library_file(cls, checkpoint: Checkpoint) -> tuple[dict[str, Any], Path] | None:
        """Content and path of a checkpoint's tokenizer.json, or None; ValueError if of another model type."""
        path = checkpoint.find(LIBRARY_FILE)
        if path is None:
            return None
        fields = read_json(path)
        try:
            check_normalizer(fields.get("normalizer"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}; fetch it again") from None
        model = fields.get("model")
        kind = model.get("type", cls.model) if isinstance(model, dict) else None  # old files lack it
        if kind != cls.model:
            raise ValueError(
                f"{path} has a model of type {shown(kind)}; a {cls.__name__} needs {cls.model!r}"
            )
        return fields, path


class BytePairTokenizer(LibraryTokenizer):
    """Base class of byte-level BPE tokenizers; reads tokenizer.json, or vocab.json and merges.txt."""

    model = "BPE"
    add_prefix_space: bool = False

    def _build(
        self, vocab: dict[str, int] | str, merges: Merges | str, post_processor: Any = None
    ) -> tokenizers.Tokenizer:
        self._use_post_processor(post_processor)
        if isinstance(vocab, str) and isinstance(merges, str):
            vocab, merges = _read(BPE.read_file, Path(vocab), Path(merges))
        model = BPE(vocab, merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
        backend = tokenizers.Tokenizer(model)
        backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=self.add_prefix_space)
        backend.decoder = tokenizers.decoders.ByteLevel()
        return backend

    @classmethod
    def _vocabulary(cls, checkpoint: Checkpoint) -> tuple[Any, ...]:
        """Constructor arguments from a checkpoint: dict of token ids, merges, "post_processor" or None."""
        if (found := cls._library_file(checkpoint)) is None:
            vocab, merges = checkpoint.find("vocab.json"), checkpoint.find("merges.txt")
            if vocab is None or merges is None:
                raise checkpoint.lacks("tokenizer.json, nor both vocab.json and merges.txt")
            read_json(vocab)
            return (*_read(BPE.read_file, vocab, merges), None)
        fields, path = found
        table, merged = fields["model"].get("vocab"), fields["model"].get("merges", [])
        check_table(table, path)
        try:
            pairs = [tuple(one.split(" ") if isinstance(one, str) else one) for one in merged]
        except TypeError:
            pairs = [()]
        if not all(len(pair) == 2 for pair in pairs):
            raise ValueError(f"{path} has merges that are not of two pieces each")
        return table, pairs, fields.get("post_processor")


class WordPieceTokenizer(LibraryTokenizer):
    """Base class of WordPiece tokenizers; reads the vocabulary from tokenizer.json or vocab.txt."""

    model = "WordPiece"

    @classmethod
    def _vocabulary(cls, checkpoint: Checkpoint) -> tuple[Any, ...]:
        if (found := cls._library_file(checkpoint)) is None:
            if (path := checkpoint.find("vocab.txt")) is None:
                raise checkpoint.lacks("tokenizer.json, nor vocab.txt")
            return (_read(WordPiece.read_file, path),)
        fields, path = found
        check_table(fields["model"].get("vocab"), path)
        return (fields["model"]["vocab"],)


def read_post_processor(written: Any) -> PostProcessor:
    """Post-processor object of the library from the "post_processor" of a tokenizer.json."""
    model = {"type": "BPE", "vocab": {}, "merges": []}
    parts = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "decoder"))
    whole = {"version": "1.0", "added_tokens": [], **parts, "post_processor": written, "model": model}
    with no_panic("post_processor"):
        return tokenizers.Tokenizer.from_str(json.dumps(whole)).post_processor


def check_table(table: Any, path: Path) -> None:
    """Check that the vocabulary read from `path` is a dict of token ids; raises ValueError if not."""
    if not isinstance(table, dict):
        raise ValueError(
            f"{path} must map every token to a whole number in vocab of its model, it has {shown(table)}"
        )
    check_vocabulary(table, str(path))


def _read(reader: Any, *paths: Path) -> Any:
    """Read vocabulary files by a reader of the library, after a size check; ValueError if it fails."""
    for path in paths:
        check_file(path, contents.MAX_JSON_BYTES)
    try:
        with no_panic(" and ".join(map(str, paths))):
            return reader(*map(str, paths))
    except Exception as error:  # the library raises nothing narrower, and names no token
        for path in paths:
            if path.suffix == ".json":
                check_vocabulary(read_json(path), str(path))
        names = " and ".join(map(str, paths))
        raise ValueError(f"{names} cannot be read as a vocabulary: {error}") from error


def _library_token(token: AddedToken) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(token.content, **{flag: getattr(token, flag) for flag in _FLAGS})


def _pair_limits(first: int, second: int, limit: int) -> tuple[int, int]:
    """Lengths of a pair's texts after "longest_first" truncation to `limit` tokens in all."""
    short, long = min(first, second), max(first, second)
    long = short if short > limit else max(short, limit - short)
    if short + long > limit:
        short = limit // 2
        long = short + limit % 2
    return (long, short) if first > second else (short, long)
