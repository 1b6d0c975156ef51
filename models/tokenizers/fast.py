"""Tokenizers that the `tokenizers` library runs: a family says how its pipeline is made of a vocabulary."""

import base64
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

from ..checkpoints.files import Checkpoint, check_size, read_json
from .base import Row, Tokenizer
from .options import AddedToken, as_added
from .sentencepiece_model import read_sentencepiece
from .slow import check_vocabulary

LIBRARY_FILE = "tokenizer.json"

Merges = list[tuple[str, str]]
Pieces = list[tuple[str, float]]
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class LibraryTokenizer(Tokenizer):
    """Text to token ids and back through the `tokenizers` library.

    As in transformers 5, the pipeline is the family's own: of a tokenizer.json the vocabulary counts, and
    the added tokens.

    Args:
        *vocabulary: what the family's `_build` takes.
        **options: special tokens, the family's settings, and what every `Tokenizer` takes.

    Raises:
        ValueError: a vocabulary that makes no tokenizer, or an option's bad value; TypeError: for its name.
    """

    backend: tokenizers.Tokenizer
    model: str  # the library's name of it

    def __init__(self, *vocabulary: Any, **options: Any) -> None:
        for name, value in self._configure(options).items():
            setattr(self, name, value)
        try:
            self.backend = self._build(*vocabulary)
            self._add(options.get("added_tokens_decoder") or {})
            self._wrap()
        except (OSError, ValueError):
            raise
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"the vocabulary makes no {type(self).__name__}: {error}") from error

    @abstractmethod
    def _build(self, *vocabulary: Any) -> tokenizers.Tokenizer:
        """Normalizer, splitting, model and decoder, of the vocabulary."""

    @abstractmethod
    def _around(self) -> PostProcessor:
        """What puts the special tokens around a text and a pair."""

    def _wrap(self) -> None:
        self.backend.post_processor = self._around()

    def _add(self, added: dict[Any, Any]) -> None:
        """Have text split at these tokens, in the order of their ids, and at the special ones."""
        tokens = {
            token.content: token for _, token in sorted((int(i), as_added(t)) for i, t in added.items())
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
        """Tokens of the vocabulary, without added ones."""
        return self.backend.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self.backend.get_vocab_size(with_added_tokens=True)

    def get_vocab(self) -> dict[str, int]:
        """Every token with its id."""
        return self.backend.get_vocab(with_added_tokens=True)

    def tokenize(self, text: str) -> list[str]:
        """Pieces of a text, with nothing added around it; special tokens inside it stay whole."""
        return self.backend.encode(text, add_special_tokens=False).tokens

    def _row(self, text: str, pair: str | None, special: bool, limit: int | None, cut: str) -> Row:
        first = self.backend.encode(text, add_special_tokens=False)
        second = None if pair is None else self.backend.encode(pair, add_special_tokens=False)
        processor = self.backend.post_processor
        if limit is not None:
            around = processor.num_special_tokens_to_add(second is not None) if special else 0
            self._truncate(first, second, max(0, limit - around), cut)
        whole = processor.process(first, second, special)
        return Row(whole.ids, whole.type_ids, whole.special_tokens_mask)

    def _truncate(self, first: Encoding, second: Encoding | None, keep: int, cut: str) -> None:
        """Cut a text or pair to `keep` tokens together."""
        over = len(first) + (0 if second is None else len(second)) - keep
        if over <= 0:
            return
        if cut == "longest_first":
            of_first, of_second = _shares(len(first), 0 if second is None else len(second), keep)
            first.truncate(keep if second is None else of_first, direction=self.truncation_side)
            if second is not None:
                second.truncate(of_second, direction=self.truncation_side)
            return
        if not keep:  # both go, whichever was to be cut, as in the library
            for one in filter(None, (first, second)):
                one.truncate(0)
            return
        target = first if cut == "only_first" else second
        if target is None or len(target) <= over:
            raise ValueError(
                f"truncation={cut!r} cannot take away {over} tokens of "
                f"{'no second text' if target is None else f'a text of {len(target)}'}; "
                "use truncation='longest_first' or a larger max_length"
            )
        target.truncate(len(target) - over, direction=self.truncation_side)

    def _text(self, token_ids: Any, skip_special_tokens: bool) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else [int(index) for index in token_ids]
        if any(index < 0 for index in ids):
            raise ValueError(
                f"{min(ids)} is no token id; in labels, replace -100 by pad_token_id before decoding"
            )
        return self.backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def _cleans(self, asked: bool | None) -> bool:
        if not super()._cleans(asked):
            return False
        if self.model == "BPE":  # as in transformers: its tokens hold the spaces that the text had
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

    def _token(self, index: int) -> Any:
        return self.backend.id_to_token(index)

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Tokens joined to text."""
        return self.backend.decoder.decode(list(tokens))

    @classmethod
    def _added_in_vocabulary(cls, checkpoint: Checkpoint) -> dict[int, AddedToken]:
        path = checkpoint.find(LIBRARY_FILE)
        tokens = [] if path is None else read_json(path).get("added_tokens") or []
        try:
            return {token["id"]: as_added(token) for token in tokens}
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} has added_tokens that are none: {error!r}") from error

    def _save_vocabulary(self, folder: Path) -> tuple[str, ...]:
        path = folder / LIBRARY_FILE
        path.write_text(self.backend.to_str(pretty=True) + "\n", encoding="utf-8")
        return (str(path),)

    def _template(self, single: str, pair: str) -> PostProcessor:
        """Special tokens around texts, in the library's notation ("[CLS]:0 $A:0 [SEP]:0")."""
        words = {word.rpartition(":")[0] for word in (*single.split(" "), *pair.split(" "))}
        names = [word for word in words if word and not word.startswith("$")]
        return TemplateProcessing(
            single=single, pair=pair, special_tokens=[(name, self._id(name)) for name in names]
        )

    @classmethod
    def _library_file(cls, checkpoint: Checkpoint) -> tuple[dict[str, Any], Path] | None:
        """What a checkpoint's tokenizer.json holds, and where it is; None where there is no such file.

        Raises:
            ValueError: its model is of another kind.
        """
        path = checkpoint.find(LIBRARY_FILE)
        if path is None:
            return None
        fields = read_json(path)
        model = fields.get("model")
        kind = model.get("type", cls.model) if isinstance(model, dict) else None  # old files do not say it
        if kind != cls.model:
            raise ValueError(f"{path} has a model of type {kind!r}; a {cls.__name__} needs {cls.model!r}")
        return fields, path


class BytePairTokenizer(LibraryTokenizer):
    """Byte-pair encoding: a vocabulary and its merges, from tokenizer.json or vocab.json and merges.txt."""

    model = "BPE"

    @classmethod
    def _vocabulary(cls, checkpoint: Checkpoint) -> tuple[Any, ...]:
        """From token to id, the merges, and the "post_processor" of a tokenizer.json."""
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
    """Word pieces: a vocabulary from tokenizer.json or vocab.txt."""

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


class UnigramTokenizer(LibraryTokenizer):
    """A unigram model of SentencePiece: from tokenizer.json, or from the model's own file."""

    model = "Unigram"
    model_file: ClassVar[str]

    @classmethod
    @abstractmethod
    def _arranged(cls, pieces: Pieces) -> Pieces:
        """A SentencePiece model's pieces in the order of the family's ids."""

    @classmethod
    def _vocabulary(cls, checkpoint: Checkpoint) -> tuple[Any, ...]:
        """Pieces with their scores in the order of their ids, and the compiled rules of normalization."""
        if (found := cls._library_file(checkpoint)) is None:
            if (path := checkpoint.find(cls.model_file)) is None:
                raise checkpoint.lacks(f"tokenizer.json, nor {cls.model_file}")
            read = read_sentencepiece(path)
            return cls._arranged(list(read.pieces)), read.charsmap
        fields, path = found
        try:
            pieces = [(str(piece), float(score)) for piece, score in fields["model"]["vocab"]]
            return pieces, _charsmap(fields.get("normalizer"))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} has no vocabulary of pieces with scores: {error!r}") from error


