"""What every tokenizer does: options, special tokens, rows and batches of ids, and a checkpoint's files."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from ..checkpoints.files import Checkpoint, open_checkpoint, write_json
from ..checkpoints.hub import PushToHub
from ..core.batches import BatchFeature, as_list, column, is_batch, one_of, padded_length, pairs, stack
from .options import (
    COMMON_OPTIONS,
    CONFIG_FILE,
    NAMED_TOKENS,
    NEUTRAL_OPTIONS,
    OTHER_OPTIONS,
    AddedToken,
    as_added,
    content_of,
    saved_options,
)

Ids = list[int]

_SIDES = ("right", "left")
_NO_LIMIT = int(1e30)  # transformers writes this for a checkpoint that names no model_max_length
_STRATEGIES = (True, False, "longest_first", "only_first", "only_second", "do_not_truncate")


def _role(name: str) -> tuple[Any, Any]:
    """The properties of a special token: its text, which can be set, and its id; None where there is none."""

    def text(self: "Tokenizer") -> str | None:
        return self._named.get(name)

    def put(self: "Tokenizer", token: Any) -> None:
        self._named.pop(name, None)
        if token is not None:
            self._named[name] = content_of(token)

    def index(self: "Tokenizer") -> Any:
        return self._id(self._named[name]) if name in self._named else None

    return property(text, put), property(index)


class Row(NamedTuple):
    """One text, or a pair, as ids; the types are 1 for the second text of a pair where the model asks."""

    ids: Ids
    types: Ids
    special: Ids


class Tokenizer(PushToHub, ABC):
    """Text to token ids and back.

    A family gives the defaults of its special tokens (`special_tokens`) and of its own options (`settings`),
    the files of its vocabulary, and how a text becomes a row and ids a text.
    """

    model_input_names: tuple[str, ...] = ("input_ids", "attention_mask")  # the family's, or a checkpoint's
    special_tokens: ClassVar[dict[str, Any]] = {}
    settings: ClassVar[dict[str, Any]] = {}
    neutral: ClassVar[frozenset[str]] = frozenset()  # options that other versions wrote, without effect

    bos_token, bos_token_id = _role("bos_token")
    eos_token, eos_token_id = _role("eos_token")
    unk_token, unk_token_id = _role("unk_token")
    sep_token, sep_token_id = _role("sep_token")
    pad_token, pad_token_id = _role("pad_token")
    cls_token, cls_token_id = _role("cls_token")
    mask_token, mask_token_id = _role("mask_token")

    padding_side: str
    truncation_side: str
    lang_code_to_id: dict[str, int]  # of a tokenizer of several languages; otherwise empty

    def _configure(self, options: dict[str, Any]) -> dict[str, Any]:
        """Take the special tokens and the common options out of a constructor's; what is left are settings.

        Raises:
            ValueError: an option's bad value; TypeError: for its name.
        """
        given = {name: value for name, value in options.items() if value is not None}
        if given.pop("split_special_tokens", False):
            raise TypeError("split_special_tokens=True is not supported; leave it out")
        names = self._option_names()
        if unknown := sorted(given.keys() - names - NEUTRAL_OPTIONS - self.neutral):
            raise TypeError(f"there is no option {unknown[0]!r}; there are {', '.join(sorted(names))}")
        longest = given.get("model_max_length", given.get("max_len", _NO_LIMIT))
        if isinstance(longest, bool) or not isinstance(longest, int | float) or longest < 1:
            raise ValueError(f"model_max_length must be a number of tokens, got {longest!r}")
        self.model_max_length = int(longest)
        self.padding_side = one_of("padding_side", given.get("padding_side", "right"), _SIDES)
        self.truncation_side = one_of("truncation_side", given.get("truncation_side", "right"), _SIDES)
        self.clean_up_tokenization_spaces = bool(given.get("clean_up_tokenization_spaces", False))
        self.processor_class: str | None = given.get("processor_class")
        if (returned := given.get("model_input_names")) is not None:
            if isinstance(returned, str) or not all(isinstance(name, str) for name in returned):
                raise ValueError(f"model_input_names must be a list of names, got {returned!r}")
            self.model_input_names = tuple(returned)
        self.lang_code_to_id = {}

        chosen = {name: options.get(name, default) for name, default in self.special_tokens.items()}
        for name, default in self.special_tokens.items():
            if isinstance(chosen[name], str) and isinstance(default, AddedToken):
                chosen[name] = replace(default, content=chosen[name])  # its flags belong to the role
        self._named = {name: content_of(token) for name, token in chosen.items() if token is not None}
        self._declared = {
            content_of(token): as_added(token) for token in chosen.values() if token is not None
        }
        more = given.get("extra_special_tokens", [])
        extra = [
            *given.get("additional_special_tokens", ()),
            *(more.values() if isinstance(more, dict) else more),
        ]
        self._declared |= {content_of(token): as_added(token) for token in extra}
        self._set_extra(map(content_of, extra))
        return {name: given.get(name, default) for name, default in self.settings.items()}

    @classmethod
    def _option_names(cls) -> set[str]:
        return {*cls.special_tokens, *cls.settings, *COMMON_OPTIONS, *OTHER_OPTIONS}

    def _set_extra(self, tokens: Iterable[str]) -> None:
        named = set(self._named.values())
        self.additional_special_tokens = [token for token in dict.fromkeys(tokens) if token not in named]

    @property
    def extra_special_tokens(self) -> list[str]:
        """Special tokens without a role; transformers' newer name of `additional_special_tokens`."""
        return self.additional_special_tokens

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The special tokens that have a role, by its name."""
        return dict(self._named)

    @property
    def all_special_tokens(self) -> list[str]:
        """Every special token, which skip_special_tokens leaves out."""
        roles = (*NAMED_TOKENS, *(name for name in self._named if name not in NAMED_TOKENS))
        named = [self._named[name] for name in roles if name in self._named]
        return list(dict.fromkeys(named + self.additional_special_tokens))

    @property
    def all_special_ids(self) -> Ids:
        """Ids of `all_special_tokens`."""
        return [self._id(token) for token in self.all_special_tokens]

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Tokens of the vocabulary, without added ones."""

    @abstractmethod
    def get_vocab(self) -> dict[str, int]:
        """Every token with its id."""

    @abstractmethod
    def tokenize(self, text: str) -> list[str]:
        """Pieces of a text, with nothing added around it; special tokens inside it stay whole."""

    @abstractmethod
    def _row(self, text: str, pair: str | None, special: bool, limit: int | None, cut: str) -> Row:
        """Ids of a text or pair, cut by the strategy `cut` so that with special ones there are `limit`."""

    @abstractmethod
    def _text(self, token_ids: Any, skip_special_tokens: bool) -> str:
        """The text of ids, or of one id, spaces not yet cleaned up."""

    @abstractmethod
    def _id(self, token: str) -> Any:
        """The id of a token; the unknown token's for one without, None if there is no unknown token."""

    @abstractmethod
    def _token(self, index: int) -> Any:
        """The token of an id."""

    @property
    @abstractmethod
    def _added(self) -> dict[int, AddedToken]:
        """The tokens that text is split at, by id."""

    @classmethod
    @abstractmethod
    def _vocabulary(cls, checkpoint: Checkpoint) -> tuple[Any, ...]:
        """The constructor's arguments that are read from a checkpoint's files of the vocabulary."""

    @abstractmethod
    def _save_vocabulary(self, folder: Path) -> tuple[str, ...]:
        """Write the files that `_vocabulary` reads; returns their paths."""

    def __len__(self) -> int:
        return len(self.get_vocab())

    def __call__(
        self,
        text: str | Sequence[Any] | None = None,
        text_pair: str | Sequence[str] | None = None,
        *,
        text_target: str | Sequence[Any] | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool | None = None,
        return_token_type_ids: bool | None = None,
        return_special_tokens_mask: bool = False,
    ) -> BatchFeature:
        """Encode a text or a pair of texts, or a batch of them.

        Args:
            text: one text, or a list of texts or of pairs.
            text_pair: the second text of the pair, or a list of them.
            text_target: texts to encode as the target language's; with `text` too, they become `labels`.
            add_special_tokens: those that the model expects around a text.
            padding: True or "longest", "max_length", or False; to a multiple of `pad_to_multiple_of`.
            truncation: True or "longest_first", "only_first", "only_second", or False. None truncates where
                `max_length` is given and nothing is padded.
            max_length: tokens of a row, special ones included; `model_max_length` by default.
            return_tensors: "pt", "np", or None for lists of int.
            return_attention_mask, return_token_type_ids: as the model takes them, by default.
            return_special_tokens_mask: 1 where a token was added around the text, or is padding.

        Returns:
            `input_ids` and what else is returned: [batch, tokens], or [tokens] for one text without
            return_tensors.

        Raises:
            ValueError: not text, a bad option, or tensors asked for of texts of different lengths.
        """
        options: dict[str, Any] = {
            "add_special_tokens": add_special_tokens,
            "padding": padding,
            "truncation": truncation,
            "max_length": max_length,
            "pad_to_multiple_of": pad_to_multiple_of,
            "return_tensors": return_tensors,
            "return_attention_mask": return_attention_mask,
            "return_token_type_ids": return_token_type_ids,
            "return_special_tokens_mask": return_special_tokens_mask,
        }
        if text is None and text_target is None:
            raise ValueError("give text, text_target or both")
        if text_target is None:
            return self._batch(text, text_pair, **options)
        with self._as_target():
            targets = self._batch(text_target, None, **options)
        if text is None:
            return targets
        batch = self._batch(text, text_pair, **options)
        batch["labels"] = targets["input_ids"]
        return batch

    def _batch(
        self,
        text: Any,
        text_pair: Any,
        *,
        add_special_tokens: bool,
        padding: bool | str,
        truncation: bool | str | None,
        max_length: int | None,
        pad_to_multiple_of: int | None,
        return_tensors: str | None,
        return_attention_mask: bool | None,
        return_token_type_ids: bool | None,
        return_special_tokens_mask: bool,
    ) -> BatchFeature:
        one_of("return_tensors", return_tensors, ("pt", "np", None))
        if truncation is None:
            truncation = max_length is not None and padding in (False, "do_not_pad")
        one_of("truncation", truncation, _STRATEGIES)
        if max_length is None and self.model_max_length < 10**20:
            max_length = self.model_max_length
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        limit = max_length if truncation and truncation != "do_not_truncate" else None
        if limit and limit % (pad_to_multiple_of or 1) and padding not in (False, "do_not_pad"):
            raise ValueError(f"to cut to max_length {limit}, it must be a multiple of pad_to_multiple_of")

        cut = truncation if isinstance(truncation, str) else "longest_first"
        single = isinstance(text, str) and return_tensors is None
        rows = [self._row(*one, add_special_tokens, limit, cut) for one in pairs(text, text_pair)]
        columns = {"input_ids": [row.ids for row in rows]}
        if self._returns("token_type_ids", return_token_type_ids):
            columns["token_type_ids"] = [row.types for row in rows]
        if self._returns("attention_mask", return_attention_mask):
            columns["attention_mask"] = [[1] * len(row.ids) for row in rows]
        if return_special_tokens_mask:
            columns["special_tokens_mask"] = [row.special for row in rows]
        batch = self._padded(columns, padding, max_length, pad_to_multiple_of, return_tensors)
        return BatchFeature({name: values[0] for name, values in batch.items()}) if single else batch

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Texts that were encoded one by one, as one batch; what a training loop's collator needs.

        Args:
            encoded_inputs: what the tokenizer returned for one text each, or a dict of lists; of it
                `input_ids` are read, and `token_type_ids` where there are some.
            padding, max_length, pad_to_multiple_of, return_attention_mask, return_tensors: as in `__call__`.

        Raises:
            ValueError: no input_ids, or an option's bad value.
        """
        one_of("return_tensors", return_tensors, ("pt", "np", None))
        columns = {"input_ids": [as_list(row) for row in column(encoded_inputs, "input_ids")]}
        first = encoded_inputs if isinstance(encoded_inputs, dict) else encoded_inputs[0]
        if "token_type_ids" in first:
            columns["token_type_ids"] = [as_list(row) for row in column(encoded_inputs, "token_type_ids")]
        if self._returns("attention_mask", return_attention_mask):
            columns["attention_mask"] = [[1] * len(row) for row in columns["input_ids"]]
        return self._padded(columns, padding, max_length, pad_to_multiple_of, return_tensors)

    def _padded(
        self,
        columns: dict[str, list[Ids]],
        padding: bool | str,
        max_length: int | None,
        multiple: int | None,
        return_tensors: str | None,
    ) -> BatchFeature:
        """Rows of ids and of what goes with them, padded, and stacked where that is asked for."""
        lengths = [len(row) for row in columns["input_ids"]]
        padded = padded_length(lengths, padding, max_length, multiple)
        if self.pad_token_id is None and any(length < padded for length in lengths):
            raise ValueError("there is no pad_token to pad with; set one, for example to eos_token")
        fillers = {"input_ids": self.pad_token_id, "special_tokens_mask": 1}
        batch = BatchFeature()
        for name, rows in columns.items():
            whole = [self._pad(row, padded, fillers.get(name, 0)) for row in rows]
            if return_tensors is not None:
                whole = stack([np.array(row, dtype=np.int64) for row in whole], return_tensors)
            batch[name] = whole
        return batch

    def _returns(self, name: str, asked: bool | None) -> bool:
        return name in self.model_input_names if asked is None else asked

    def _pad(self, row: Ids, length: int, value: Any) -> Ids:
        filler = [value] * (length - len(row))
        return row + filler if self.padding_side == "right" else filler + row

    @contextmanager
    def _as_target(self) -> Iterator[None]:
        """In this context texts are encoded as the target language's."""
        yield

    def encode(self, text: str, text_pair: str | None = None, **options: Any) -> Any:
        """`input_ids` of one text or pair; options as in `__call__`."""
        return self(text, text_pair, **options)["input_ids"]

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:
        """The text of token ids [tokens] or of one id, in a list, array or tensor; texts of [batch, tokens].

        `clean_up_tokenization_spaces` takes away the space before punctuation marks and English contractions.
        """
        token_ids = as_list(token_ids)
        if is_batch(token_ids):
            return [self.decode(one, skip_special_tokens, clean_up_tokenization_spaces) for one in token_ids]
        text = self._text(token_ids, skip_special_tokens)
        return self._cleaned(text) if self._cleans(clean_up_tokenization_spaces) else text

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        """The text of each sequence of token ids, further arguments as in `decode`."""
        texts = self.decode(sequences, *args, **kwargs) if len(sequences) else []
        return [texts] if isinstance(texts, str) else texts

    def _cleans(self, asked: bool | None) -> bool:
        return self.clean_up_tokenization_spaces if asked is None else asked

    def _cleaned(self, text: str) -> str:
        for spaced in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
            text = text.replace(spaced, spaced.strip())
        return text

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """The id of a token, or the ids of several; the unknown token's for one without."""
        return self._id(tokens) if isinstance(tokens, str) else [self._id(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or the tokens of several."""
        if isinstance(ids, int):
            return self._token(ids)
        skip = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._token(int(index)) for index in ids if int(index) not in skip]

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike[str] | Checkpoint, **kwargs: Any) -> Self:
        """Load from a checkpoint: a folder or the id of a repository on the Hub.

        Where they exist it reads tokenizer_config.json (of transformers 4 or 5), special_tokens_map.json and
        added_tokens.json beside the files of the vocabulary. `kwargs` are `files.HUB_OPTIONS` and arguments
        of the constructor that go before the files'.

        Raises:
            OSError: no such checkpoint or file, or the Hub does not answer.
            ValueError: a broken file.
        """
        checkpoint, overrides = open_checkpoint(name_or_dir, **kwargs)
        options = saved_options(
            checkpoint,
            overrides,
            roles=cls.special_tokens,
            known=cls._option_names(),
            silent=NEUTRAL_OPTIONS | cls.neutral,
            in_vocabulary=cls._added_in_vocabulary,
        )
        vocabulary = cls._vocabulary(checkpoint)
        try:
            return cls(*vocabulary, **options)
        except (AttributeError, TypeError) as error:
            if overrides:
                raise  # theirs, as likely as a file's
            raise ValueError(f"{checkpoint} has settings that make no tokenizer: {error}") from error

    @classmethod
    def _added_in_vocabulary(cls, checkpoint: Checkpoint) -> dict[int, AddedToken]:
        """Added tokens that the files of the vocabulary hold."""
        return {}

    def save_pretrained(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write a folder that `from_pretrained` loads, here and in transformers; returns the paths."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {name: self._named.get(name) for name in self.special_tokens}
        others = {name: getattr(self, name) for name in (*self.settings, *COMMON_OPTIONS[:-1])}
        if self.model_input_names != type(self).model_input_names:
            others["model_input_names"] = list(self.model_input_names)
        options |= {name: value for name, value in others.items() if value is not None}
        added = sorted(self._added.items())
        options["added_tokens_decoder"] = {str(index): asdict(token) for index, token in added}
        options["tokenizer_class"] = type(self).__name__
        config = write_json(folder / CONFIG_FILE, options)
        return (config, *self._save_vocabulary(folder))
