"""The Speech2Text tokenizer: a SentencePiece model whose pieces get their ids from vocab.json."""

import json
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch

from .files import read_json, resolve_folder
from .speech_to_text_processing import BatchFeature, one_of, padded_length, stack

LANGUAGES = {"mustc": ["pt", "fr", "ru", "nl", "ro", "it", "es", "de"]}

_VOCAB_FILE, _SPM_FILE = "vocab.json", "sentencepiece.bpe.model"
_NO_LIMIT = int(1e30)  # transformers writes this for a checkpoint that names no model_max_length
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")
_OWN = (
    "do_upper_case",
    "do_lower_case",
    "tgt_lang",
    "lang_codes",
    "additional_special_tokens",
    "sp_model_kwargs",
)
_COMMON = {
    **{"model_max_length": _NO_LIMIT, "padding_side": "right", "truncation_side": "right"},
    **{"clean_up_tokenization_spaces": False, "split_special_tokens": False, "processor_class": None},
}
_MORE = ("extra_special_tokens", "added_tokens_decoder")
# What transformers writes into tokenizer_config.json that says nothing about how text is split.
_NEUTRAL = {
    *("tokenizer_class", "name_or_path", "special_tokens_map_file", "tokenizer_file", "backend", "auto_map"),
    *(
        "model_input_names",
        "is_local",
        "local_files_only",
        "files_loaded",
        "transformers_version",
        "use_fast",
    ),
}


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that text is split at before SentencePiece sees it.

    `lstrip` and `rstrip` take the spaces beside it; `single_word` matches it between spaces only.
    """

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = True


class Speech2TextTokenizer:
    """Text to token ids and back, as transformers' tokenizer of the same files.

    Args:
        vocab_file: JSON object from piece to id.
        spm_file: SentencePiece model.
        bos_token, eos_token, pad_token, unk_token: special tokens.
        do_upper_case: write decoded text in upper case.
        do_lower_case: lower the case of text before splitting it. (transformers 4 does so; 5.23 no longer does.)
        tgt_lang: the target language, one of `lang_codes`; the first by default.
        lang_codes: the name of a list of languages; only "mustc" is known.
        additional_special_tokens: more special tokens; ids after the vocabulary where it does not hold them.
        sp_model_kwargs: arguments for SentencePieceProcessor, such as enable_sampling, nbest_size, alpha.
        **kwargs: model_max_length, padding_side, truncation_side, clean_up_tokenization_spaces,
            split_special_tokens, processor_class, extra_special_tokens (the newer name of
            additional_special_tokens) and added_tokens_decoder.

    Raises:
        ValueError: for a file that is not what it should be, an unknown language or an option's bad value.
        TypeError: for an option that does not exist.
    """

    vocab_files_names = {"vocab_file": _VOCAB_FILE, "spm_file": _SPM_FILE}
    model_input_names = ["input_ids", "attention_mask"]
    model_max_length: int
    padding_side: str
    truncation_side: str
    clean_up_tokenization_spaces: bool
    split_special_tokens: bool
    processor_class: str | None

    def __init__(
        self,
        vocab_file: str | Path,
        spm_file: str | Path,
        bos_token: str = "<s>",
        eos_token: str = "</s>",
        pad_token: str = "<pad>",
        unk_token: str = "<unk>",
        do_upper_case: bool = False,
        do_lower_case: bool = False,
        tgt_lang: str | None = None,
        lang_codes: str | None = None,
        additional_special_tokens: Sequence[str] | None = None,
        sp_model_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        for name, default in _COMMON.items():
            value = kwargs.pop(name, None)
            setattr(self, name, default if value is None else value)
        more = kwargs.pop("extra_special_tokens", None) or []
        added = kwargs.pop("added_tokens_decoder", None) or {}
        unknown = [name for name, value in kwargs.items() if value is not None and name not in _NEUTRAL]
        if unknown:
            raise TypeError(
                f"Speech2TextTokenizer has no option {', '.join(unknown)}; its docstring names those it has"
            )
        one_of("padding_side", self.padding_side, ("right", "left"))
        one_of("truncation_side", self.truncation_side, ("right", "left"))
        self.lang_codes = one_of("lang_codes", lang_codes, (None, *LANGUAGES))
        self.do_upper_case, self.do_lower_case = do_upper_case, do_lower_case

        self.encoder: dict[str, int] = read_json(Path(vocab_file))
        wrong = next((token for token, index in self.encoder.items() if type(index) is not int), None)
        if wrong is not None:
            raise ValueError(
                f"{vocab_file} must map tokens to whole numbers, but it maps {wrong!r} to something else"
            )
        self.decoder = {index: token for token, index in self.encoder.items()}
        self.sp_model_kwargs = dict(sp_model_kwargs or {})
        self._spm_bytes = Path(spm_file).read_bytes()
        try:
            self.sp_model = sentencepiece.SentencePieceProcessor(
                model_proto=self._spm_bytes, **self.sp_model_kwargs
            )
        except RuntimeError as error:
            raise ValueError(f"{spm_file} is not a SentencePiece model: {error}") from None

        self.bos_token, self.eos_token = _content(bos_token), _content(eos_token)
        self.unk_token, self.pad_token = _content(unk_token), _content(pad_token)
        named = [self.bos_token, self.eos_token, self.unk_token, self.pad_token]
        self.langs = LANGUAGES[lang_codes] if lang_codes else []
        given = [*(additional_special_tokens or ()), *(more.values() if isinstance(more, dict) else more)]
        extra = [f"<lang:{language}>" for language in self.langs] + [_content(token) for token in given]
        self.additional_special_tokens = [token for token in dict.fromkeys(extra) if token not in named]
        self.all_special_tokens: list[str] = list(dict.fromkeys(named + self.additional_special_tokens))
        self._number_added_tokens(added)

        self.lang_code_to_id = {language: self._id(f"<lang:{language}>") for language in self.langs}
        self.prefix_tokens: list[int] = []
        self._tgt_lang: str | None = None
        if tgt_lang is not None or self.langs:
            self.tgt_lang = tgt_lang if tgt_lang is not None else self.langs[0]

    def _number_added_tokens(self, added: dict[Any, Any]) -> None:
        """Number the tokens that text is split at: as a checkpoint does, else as the vocabulary, else after it."""
        self.added_tokens_decoder = {
            int(index): AddedToken(**token) if isinstance(token, dict) else token
            for index, token in added.items()
        }
        ids = {token.content: index for index, token in self.added_tokens_decoder.items()}
        next_id = len(self.encoder | ids)
        for token in self.all_special_tokens:
            if token not in ids:
                ids[token] = self.encoder.get(token, next_id)
                next_id += token not in self.encoder
                self.added_tokens_decoder[ids[token]] = AddedToken(token)
        self.added_tokens_encoder = ids
        longest_first = sorted(filter(None, ids), key=len, reverse=True)
        self._split_at = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    @property
    def tgt_lang(self) -> str | None:
        """The target language, whose token begins every encoded text; None without `lang_codes`."""
        return self._tgt_lang

    @tgt_lang.setter
    def tgt_lang(self, language: str) -> None:
        if language not in self.lang_code_to_id:
            known = ", ".join(self.langs) or "none, having no lang_codes"
            raise ValueError(f"tgt_lang {language!r} is not a language of this tokenizer; it has {known}")
        self._tgt_lang = language
        self.prefix_tokens = [self.lang_code_to_id[language]]

    bos_token_id = property(lambda self: self._id(self.bos_token))
    eos_token_id = property(lambda self: self._id(self.eos_token))
    pad_token_id = property(lambda self: self._id(self.pad_token))
    unk_token_id = property(lambda self: self._id(self.unk_token))

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of `all_special_tokens`, which skip_special_tokens leaves out."""
        return [self._id(token) for token in self.all_special_tokens]

    @property
    def vocab_size(self) -> int:
        """Tokens in vocab.json, without added ones."""
        return len(self.encoder)

    def __len__(self) -> int:
        return len(self.get_vocab())

    def get_vocab(self) -> dict[str, int]:
        """Every token with its id."""
        return self.encoder | self.added_tokens_encoder

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool | None = None,
    ) -> BatchFeature:
        """Encode a text, or a batch of them.

        Args:
            text: one text, or a list of texts.
            add_special_tokens: the target language's token in front and EOS behind.
            padding: True or "longest", "max_length", or False.
            truncation: True or False. None truncates where `max_length` is given and nothing is padded.
            max_length: tokens of a text, special ones included; `model_max_length` by default.
            pad_to_multiple_of: round the padded length up.
            return_tensors: "pt", "np", or None for lists of int.
            return_attention_mask: False to leave out `attention_mask`, which is 1 where there is a token.

        Returns:
            `input_ids` and `attention_mask`, [batch, tokens]; [tokens] for one text without return_tensors.

        Raises:
            ValueError: not text, a bad option, or tensors asked for of texts of different lengths.
        """
        texts = [text] if isinstance(text, str) else list(text)
        one_of("return_tensors", return_tensors, ("pt", "np", None))
        if truncation is None:
            truncation = max_length is not None and padding in (False, "do_not_pad")
        one_of("truncation", truncation, (True, False, "longest_first", "only_first", "do_not_truncate"))
        if max_length is None and self.model_max_length < 10**20:
            max_length = self.model_max_length
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        limit = max_length if truncation and truncation != "do_not_truncate" else None
        if limit and limit % (pad_to_multiple_of or 1) and padding not in (False, "do_not_pad"):
            raise ValueError(f"to cut to max_length {limit}, it must be a multiple of pad_to_multiple_of")

        rows = [self._row(one, add_special_tokens, limit) for one in texts]
        padded = padded_length([len(row) for row in rows], padding, max_length, pad_to_multiple_of)
        batch = BatchFeature(input_ids=[self._pad(row, padded, self.pad_token_id) for row in rows])
        if return_attention_mask is not False:
            batch["attention_mask"] = [self._pad([1] * len(row), padded, 0) for row in rows]
        for name, values in batch.items():
            if return_tensors is None:
                batch[name] = values[0] if isinstance(text, str) else values
            else:
                batch[name] = stack([np.array(row, dtype=np.int64) for row in values], return_tensors)
        return batch

    def encode(self, text: str, **options: Any) -> Any:
        """`input_ids` of one text; options as in `__call__`."""
        return self(text, **options)["input_ids"]

    def tokenize(self, text: str) -> list[str]:
        """Pieces of a text, with nothing added around it; special tokens inside it stay whole."""
        if not isinstance(text, str):
            raise ValueError(f"text must be a string, got {type(text).__name__}")
        if self.split_special_tokens:
            return self._pieces(text)
        parts = self._split_at.split(text)  # text, token, text, token, ..., text
        for i in range(1, len(parts), 2):
            token = self.added_tokens_decoder[self.added_tokens_encoder[parts[i]]]
            if token.single_word and (parts[i - 1][-1:].strip() or parts[i + 1][:1].strip()):
                parts[i - 1 : i + 2] = ["", "", "".join(parts[i - 1 : i + 2])]
                continue
            if token.lstrip:
                parts[i - 1] = parts[i - 1].rstrip()
            if token.rstrip:
                parts[i + 1] = parts[i + 1].lstrip()
        pieces = ([part] if i % 2 else self._pieces(part) for i, part in enumerate(parts) if part)
        return [piece for group in pieces for piece in group]

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """The id of a token, or the ids of several; the unknown token's for one that is not in the vocabulary."""
        return self._id(tokens) if isinstance(tokens, str) else [self._id(token) for token in tokens]

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """The target language's token if there is one, the sequence (or both), EOS."""
        return [*self.prefix_tokens, *token_ids_0, *(token_ids_1 or []), self.eos_token_id]

    def get_special_tokens_mask(
        self,
        token_ids_0: list[int],
        token_ids_1: list[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for special tokens and 0 for others: of the built sequence, or of `token_ids_0` that already has them."""
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise ValueError("token_ids_1 must be None where already_has_special_tokens is True")
            special = set(self.all_special_ids)
            return [int(index in special) for index in token_ids_0]
        return [1] * len(self.prefix_tokens) + [0] * len([*token_ids_0, *(token_ids_1 or [])]) + [1]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """0 for the first sequence and the special tokens, 1 for as many as the second sequence has."""
        return [0] * len(self.build_inputs_with_special_tokens(token_ids_0)) + [1] * len(token_ids_1 or [])

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:
        """The text of token ids: an int, a list, an array or a tensor [tokens]; a list of texts for [batch, tokens].

        `clean_up_tokenization_spaces` takes away the space before punctuation marks and English contractions.
        """
        token_ids = token_ids.tolist() if isinstance(token_ids, (torch.Tensor, np.ndarray)) else token_ids
        if not isinstance(token_ids, int) and any(np.ndim(one) for one in token_ids):
            return self.batch_decode(token_ids, skip_special_tokens, clean_up_tokenization_spaces)
        tokens = self.convert_ids_to_tokens(token_ids, skip_special_tokens)
        text = self.convert_tokens_to_string([tokens] if isinstance(tokens, str) else tokens)
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        if clean_up_tokenization_spaces:
            for spaced in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
                text = text.replace(spaced, spaced.strip())
        return text

    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """The text of each sequence of token ids; see `decode`."""
        return [self.decode(ids, skip_special_tokens, clean_up_tokenization_spaces) for ids in sequences]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or the tokens of several; the unknown token for an id that has none."""
        if isinstance(ids, int):
            added = self.added_tokens_decoder.get(ids)
            return added.content if added else self.decoder.get(ids, self.unk_token)
        skip = set(self.all_special_ids) if skip_special_tokens else set()
        return [self.convert_ids_to_tokens(int(index)) for index in ids if int(index) not in skip]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Join tokens to text. A special token is followed by a space; the pieces before it are joined on their own."""
        special, text, pieces = set(self.all_special_tokens), "", []
        for token in tokens:
            if token in special:
                text += self._join(pieces) + token + " "
                pieces = []
            else:
                pieces.append(token)
        return (text + self._join(pieces)).strip()

    @classmethod
    def from_pretrained(cls, name_or_dir: str | Path, **overrides: Any) -> "Speech2TextTokenizer":
        """Load from a checkpoint's folder; `overrides` are constructor arguments that go before the files'.

        Reads vocab.json and sentencepiece.bpe.model, and where they exist tokenizer_config.json (of transformers 4
        or 5), and special_tokens_map.json and added_tokens.json, which older checkpoints have.
        """
        folder = resolve_folder(name_or_dir)
        options = _saved_options(folder) | overrides
        return cls(folder / _VOCAB_FILE, folder / _SPM_FILE, **options)

    def save_vocabulary(
        self, save_directory: str | Path, filename_prefix: str | None = None
    ) -> tuple[str, str]:
        """Write vocab.json and sentencepiece.bpe.model into a folder that exists; returns their paths."""
        folder, prefix = Path(save_directory), f"{filename_prefix}-" if filename_prefix else ""
        if not folder.is_dir():
            raise ValueError(f"{save_directory} must be a folder that exists")
        vocabulary, model = folder / (prefix + _VOCAB_FILE), folder / (prefix + _SPM_FILE)
        vocabulary.write_text(json.dumps(self.encoder, indent=2) + "\n", encoding="utf-8")
        model.write_bytes(self._spm_bytes)
        return str(vocabulary), str(model)

    def save_pretrained(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write a folder that `from_pretrained`, here and in transformers, loads; returns the paths written."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        options = {name: getattr(self, name) for name in (*_NAMED, *_OWN, *_COMMON)}
        added = {str(index): asdict(token) for index, token in sorted(self.added_tokens_decoder.items())}
        options |= {"added_tokens_decoder": added, "tokenizer_class": "Speech2TextTokenizer"}
        config = folder / "tokenizer_config.json"
        config.write_text(
            json.dumps(options, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        return (str(config), *self.save_vocabulary(folder))

    def _row(self, text: str, add_special_tokens: bool, limit: int | None) -> list[int]:
        """Ids of one text, cut so that with special tokens there are at most `limit`."""
        ids = self.convert_tokens_to_ids(self.tokenize(text))
        if limit is not None:
            keep = max(0, limit - (len(self.prefix_tokens) + 1 if add_special_tokens else 0))
            ids = ids[:keep] if self.truncation_side == "right" else ids[max(0, len(ids) - keep) :]
        return self.build_inputs_with_special_tokens(ids) if add_special_tokens else ids

    def _pad(self, row: list[int], length: int, value: int) -> list[int]:
        filler = [value] * (length - len(row))
        return row + filler if self.padding_side == "right" else filler + row

    def _pieces(self, text: str) -> list[str]:
        return self.sp_model.encode(text.lower() if self.do_lower_case else text, out_type=str)

    def _join(self, pieces: list[str]) -> str:
        text: str = self.sp_model.decode(pieces)
        return text.upper() if self.do_upper_case else text

    def _id(self, token: str) -> int:
        index = self.added_tokens_encoder.get(token, self.encoder.get(token))
        return self.added_tokens_encoder[self.unk_token] if index is None else index


def _saved_options(folder: Path) -> dict[str, Any]:
    """The constructor's arguments as a checkpoint's files give them."""
    config, special, added = (
        folder / name for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    )
    options = read_json(config) if config.is_file() else {}
    if "added_tokens_decoder" not in options:
        options |= read_json(special) if special.is_file() else {}
        if added.is_file():
            options["added_tokens_decoder"] = {
                index: AddedToken(text) for text, index in read_json(added).items()
            }
    known = {*_NAMED, *_OWN, *_COMMON, *_MORE}
    unknown = [name for name, value in options.items() if name not in known | _NEUTRAL and value is not None]
    if unknown:
        warnings.warn(
            f"{config} sets {', '.join(unknown)}, which Speech2TextTokenizer does not use", stacklevel=3
        )
    return {name: value for name, value in options.items() if name in known}


def _content(token: Any) -> str:
    """The text of a token, which files write as a string or as an object."""
    content = token.get("content") if isinstance(token, dict) else getattr(token, "content", token)
    if not isinstance(content, str):
        raise ValueError(f"a special token must be a string, got {token!r}")
    return content
