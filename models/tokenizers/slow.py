"""Tokenizers whose vocabulary is a table of this process: text is split at added tokens, then into pieces."""

import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checkpoints.files import Checkpoint, read_json, write_json
from .base import Ids, Row, Tokenizer
from .options import AddedToken, as_added

VOCAB_FILE = "vocab.json"


class PythonTokenizer(Tokenizer):
    """A table from token to id, and the tokens added to it."""

    encoder: dict[str, int]
    decoder: dict[int, str]
    added_tokens_decoder: dict[int, AddedToken]
    added_tokens_encoder: dict[str, int]

    def _number_added_tokens(self, added: dict[Any, Any]) -> None:
        """Number the tokens that text is split at: like the checkpoint or the vocabulary, or after it."""
        self.added_tokens_decoder = {int(index): as_added(token) for index, token in added.items()}
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
        """Tokens of the vocabulary, without added ones."""
        return len(self.encoder)

    def get_vocab(self) -> dict[str, int]:
        """Every token with its id."""
        return self.encoder | self.added_tokens_encoder

    @abstractmethod
    def _pieces(self, text: str) -> list[str]:
        """The pieces of a text in which there is no added token."""

    @abstractmethod
    def convert_tokens_to_string(self, tokens: Sequence[str]) -> Any:
        """Tokens joined to text."""

    def build_inputs_with_special_tokens(self, token_ids_0: Ids, token_ids_1: Ids | None = None) -> Ids:
        """A sequence, or a pair of them, with the special tokens around it: none."""
        return [*token_ids_0, *(token_ids_1 or [])]

    def get_special_tokens_mask(
        self, token_ids_0: Ids, token_ids_1: Ids | None = None, already_has_special_tokens: bool = False
    ) -> Ids:
        """1 for special tokens, 0 for others: of the built sequence, or of `token_ids_0` as it is."""
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise ValueError("token_ids_1 must be None where already_has_special_tokens is True")
            return [int(index in self.all_special_ids) for index in token_ids_0]
        return self._special_mask(token_ids_0, token_ids_1)

    def _special_mask(self, token_ids_0: Ids, token_ids_1: Ids | None) -> Ids:
        return [0] * len([*token_ids_0, *(token_ids_1 or [])])

    def create_token_type_ids_from_sequences(self, token_ids_0: Ids, token_ids_1: Ids | None = None) -> Ids:
        """0 for the first sequence and the special tokens, 1 for as many as the second sequence has."""
        return [0] * len(self.build_inputs_with_special_tokens(token_ids_0)) + [1] * len(token_ids_1 or [])

    def _row(self, text: str, pair: str | None, special: bool, limit: int | None, cut: str) -> Row:
        first: Ids = self.convert_tokens_to_ids(self.tokenize(text))
        second: Ids | None = None if pair is None else self.convert_tokens_to_ids(self.tokenize(pair))
        if limit is not None:
            around = len(self.build_inputs_with_special_tokens([], second and [])) if special else 0
            first, second = self._cut(first, second, max(0, limit - around), cut)
        if not special:
            ids = [*first, *(second or [])]
            return Row(ids, [0] * len(ids), [0] * len(ids))
        return Row(
            self.build_inputs_with_special_tokens(first, second),
            self.create_token_type_ids_from_sequences(first, second),
            self._special_mask(first, second),
        )

    def _cut(self, first: Ids, second: Ids | None, keep: int, cut: str) -> tuple[Ids, Ids | None]:
        """A sequence or pair cut to `keep` tokens together, as far as the strategy allows."""
        over = len(first) + len(second or []) - keep
        if over <= 0:
            return first, second
        if second is None or cut == "only_first":
            return (self._ending(first, len(first) - over) if cut != "only_second" else first), second
        if cut == "only_second":
            return first, self._ending(second, len(second) - over)
        # First the longer one down to the other's length, then both by turns, the second one first.
        uneven = min(abs(len(first) - len(second)), over)
        rest = over - uneven
        from_first = rest // 2 + (uneven if len(first) > len(second) else 0)
        return self._ending(first, len(first) - from_first), self._ending(
            second, len(second) - (over - from_first)
        )

    def _ending(self, ids: Ids, keep: int) -> Ids:
        return ids[: max(0, keep)] if self.truncation_side == "right" else ids[max(0, len(ids) - keep) :]

    def tokenize(self, text: str) -> list[str]:
        """Pieces of a text, with nothing added around it; special tokens inside it stay whole."""
        if not isinstance(text, str):
            raise ValueError(f"text must be a string, got {type(text).__name__}")
        parts = list(filter(None, self._split_at.split(text)))  # texts and added tokens
        last = len(parts) - 1
        for i, part in enumerate(parts):
            if part not in self.added_tokens_encoder:
                continue
            token = self.added_tokens_decoder[self.added_tokens_encoder[part]]
            before, behind = parts[i - 1] if i > 0 else "", parts[i + 1] if i < last else ""
            # Its neighbor may be an added token too, of which a space is nothing but the delimiter of words.
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

    def _text(self, token_ids: Any, skip_special_tokens: bool) -> str:
        tokens = self.convert_ids_to_tokens(token_ids, skip_special_tokens)
        return self.convert_tokens_to_string([tokens] if isinstance(tokens, str) else tokens)

    def _id(self, token: str) -> Any:
        index = self.added_tokens_encoder.get(token, self.encoder.get(token))
        return self.added_tokens_encoder.get(self.unk_token) if index is None else index

    def _token(self, index: int) -> Any:
        added = self.added_tokens_decoder.get(index)
        return added.content if added else self.decoder.get(index, self.unk_token)

    @classmethod
    def _vocabulary(cls, checkpoint: Checkpoint) -> tuple[Any, ...]:
        return (checkpoint.require(VOCAB_FILE),)

    def save_vocabulary(
        self, save_directory: str | Path, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write vocab.json into a folder that exists; returns its path."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        return (write_json(Path(save_directory) / (prefix + VOCAB_FILE), self.encoder),)

    def _save_vocabulary(self, folder: Path) -> tuple[str, ...]:
        return self.save_vocabulary(folder)


def read_vocabulary(path: str | Path) -> dict[str, int]:
    """The table in a vocab.json.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a table from token to whole number.
    """
    vocabulary = read_json(Path(path))
    check_vocabulary(vocabulary, str(path))
    return vocabulary


def check_vocabulary(vocabulary: dict[str, Any], where: str) -> None:
    """Refuse what is no table from token to whole number."""
    if not all(type(index) is int and index >= 0 for index in vocabulary.values()):
        raise ValueError(f"{where} must map every token to a whole number")
