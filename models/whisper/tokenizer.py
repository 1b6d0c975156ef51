"""Whisper tokenizer: byte-level byte-pair encoding with tokens for languages, tasks and times."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tokenizers
import torch
from tokenizers.processors import PostProcessor

from ..checkpoints.contents import read_json
from ..checkpoints.files import Checkpoint, write_json
from ..core.batches import as_list, is_batch, one_of
from ..core.field_types import conform, shown
from ..tokenizers.fast import LIBRARY_FILE, BytePairTokenizer, Merges
from ..tokenizers.options import AddedToken
from ..tokenizers.slow import VOCAB_FILE
from ..tokenizers.special_tokens import Ids
from .languages import LANGUAGES, UNSPACED, language_code, language_token, plain_language
from .normalizers import BasicTextNormalizer, EnglishTextNormalizer
from .timestamps import WINDOW_POSITIONS, timed_segments, with_times
from .vocabulary_list import (
    VOCABULARY_FILES,
    byte_pairs,
    find_vocabulary_list,
    read_vocabulary_list,
    special_tokens,
)
from .words import Word, split_at_characters, split_at_spaces

NORMALIZER_FILE = "normalizer.json"
TASKS = ("transcribe", "translate")
TIME_PRECISION = 0.02  # seconds between two time tokens

_END = "<|endoftext|>"
_START = "<|startoftranscript|>"
_START_OF_PREVIOUS = "<|startofprev|>"
_NO_TIMESTAMPS = "<|notimestamps|>"
_ENGLISH_ONLY_START = 50257  # id of _START behind the vocabulary of GPT-2, which English checkpoints have
_TIME = re.compile(r"<\|(\d+\.\d+)\|>")


class WhisperTokenizer(BytePairTokenizer):
    """Byte-level BPE tokenizer of Whisper: encodes text to token ids, decodes token ids to text and times.

    Args:
        vocab, merges: dict from token to id, and pairs of tokens; or the paths of vocab.json and merges.txt.
        spellings: spelling by other spelling of English words, for `normalize`: a dict, or the path of a
            normalizer.json; None for no change of spelling.
        **options: unk_token, bos_token, eos_token ("<|endoftext|>"), pad_token (None); language, task and
            predict_timestamps, as in `set_prefix_tokens`; add_prefix_space: put a space before a text; and
            the options of every `Tokenizer`.

    Raises:
        ValueError: an invalid vocabulary, language or option value.
        TypeError: an unknown option.
    """

    special_tokens: ClassVar[dict[str, Any]] = {
        "bos_token": _END,
        "eos_token": _END,
        "unk_token": _END,
        "pad_token": None,
    }
    neutral = frozenset({"errors", "add_bos_token", "dropout", "normalizer_file", "return_attention_mask"})

    language: str | None = None
    task: str | None = None
    predict_timestamps: bool = False

    def __init__(self, *vocabulary: Any, **options: Any) -> None:
        super().__init__(*vocabulary, **options)
        tokens = {code: self.backend.token_to_id(language_token(code)) for code in LANGUAGES}
        self.lang_code_to_id = {code: index for code, index in tokens.items() if index is not None}

    def _build(
        self, vocab: dict[str, int] | str, merges: Merges | str, spellings: Any = None
    ) -> tokenizers.Tokenizer:
        self.english_spelling_normalizer = None if spellings is None else _read_spellings(spellings)
        return super()._build(vocab, merges)

    def _around(self) -> PostProcessor:
        if self.language is not None:
            self.language = plain_language(self.language)  # as transformers loads it from a file
        names = self.convert_ids_to_tokens(self.prefix_tokens)
        before = " ".join(f"{name}:0" for name in names)
        return self._template(f"{before} $A:0 {self.eos_token}:0", f"{before} $A:0 $B:1 {self.eos_token}:1")

    @property
    def is_multilingual(self) -> bool:
        """True for a vocabulary with languages; English-only ones have their tokens, which mean nothing."""
        return bool(self.lang_code_to_id) and self._id(_START) != _ENGLISH_ONLY_START

    @property
    def timestamp_begin(self) -> int:
        """Id of the time 0.00, whether the vocabulary has a token for it or the model alone."""
        last = self.backend.token_to_id(_NO_TIMESTAMPS)
        return int(self.all_special_ids[-1] if last is None else last) + 1

    def timestamp_ids(self, time_precision: float = TIME_PRECISION) -> Ids:
        """Ids of the 1,501 times of a window.

        Times without a token, in older vocabularies, have the ids from `timestamp_begin` on.
        """
        names = [f"<|{index * time_precision:.2f}|>" for index in range(WINDOW_POSITIONS + 1)]
        if self.backend.token_to_id(names[0]) is None:
            return list(range(self.timestamp_begin, self.timestamp_begin + len(names)))
        ids: Ids = self.convert_tokens_to_ids(names)
        return ids

    def set_prefix_tokens(
        self,
        language: str | None = None,
        task: str | None = None,
        predict_timestamps: bool | None = None,
    ) -> None:
        """Change the tokens that precede every encoded text; None leaves an option as it is.

        Args:
            language: language of the texts: a code, a token such as "<|de|>", or an English name.
            task: "transcribe" or "translate".
            predict_timestamps: True leaves out "<|notimestamps|>".

        Raises:
            ValueError: an unknown language or task.
        """
        former = self.language, self.task, self.predict_timestamps
        self.language = self.language if language is None else language
        self.task = self.task if task is None else task
        if predict_timestamps is not None:
            self.predict_timestamps = predict_timestamps
        try:
            self.backend.post_processor = self._around()
        except ValueError:
            self.language, self.task, self.predict_timestamps = former
            raise

    @property
    def prefix_tokens(self) -> Ids:
        """Ids of the tokens that precede every encoded text: start, language, task, no timestamps."""
        names = [_START]
        if self.language is not None:
            names.append(language_token(self.language))
            if self.backend.token_to_id(names[-1]) is None:
                raise ValueError(f"language {shown(self.language)} has no token in this vocabulary")
        if self.task is not None:
            names.append(f"<|{one_of('task', self.task, TASKS)}|>")
        if not self.predict_timestamps:
            names.append(_NO_TIMESTAMPS)
        ids: Ids = self.convert_tokens_to_ids(names)
        return ids

    def get_decoder_prompt_ids(
        self, task: str | None = None, language: str | None = None, no_timestamps: bool = True
    ) -> list[tuple[int, int]]:
        """Set the prefix, and return pairs (position, token id) of it without its first token."""
        self.set_prefix_tokens(language, task, not no_timestamps)
        return list(enumerate(self.prefix_tokens))[1:]

    def get_prompt_ids(self, text: str, return_tensors: str | None = "np") -> Any:
        """Token ids of a text to be given to `generate` as `prompt_ids`, with "<|startofprev|>" first.

        Returns:
            [tokens] int64, an array or tensor ("pt"), or a list for None.

        Raises:
            ValueError: a special token in the text.
        """
        one_of("return_tensors", return_tensors, ("pt", "np", None))
        ids = self.encode(_START_OF_PREVIOUS, " " + text.strip(), add_special_tokens=False)
        first = self.all_special_ids[0]
        if special := [index for index in ids[1:] if index >= first]:
            raise ValueError(
                f"a prompt must be plain text, and has the special token {self._tokens(special[:1])[0]!r}; "
                "take it out"
            )
        array = np.array(ids, dtype=np.int64)
        return ids if return_tensors is None else array if return_tensors == "np" else torch.from_numpy(array)

    def build_inputs_with_special_tokens(self, token_ids_0: Ids, token_ids_1: Ids | None = None) -> Ids:
        """Frame token ids with special tokens: the prefix, the sequence or pair, end of text."""
        return [*self.prefix_tokens, *token_ids_0, *(token_ids_1 or []), self.eos_token_id]

    def get_special_tokens_mask(
        self, token_ids_0: Ids, token_ids_1: Ids | None = None, already_has_special_tokens: bool = False
    ) -> Ids:
        """Mask of special tokens (1) in the built sequence, or in `token_ids_0` if it already has them."""
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise ValueError("token_ids_1 must be None where already_has_special_tokens is True")
            special = set(self.all_special_ids)
            return [int(index in special) for index in token_ids_0]
        return [1] * len(self.prefix_tokens) + [0] * len([*token_ids_0, *(token_ids_1 or [])]) + [1]

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        output_offsets: bool = False,
        time_precision: float = TIME_PRECISION,
        decode_with_timestamps: bool = False,
        normalize: bool = False,
        basic_normalize: bool = False,
        remove_diacritics: bool = False,
    ) -> Any:
        """Decode token ids to text or texts; a batch gives what each sequence gives alone.

        Args:
            token_ids: one id, [tokens] or [batch, tokens], as list, array or tensor.
            skip_special_tokens: leave out special tokens, and a prompt (from "<|startofprev|>" to
                "<|startoftranscript|>").
            clean_up_tokenization_spaces: without effect on byte-level tokens.
            output_offsets: return {"text": text, "offsets": segments}, where a segment is {"text": text,
                "timestamp": (start, end) in seconds}.
            time_precision: seconds between two time tokens.
            decode_with_timestamps: write times into the text, such as "<|1.08|>"; not normalized.
            normalize: apply `normalize`, for English.
            basic_normalize: apply `basic_normalize`, for any language.
            remove_diacritics: drop diacritics in basic_normalize.
        """
        token_ids = as_list(token_ids)
        if is_batch(token_ids):
            options = (skip_special_tokens, clean_up_tokenization_spaces, output_offsets, time_precision)
            more = (decode_with_timestamps, normalize, basic_normalize, remove_diacritics)
            return [self.decode(one, *options, *more) for one in token_ids]
        ids = [token_ids] if isinstance(token_ids, int) else list(map(int, token_ids))
        kept = self._without_prompt(ids) if skip_special_tokens else ids
        if decode_with_timestamps:
            text = self._with_times(kept, skip_special_tokens, time_precision)
        else:
            text = super().decode(kept, skip_special_tokens, clean_up_tokenization_spaces)
            if normalize:
                text = self.normalize(text)
            elif basic_normalize:
                text = self.basic_normalize(text, remove_diacritics)
            text = _TIME.sub("", text)
        return {"text": text, "offsets": self._offsets(ids, time_precision)} if output_offsets else text

    def token_bytes(self, token_ids: Iterable[int]) -> list[bytes]:
        """Bytes of each token as of every `Tokenizer`; a time has none, whether in the vocabulary or not."""
        first, ids = self.timestamp_begin, list(map(int, token_ids))
        return [
            b"" if index >= first else own for index, own in zip(ids, super().token_bytes(ids), strict=True)
        ]

    def normalize(self, text: str) -> str:
        """Normalize an English text by `EnglishTextNormalizer`, with the checkpoint's spellings if any."""
        return EnglishTextNormalizer(self.english_spelling_normalizer or {})(text)

    @staticmethod
    def basic_normalize(text: str, remove_diacritics: bool = False) -> str:
        """Normalize a text of any language by `BasicTextNormalizer`."""
        return BasicTextNormalizer(remove_diacritics)(text)

    def split_tokens(self, tokens: Sequence[int], language: str | None = None) -> list[Word]:
        """Split token ids into words: at spaces and punctuation, or at characters where no spaces are used.

        Args:
            tokens: token ids of a text, as list.
            language: language of the text, as in `set_prefix_tokens`; None for the tokenizer's, or English.

        Returns:
            Words with punctuation apart; `merge_punctuation` joins it to them.
        """
        code = language_code(language or self.language or "en")

        def decode(ids: Sequence[int]) -> str:
            return self._with_times(ids, False, TIME_PRECISION)

        if code in UNSPACED:
            return split_at_characters(tokens, decode)
        return split_at_spaces(tokens, decode, self.eos_token_id)

    def _with_times(self, ids: Sequence[int], skip_special_tokens: bool, time_precision: float) -> str:
        parts = with_times(ids, self.timestamp_begin, time_precision)
        return "".join(
            part if isinstance(part, str) else self._decode(part, skip_special_tokens) for part in parts
        )

    def _offsets(self, ids: Ids, time_precision: float) -> list[dict[str, Any]]:
        """Segments of a sequence with their times in seconds."""
        return [
            {
                "text": _TIME.sub("", self._decode(one.tokens, False)),
                "timestamp": (
                    one.start * time_precision + one.offset * time_precision,
                    one.end * time_precision + one.offset * time_precision,
                ),
            }
            for one in timed_segments(ids, self.timestamp_begin)
        ]

    def _without_prompt(self, ids: Ids) -> Ids:
        if not ids or ids[0] != self._id(_START_OF_PREVIOUS):
            return ids
        start = self._id(_START)
        return ids[ids.index(start) :] if start in ids else []

    def _cleans(self, asked: bool | None) -> bool:
        # Published checkpoints ask for it in their files; only a caller's wish is worth a warning.
        return asked is not None and super()._cleans(asked)

    @classmethod
    def _vocabulary(cls, checkpoint: Checkpoint) -> tuple[Any, ...]:
        """Constructor arguments from tokenizer.json, vocab.json and merges.txt, or CTranslate2's list."""
        spellings = checkpoint.find(NORMALIZER_FILE)
        if cls._uses_list(checkpoint):
            path = find_vocabulary_list(checkpoint)
            if path is None:
                others = " or ".join(VOCABULARY_FILES)
                raise checkpoint.lacks(f"tokenizer.json, nor both vocab.json and merges.txt, nor {others}")
            try:
                return (*byte_pairs(read_vocabulary_list(path)), spellings)
            except ValueError as error:
                raise ValueError(error if str(path) in str(error) else f"{path}: {error}") from None
        return (*super()._vocabulary(checkpoint)[:2], spellings)

    @classmethod
    def _added_in_vocabulary(cls, checkpoint: Checkpoint) -> dict[int, AddedToken]:
        path = find_vocabulary_list(checkpoint) if cls._uses_list(checkpoint) else None
        if path is None:
            return super()._added_in_vocabulary(checkpoint)
        return special_tokens(read_vocabulary_list(path))

    @staticmethod
    def _uses_list(checkpoint: Checkpoint) -> bool:
        """True where neither tokenizer.json nor vocab.json is there."""
        return not checkpoint.has(LIBRARY_FILE) and not checkpoint.has(VOCAB_FILE)

    def _save_vocabulary(self, folder: Path) -> tuple[str, ...]:
        paths = super()._save_vocabulary(folder)
        if self.english_spelling_normalizer is None:
            return paths
        return (*paths, write_json(folder / NORMALIZER_FILE, self.english_spelling_normalizer))


def _read_spellings(given: Mapping[str, str] | str | Path) -> dict[str, str]:
    """Spelling by other spelling, from a dict or the path of a JSON file, with checks."""
    written = given if isinstance(given, Mapping) else read_json(Path(given))
    for word, spelling in written.items():
        conform(f"the spelling of {shown(word)} in {NORMALIZER_FILE}", spelling, str)
    return dict(written)