def byte_level(
    vocab: dict[str, int] | str, merges: Merges | str, add_prefix_space: bool
) -> tokenizers.Tokenizer:
    """GPT-2's pipeline, and RoBERTa's: byte-pair encoding of bytes written as letters."""
    if isinstance(vocab, str) and isinstance(merges, str):
        vocab, merges = _read(BPE.read_file, Path(vocab), Path(merges))
    model = BPE(vocab, merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.decoder = tokenizers.decoders.ByteLevel()
    return backend


def processor_of(written: Any) -> PostProcessor | None:
    """The "post_processor" of a tokenizer.json as the library's object."""
    if written is None:
        return None
    model = {"type": "BPE", "vocab": {}, "merges": []}
    parts = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "decoder"))
    whole = {"version": "1.0", "added_tokens": [], **parts, "post_processor": written, "model": model}
    return tokenizers.Tokenizer.from_str(json.dumps(whole)).post_processor


def check_table(table: Any, path: Path) -> None:
    """Refuse a vocabulary that is no table from token to whole number."""
    if not isinstance(table, dict):
        raise ValueError(f"{path} must map every token to a whole number, it has a {type(table).__name__}")
    check_vocabulary(table, str(path))


def _read(reader: Any, *paths: Path) -> Any:
    """What the library reads from files, after a look at their size."""
    for path in paths:
        check_size(path)
    try:
        return reader(*map(str, paths))
    except Exception as error:  # the library raises nothing narrower
        names = " and ".join(map(str, paths))
        raise ValueError(f"{names} cannot be read as a vocabulary: {error}") from error


def _library_token(token: AddedToken) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(token.content, **{flag: getattr(token, flag) for flag in _FLAGS})


def _shares(first: int, second: int, keep: int) -> tuple[int, int]:
    """What is kept of the two texts of a pair, of these lengths: the longer one is cut first."""
    short, long = min(first, second), max(first, second)
    long = short if short > keep else max(short, keep - short)
    if short + long > keep:
        short = keep // 2
        long = short + keep % 2
    return (long, short) if first > second else (short, long)


def _charsmap(normalizer: Any) -> bytes | None:
    """The compiled rules of normalization in the "normalizer" of a tokenizer.json."""
    steps = (normalizer or {}).get("normalizers", [normalizer]) if isinstance(normalizer, dict) else []
    for step in steps:
        if step.get("type") == "Precompiled" and step.get("precompiled_charsmap"):
            return base64.b64decode(step["precompiled_charsmap"])
    return None
