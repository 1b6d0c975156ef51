"""Base class of tokenizers: encode and decode text, pad batches, read and write tokenizer files."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from ..checkpoints.files import Checkpoint, open_checkpoint, write_json
from ..checkpoints.hub import PushToHub
from ..core.batches import BatchFeature, as_list, column, is_batch, one_of, padded_length, pairs, stack
from .options import COMMON_OPTIONS, CONFIG_FILE, NEUTRAL_OPTIONS, AddedToken, saved_options
from .special_tokens import Ids, SpecialTokens

_STRATEGIES = (True, False, "longest_first", "only_first", "only_second", "do_not_truncate")


class Encoded(NamedTuple):
    """Token ids, token types and special-token mask of one encoded text or pair."""

    ids: Ids
    types: Ids  # 1 for the second text of a pair, in models with token types
    special: Ids  # 1 for a special token


class Tokenizer(SpecialTokens, PushToHub, ABC):
    """Base class of tokenizers, which encode text to token ids and decode token ids to text.

    A subclass defines its special tokens and options (`SpecialTokens`), its vocabulary files, and how it
    encodes a text and decodes ids.
    """

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary, without added tokens."""

    @abstractmethod
    def get_vocab(self) -> dict[str, int]:
        """Vocabulary with added tokens: a dict from token to id."""

    @abstractmethod
    def tokenize(self, text: str) -> list[str]:
        """Split a text into tokens; adds no special tokens, and keeps those in the text whole."""

    @abstractmethod
    def _encode(
        self, text: str, pair: str | None, special: bool, limit: int | None, strategy: str
    ) -> Encoded:
        """Encode a text or pair, truncated by `strategy` to `limit` tokens, special ones included."""

    @abstractmethod
    def _decode(self, token_ids: Any, skip_special_tokens: bool) -> str:
        """Decode token ids, or one id, to text, before `clean_up_tokenization_spaces`."""

    @abstractmethod
    def _tokens(self, ids: Ids) -> list[Any]:
        """Tokens of ids."""

    @abstractmethod
    def _bytes(self, token: str) -> bytes:
        """Bytes that a token of the vocabulary adds to a text, with the space of its word."""

    @property
    @abstractmethod
    def _added(self) -> dict[int, AddedToken]:
        """Added tokens by id; text is split at them before it is tokenized."""

    @classmethod
    @abstractmethod
    def _vocabulary(cls, checkpoint: Checkpoint) -> tuple[Any, ...]:
        """Positional arguments of the constructor, read from a checkpoint's vocabulary files."""

    @abstractmethod
    def _save_vocabulary(self, folder: Path) -> tuple[str, ...]:
        """Write the vocabulary files that `_vocabulary` reads; returns their paths."""

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
            text_target: texts to encode in the target language; with `text` too, their ids are `labels`.
            add_special_tokens: add the special tokens that the model expects around a text.
            padding: True or "longest", "max_length", or False; to a multiple of `pad_to_multiple_of`.
            truncation: True or "longest_first", "only_first", "only_second", or False. None truncates if
                `max_length` is given and padding is off.
            max_length: maximum length in tokens, special ones included; `model_max_length` by default.
            return_tensors: "pt", "np", or None for lists of int.
            return_attention_mask, return_token_type_ids: return these; by default if the model takes them.
            return_special_tokens_mask: return a mask, 1 for special tokens around the text and for padding.

        Returns:
            `input_ids` and the rest as int64 [batch, tokens]; [tokens] for one text without return_tensors.

        Raises:
            ValueError: an input is not text, an option is invalid, or texts of a tensor differ in length.
        """
        if text is None and text_target is None:
            raise ValueError("give text, text_target or both")
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
        strategy = truncation if isinstance(truncation, str) else "longest_first"

        def encode(texts: Any, seconds: Any) -> BatchFeature:
            encoded = [
                self._encode(*pair, add_special_tokens, limit, strategy) for pair in pairs(texts, seconds)
            ]
            columns = {"input_ids": [one.ids for one in encoded]}
            if self._returns("token_type_ids", return_token_type_ids):
                columns["token_type_ids"] = [one.types for one in encoded]
            if self._returns("attention_mask", return_attention_mask):
                columns["attention_mask"] = [[1] * len(one.ids) for one in encoded]
            if return_special_tokens_mask:
                columns["special_tokens_mask"] = [one.special for one in encoded]
            batch = self._padded(columns, padding, max_length, pad_to_multiple_of, return_tensors)
            if isinstance(texts, str) and return_tensors is None:
                return BatchFeature({name: values[0] for name, values in batch.items()})
            return batch

        if text_target is None:
            return encode(text, text_pair)
        with self._as_target():
            targets = encode(text_target, None)
        if text is None:
            return targets
        batch = encode(text, text_pair)
        batch["labels"] = targets["input_ids"]
        return batch

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Pad separately encoded texts to a batch, as a training loop's collator does.

        Args:
            encoded_inputs: list of outputs for one text each, or a dict of lists; `input_ids` and
                `token_type_ids` are read, the attention mask is recomputed.
            padding, max_length, pad_to_multiple_of, return_attention_mask, return_tensors: as in `__call__`.

        Raises:
            ValueError: no input_ids, or an invalid option value.
        """
        one_of("return_tensors", return_tensors, ("pt", "np", None))
        columns = {"input_ids": [as_list(ids) for ids in column(encoded_inputs, "input_ids")]}
        first = encoded_inputs if isinstance(encoded_inputs, dict) else encoded_inputs[0]
        if "token_type_ids" in first:
            columns["token_type_ids"] = [as_list(ids) for ids in column(encoded_inputs, "token_type_ids")]
        if self._returns("attention_mask", return_attention_mask):
            columns["attention_mask"] = [[1] * len(ids) for ids in columns["input_ids"]]
        return self._padded(columns, padding, max_length, pad_to_multiple_of, return_tensors)

    def _padded(
        self,
        columns: dict[str, list[Ids]],
        padding: bool | str,
        max_length: int | None,
        multiple: int | None,
        return_tensors: str | None,
    ) -> BatchFeature:
        """Pad the columns of a batch, and stack them to tensors if `return_tensors` is set."""
        lengths = [len(ids) for ids in columns["input_ids"]]
        padded = padded_length(lengths, padding, max_length, multiple)
        if self.pad_token_id is None and any(length < padded for length in lengths):
            raise ValueError("there is no pad_token to pad with; set one, for example to eos_token")
        fillers = {"input_ids": self.pad_token_id, "special_tokens_mask": 1}
        batch = BatchFeature()
        for name, values in columns.items():
            whole = [self._pad(one, padded, fillers.get(name, 0)) for one in values]
            if return_tensors is not None:
                whole = stack([np.array(one, dtype=np.int64) for one in whole], return_tensors)
            batch[name] = whole
        return batch

    def _returns(self, name: str, asked: bool | None) -> bool:
        return name in self.model_input_names if asked is None else asked

    def _pad(self, ids: Ids, length: int, value: Any) -> Ids:
        filler = [value] * (length - len(ids))
        return ids + filler if self.padding_side == "right" else filler + ids

    @contextmanager
    def _as_target(self) -> Iterator[None]:
        """Context manager in which texts are encoded in the target language."""
        yield

    def encode(self, text: str, text_pair: str | None = None, **options: Any) -> Any:
        """Encode one text or pair to its `input_ids`; options as in `__call__`."""
        return self(text, text_pair, **options)["input_ids"]

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:
        """Decode token ids (one id, [tokens] or [batch, tokens], as list, array or tensor) to text or texts.

        `clean_up_tokenization_spaces` removes spaces before punctuation and English contractions.
        """
        token_ids = as_list(token_ids)
        if is_batch(token_ids):
            return [self.decode(one, skip_special_tokens, clean_up_tokenization_spaces) for one in token_ids]
        text = self._decode(token_ids, skip_special_tokens)
        return self._cleaned(text) if self._cleans(clean_up_tokenization_spaces) else text

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        """Decode each sequence of token ids to text; further arguments as in `decode`."""
        texts = self.decode(sequences, *args, **kwargs) if len(sequences) else []
        return [texts] if isinstance(texts, str) else texts

    def token_bytes(self, token_ids: Iterable[int]) -> list[bytes]:
        """UTF-8 bytes that each token adds to a decoded text, with the space of its word.

        Those of a text's tokens join to it, but for spaces at its ends or that `decode` cleans up. A token
        may be a part of a character. Special tokens have none, nor have Whisper's times.
        """
        ids, special, added = list(map(int, token_ids)), set(self.all_special_ids), self._added

        def of(index: int, token: str | None) -> bytes:
            one = added.get(index)
            if token is None or index in special or (one is not None and one.special):
                return b""
            return self._bytes(token) if one is None else one.content.encode()

        return [of(index, token) for index, token in zip(ids, self._tokens(ids), strict=True)]

    def _cleans(self, asked: bool | None) -> bool:
        return self.clean_up_tokenization_spaces if asked is None else asked

    def _cleaned(self, text: str) -> str:
        for spaced in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
            text = text.replace(spaced, spaced.strip())
        return text

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """Id of a token, or list of ids of several; unknown tokens get the id of `unk_token`."""
        return self._id(tokens) if isinstance(tokens, str) else [self._id(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """Token of an id, or list of tokens of several ids."""
        if isinstance(ids, int):
            return self._tokens([ids])[0]
        skip = set(self.all_special_ids) if skip_special_tokens else set()
        return self._tokens([index for index in map(int, ids) if index not in skip])

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike[str] | Checkpoint, **kwargs: Any) -> Self:
        """Load a tokenizer from a checkpoint: a folder or the id of a repository on the Hub.

        Besides the vocabulary files it reads tokenizer_config.json (of transformers 4 or 5),
        special_tokens_map.json and added_tokens.json where they exist. `kwargs` are `files.HUB_OPTIONS`, and
        constructor arguments, which override the files.

        Raises:
            OSError: no such checkpoint or file, or the Hub does not answer.
            ValueError: a malformed file.
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
        except ValueError as error:
            if overrides or str(checkpoint) in str(error):
                raise  # the mistake may be the caller's rather than a file's
            raise ValueError(f"{checkpoint}: {error}") from error
        except (AttributeError, OverflowError, TypeError) as error:
            if overrides:
                raise
            raise ValueError(f"{checkpoint} has settings that make no tokenizer: {error}") from error

    @classmethod
    def _added_in_vocabulary(cls, checkpoint: Checkpoint) -> dict[int, AddedToken]:
        """Added tokens by id, read from the vocabulary files of a checkpoint."""
        return {}

    def save_pretrained(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write files that `from_pretrained` loads, here and in transformers; returns their paths."""
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
