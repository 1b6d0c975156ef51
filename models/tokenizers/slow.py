"""Base class of pure-Python tokenizers, which split text at added tokens, then into pieces."""

import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from ..checkpoints.contents import read_json
from ..checkpoints.files import Checkpoint, write_json
from ..core.field_types import shown
from .base import Encoded, Tokenizer
from .options import AddedToken, is_text, numbered_tokens
from .special_tokens import Ids

VOCAB_FILE = "vocab.json"


class PythonTokenizer(Tokenizer):
    """Base class of pure-Python tokenizers: a vocabulary dict, and added tokens with ids of their own."""

    special_tokens: ClassVar[dict[str, Any]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }

    encoder: dict[str, int]
    decoder: dict[int, str]
    added_tokens_decoder: dict[int, AddedToken]
    added_tokens_encoder: dict[str, int]

    def _number_added_tokens(self, added: dict[Any, Any]) -> None:
        """Assign ids to added and special tokens: from checkpoint or vocabulary, or new ones after it."""
        self.added_tokens_decoder = numbered_tokens(added, "added_tokens_decoder")
        ids = {token.content: index for index, token in self.added_tokens_decoder.items()}
        next_id = len(self.encoder | ids)
        for token in self.all_special_tokens:
            if token and token not in ids:
                ids[token] = self.encoder.get(token, next_id)
                next_id += token not in self.encoder
                self.added_tokens_decoder[ids[token]] = AddedToken(token)
        self.added_tokens_encoder = ids
        self._split_at_added()

    def _split_at_added(self) -> None:
        longest_first = sorted(filter(None, self.added_tokens_encoder), key=len, reverse=True)
        self._split_at = re.compile(
            f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "(?!)"
        )

    @property
    def _added(self) -> dict[int, AddedToken]:
        return self.added_tokens_decoder

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary, without added tokens."""
        return len(self.encoder)

    def get_vocab(self) -> dict[str, int]:
        """Vocabulary with added tokens: a dict from token to id."""
        return self.encoder | self.added_tokens_encoder

    @abstractmethod
    def _pieces(self, text: str) -> list[str]:
        """Split a text that has no added tokens into pieces."""

    @abstractmethod
    def convert_tokens_to_string(self, tokens: Sequence[str]) -> Any:
        """Join tokens to text."""

    def build_inputs_with_special_tokens(self, token_ids_0: Ids, token_ids_1: Ids | None = None) -> Ids:
        """Concatenate the token ids of one or two sequences; a subclass may add special tokens."""
        return [*token_ids_0, *(token_ids_1 or [])]

    def get_special_tokens_mask(
        self, token_ids_0: Ids, token_ids_1: Ids | None = None, already_has_special_tokens: bool = False
    ) -> Ids:
        """Mask of special tokens (1) in the built sequence, or in `token_ids_0` if it already has them."""
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise ValueError("token_ids_1 must be None where already_has_special_tokens is True")
            return [int(index in self.all_special_ids) for index in token_ids_0]
        return self._special_mask(token_ids_0, token_ids_1)

    def _special_mask(self, token_ids_0: Ids, token_ids_1: Ids | None) -> Ids:
        return [0] * len([*token_ids_0, *(token_ids_1 or [])])

    def create_token_type_ids_from_sequences(self, token_ids_0: Ids, token_ids_1: Ids | None = None) -> Ids:
        """Token types: 0 for special tokens and the first sequence, then 1 for the second sequence."""
        return [0] * len(self.build_inputs_with_special_tokens(token_ids_0)) + [1] * len(token_ids_1 or [])

    def _encode(
        self, text: str, pair: str | None, special: bool, limit: int | None, strategy: str
    ) -> Encoded:
        first: Ids = self.convert_tokens_to_ids(self.tokenize(text))
        second: Ids | None = None if pair is None else self.convert_tokens_to_ids(self.tokenize(pair))
        if limit is not None:
            around = len(self.build_inputs_with_special_tokens([], second and [])) if special else 0
            first, second = self._truncate(first, second, max(0, limit - around), strategy)
        if not special:
            ids = self._known([*first, *(second or [])])
            return Encoded(ids, [0] * len(ids), [0] * len(ids))
        return Encoded(
            self._known(self.build_inputs_with_special_tokens(first, second)),
            self.create_token_type_ids_from_sequences(first, second),
            self._special_mask(first, second),
        )

    def _known(self, ids: Sequence[int | None]) -> Ids:
        """Check that every token has an id. Raises ValueError where a special token is missing."""
        if None in ids:
            raise ValueError(
                f"{type(self).__name__} has no id for a token of a text: its unk_token or eos_token is "
                f"not set ({self.unk_token!r}, {self.eos_token!r}); set it, as in tokenizer_config.json"
            )
        return cast(Ids, ids)

    def _truncate(self, first: Ids, second: Ids | None, limit: int, strategy: str) -> tuple[Ids, Ids | None]:
        """Truncate a sequence or pair to `limit` tokens in all, as far as the strategy allows."""
        over = len(first) + len(second or []) - limit
        if over <= 0:
            return first, second
        if second is None or strategy == "only_first":
            return (self._drop(first, over) if strategy != "only_second" else first), second
        if strategy == "only_second":
            return first, self._drop(second, over)
        # Cut the longer one to the other's length, then one token of each in turn, the second one first.
        uneven = min(abs(len(first) - len(second)), over)
        from_first = (over - uneven) // 2 + (uneven if len(first) > len(second) else 0)
        return self._drop(first, from_first), self._drop(second, over - from_first)

    def _drop(self, ids: Ids, count: int) -> Ids:
        """Remove `count` ids at `truncation_side`."""
        remaining = max(0, len(ids) - count)
        return ids[:remaining] if self.truncation_side == "right" else ids[len(ids) - remaining :]

    def tokenize(self, text: str) -> list[str]:
        """Split a text into tokens; adds no special tokens, and keeps those in the text whole."""
        if not isinstance(text, str):
            raise ValueError(f"text must be a string, got {type(text).__name__}")
        parts = list(filter(None, self._split_at.split(text)))  # texts and added tokens
        last = len(parts) - 1
        for i, part in enumerate(parts):
            if part not in self.added_tokens_encoder:
                continue
            token = self.added_tokens_decoder[self.added_tokens_encoder[part]]
            before, behind = parts[i - 1] if i > 0 else "", parts[i + 1] if i < last else ""
            # A neighbor may be an added token too, such as a space that delimits words.
            if token.rstrip and behind:
                parts[i + 1] = behind.lstrip()
            if token.lstrip and before:
                parts[i - 1] = before.rstrip()
            if token.single_word and before and before[-1] != " ":
                parts[i - 1], parts[i] = parts[i - 1] + part, ""
            elif token.single_word and behind and behind[0] != " ":
                parts[i], parts[i + 1] = "", part + parts[i + 1]
        whole = self.added_tokens_encoder
        pieces = ([part] if part in whole else self._pieces(part) for part in parts if part)
        return [piece for group in pieces for piece in group]

    def _decode(self, token_ids: Any, skip_special_tokens: bool) -> str:
        tokens = self.convert_ids_to_tokens(token_ids, skip_special_tokens)
        return self.convert_tokens_to_string([tokens] if isinstance(tokens, str) else tokens)

    def _id(self, token: str) -> Any:
        index = self.added_tokens_encoder.get(token, self.encoder.get(token))
        return self.added_tokens_encoder.get(self.unk_token) if index is None else index

    def _tokens(self, ids: Ids) -> list[Any]:
        added, own, unknown = self.added_tokens_decoder, self.decoder, self.unk_token
        return [added[index].content if index in added else own.get(index, unknown) for index in ids]

    @classmethod
    def _vocabulary(cls, checkpoint: Checkpoint) -> tuple[Any, ...]:
        return (checkpoint.require(VOCAB_FILE),)

    def _files(self) -> dict[str, dict[str, Any] | bytes]:
        """Contents of the vocabulary files by file name, each a JSON object or bytes."""
        return {VOCAB_FILE: self.encoder}

    def save_vocabulary(
        self, save_directory: str | Path, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write the vocabulary files into an existing folder; returns their paths."""
        paths = []
        for name, content in self._files().items():
            path = Path(save_directory) / (f"{filename_prefix}-{name}" if filename_prefix else name)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                write_json(path, content)
            paths.append(str(path))
        return tuple(paths)

    def _save_vocabulary(self, folder: Path) -> tuple[str, ...]:
        return self.save_vocabulary(folder)


def read_vocabulary(path: str | Path) -> dict[str, int]:
    """Read a vocab.json, a dict from token to id; FileNotFoundError if missing, ValueError if malformed."""
    vocabulary = read_json(Path(path))
    check_vocabulary(vocabulary, str(path))
    return vocabulary


def check_vocabulary(vocabulary: dict[str, Any], where: str) -> None:
    """Check that a vocabulary maps tokens to non-negative ints; a ValueError names `where` it is from."""
    if not is_text("".join(vocabulary)):
        raise ValueError(f"{where} has a token with half a surrogate pair, which is no text; fetch it again")
    for token, index in vocabulary.items():
        if type(index) is not int or not 0 <= index < 2**31:
            raise ValueError(
                f"{where} must map every token to a whole number below 2**31: "
                f"it maps {shown(token)} to {shown(index)}"
            )
