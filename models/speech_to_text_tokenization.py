"""The Speech2Text tokenizer: a SentencePiece model whose pieces get their ids from vocab.json."""

import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentencepiece import SentencePieceProcessor

from .files import Checkpoint, open_checkpoint, read_json
from .hub import PushToHub
from .speech_to_text_processing import BatchFeature, one_of, padded_length, stack, write_json

Ids = list[int]
LANGUAGES = {"mustc": ["pt", "fr", "ru", "nl", "ro", "it", "es", "de"]}

_VOCAB_FILE, _SPM_FILE = "vocab.json", "sentencepiece.bpe.model"
_SIDES = ("right", "left")
_NO_LIMIT = int(1e30)  # transformers writes this for a checkpoint that names no model_max_length
# What save_pretrained writes and from_pretrained reads, beside the added tokens.
_OPTIONS = (
    *("bos_token", "eos_token", "unk_token", "pad_token", "do_upper_case", "do_lower_case", "tgt_lang"),
    *("lang_codes", "additional_special_tokens", "sp_model_kwargs", "model_max_length", "padding_side"),
    *("truncation_side", "clean_up_tokenization_spaces", "processor_class"),
)
_KNOWN = {*_OPTIONS, "extra_special_tokens", "added_tokens_decoder", "split_special_tokens"}
# What transformers writes into tokenizer_config.json that says nothing about how text is split.
_NEUTRAL = {
    *("tokenizer_class", "name_or_path", "special_tokens_map_file", "tokenizer_file", "backend", "use_fast"),
    *("model_input_names", "is_local", "local_files_only", "files_loaded", "transformers_version"),
    "auto_map",
}


@dataclass(frozen=True, slots=True)
class AddedToken:
    """Text is split at it first: whole words only (`single_word`), taking spaces (`lstrip`, `rstrip`)."""

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = True


class Speech2TextTokenizer(PushToHub):
    """Text to token ids and back, as transformers' tokenizer of the same files.

    Args:
        vocab_file: JSON object from piece to id.
        spm_file: SentencePiece model.
        bos_token, eos_token, pad_token, unk_token: special tokens.
        do_upper_case: write decoded text in upper case.
        do_lower_case: encode text in lower case (as transformers 4 does; 5.23 no longer does).
        tgt_lang: the target language, one of `lang_codes`; the first by default.
        lang_codes: the name of a list of languages; only "mustc" is known.
        additional_special_tokens: more special tokens; ids after the vocabulary where it does not hold them.
        sp_model_kwargs: arguments for SentencePieceProcessor, such as enable_sampling, nbest_size, alpha.
        **kwargs: model_max_length, padding_side, truncation_side, clean_up_tokenization_spaces,
            processor_class, added_tokens_decoder, and extra_special_tokens, the newer name of
            additional_special_tokens. Neutral is split_special_tokens=False; True is not supported.

    Raises:
        ValueError: for a broken file, an unknown language or an option's bad value; TypeError: for its name.
    """

    model_input_names = ("input_ids", "attention_mask")

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
        options = {name: value for name, value in kwargs.items() if value not in (None, False)}
        self.model_max_length: int = options.pop("model_max_length", _NO_LIMIT)
        self.padding_side = one_of("padding_side", options.pop("padding_side", "right"), _SIDES)
        self.truncation_side = one_of("truncation_side", options.pop("truncation_side", "right"), _SIDES)
        self.clean_up_tokenization_spaces: bool = options.pop("clean_up_tokenization_spaces", False)
        self.processor_class: str | None = options.pop("processor_class", None)
        more = options.pop("extra_special_tokens", [])
        added = options.pop("added_tokens_decoder", {})
        if unknown := sorted(options.keys() - _NEUTRAL):
            raise TypeError(f"there is no option {unknown[0]!r}; there are {', '.join(sorted(_KNOWN))}")
        self.lang_codes = one_of("lang_codes", lang_codes, (None, *LANGUAGES))
        self.do_upper_case, self.do_lower_case = do_upper_case, do_lower_case

        self.encoder: dict[str, int] = read_json(Path(vocab_file))
        if not all(type(index) is int for index in self.encoder.values()):
            raise ValueError(f"{vocab_file} must map every token to a whole number")
        self.decoder = {index: token for token, index in self.encoder.items()}
        self.sp_model_kwargs = dict(sp_model_kwargs or {})
        self._spm_bytes = Path(spm_file).read_bytes()
        try:
            self.sp_model = SentencePieceProcessor(model_proto=self._spm_bytes, **self.sp_model_kwargs)
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
        self.prefix_tokens: Ids = []
        self._tgt_lang: str | None = None
        if tgt_lang or self.langs:
            self.tgt_lang = tgt_lang or self.langs[0]

    def _number_added_tokens(self, added: dict[Any, Any]) -> None:
        """Number the tokens that text is split at: like the checkpoint or the vocabulary, or after it."""
        self.added_tokens_decoder = {
            int(i): AddedToken(**token) if isinstance(token, dict) else token for i, token in added.items()
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
    def all_special_ids(self) -> Ids:
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
            padding: True or "longest", "max_length", or False; to a multiple of `pad_to_multiple_of`.
            truncation: True or False. None truncates where `max_length` is given and nothing is padded.
            max_length: tokens of a text, special ones included; `model_max_length` by default.
            return_tensors: "pt", "np", or None for lists of int.

        Returns:
            `input_ids` and (unless return_attention_mask is False) `attention_mask`: [batch, tokens], or
            [tokens] for one text without return_tensors.

        Raises:
            ValueError: not text, a bad option, or tensors asked for of texts of different lengths.
        """
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

        texts = [text] if isinstance(text, str) or not isinstance(text, Sequence) else text
        rows = [self._row(one, add_special_tokens, limit) for one in texts]
        padded = padded_length([*map(len, rows)], padding, max_length, pad_to_multiple_of)
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
        parts = self._split_at.split(text)  # text, token, text, token, ..., text
        for i in range(1, len(parts), 2):
            token = self.added_tokens_decoder[self.added_tokens_encoder[parts[i]]]
            if token.single_word and (parts[i - 1][-1:].strip() or parts[i + 1][:1].strip()):
                parts[i - 1 : i + 2] = ["", "", "".join(parts[i - 1 : i + 2])]
                continue
            parts[i - 1] = parts[i - 1].rstrip() if token.lstrip else parts[i - 1]
            parts[i + 1] = parts[i + 1].lstrip() if token.rstrip else parts[i + 1]
        pieces = ([part] if i % 2 else self._pieces(part) for i, part in enumerate(parts) if part)
        return [piece for group in pieces for piece in group]

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """The id of a token, or the ids of several; the unknown token's for one without."""
        return self._id(tokens) if isinstance(tokens, str) else [self._id(token) for token in tokens]

    def build_inputs_with_special_tokens(self, token_ids_0: Ids, token_ids_1: Ids | None = None) -> Ids:
        """The target language's token if there is one, the sequence (or both), EOS."""
        return [*self.prefix_tokens, *token_ids_0, *(token_ids_1 or []), self.eos_token_id]

    def get_special_tokens_mask(
        self, token_ids_0: Ids, token_ids_1: Ids | None = None, already_has_special_tokens: bool = False
    ) -> Ids:
        """1 for special tokens, 0 for others: of the built sequence, or of `token_ids_0` as it is."""
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise ValueError("token_ids_1 must be None where already_has_special_tokens is True")
            return [int(index in self.all_special_ids) for index in token_ids_0]
        return [1] * len(self.prefix_tokens) + [0] * len([*token_ids_0, *(token_ids_1 or [])]) + [1]

    def create_token_type_ids_from_sequences(self, token_ids_0: Ids, token_ids_1: Ids | None = None) -> Ids:
        """0 for the first sequence and the special tokens, 1 for as many as the second sequence has."""
        return [0] * len(self.build_inputs_with_special_tokens(token_ids_0)) + [1] * len(token_ids_1 or [])

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:
        """The text of token ids [tokens] or of one id, in a list, array or tensor; texts of [batch, tokens].

        `clean_up_tokenization_spaces` takes away the space before punctuation marks and English contractions.
        """
        token_ids = token_ids.tolist() if isinstance(token_ids, (torch.Tensor, np.ndarray)) else token_ids
        if not isinstance(token_ids, int) and any(np.ndim(one) for one in token_ids):
            return [self.decode(one, skip_special_tokens, clean_up_tokenization_spaces) for one in token_ids]
        tokens = self.convert_ids_to_tokens(token_ids, skip_special_tokens)
        text = self.convert_tokens_to_string([tokens] if isinstance(tokens, str) else tokens)
        clean = clean_up_tokenization_spaces
        if clean or (clean is None and self.clean_up_tokenization_spaces):
            for spaced in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
                text = text.replace(spaced, spaced.strip())
        return text

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> list[str]:
        """The text of each sequence of token ids, further arguments as in `decode`."""
        texts = self.decode(sequences, *args, **kwargs) if len(sequences) else []
        return [texts] if isinstance(texts, str) else texts

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or the tokens of several; the unknown token for an id that has none."""
        if isinstance(ids, int):
            added = self.added_tokens_decoder.get(ids)
            return added.content if added else self.decoder.get(ids, self.unk_token)
        skip = set(self.all_special_ids) if skip_special_tokens else set()
        return [self.convert_ids_to_tokens(int(index)) for index in ids if int(index) not in skip]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Tokens joined to text, a space behind each special one; SentencePiece joins what lies between."""
        special, text = set(self.all_special_tokens), ""
        pieces: list[str] = []
        for token in tokens:
            if token in special:
                text += self._join(pieces) + token + " "
                pieces = []
            else:
                pieces.append(token)
        return (text + self._join(pieces)).strip()

    @classmethod
    def from_pretrained(
        cls, name_or_dir: str | os.PathLike[str] | Checkpoint, **kwargs: Any
    ) -> "Speech2TextTokenizer":
        """Load from a checkpoint: a folder or the id of a repository on the Hub.

        Where they exist it reads tokenizer_config.json (of transformers 4 or 5), special_tokens_map.json and
        added_tokens.json beside the two files of the vocabulary. `kwargs` are `files.HUB_OPTIONS` and
        arguments of the constructor that go before the files'.
        """
        checkpoint, overrides = open_checkpoint(name_or_dir, **kwargs)
        options = _saved_options(checkpoint) | overrides
        files = checkpoint.require(_VOCAB_FILE), checkpoint.require(_SPM_FILE)
        try:
            return cls(*files, **options)
        except (AttributeError, TypeError) as error:
            if overrides:
                raise  # theirs, as likely as a file's
            raise ValueError(f"{checkpoint} has settings that make no tokenizer: {error}") from error

    def save_vocabulary(
        self, save_directory: str | Path, filename_prefix: str | None = None
    ) -> tuple[str, str]:
        """Write vocab.json and sentencepiece.bpe.model into a folder that exists; returns their paths."""
        folder, prefix = Path(save_directory), f"{filename_prefix}-" if filename_prefix else ""
        model = folder / (prefix + _SPM_FILE)
        model.write_bytes(self._spm_bytes)
        return write_json(folder / (prefix + _VOCAB_FILE), self.encoder), str(model)

    def save_pretrained(self, save_directory: str | Path) -> tuple[str, ...]:
        """Write a folder that `from_pretrained` loads, here and in transformers; returns the paths."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {name: getattr(self, name) for name in _OPTIONS}
        added = {str(index): asdict(token) for index, token in sorted(self.added_tokens_decoder.items())}
        options |= {"added_tokens_decoder": added, "tokenizer_class": "Speech2TextTokenizer"}
        config = write_json(folder / "tokenizer_config.json", options)
        return (config, *self.save_vocabulary(folder))

    def _row(self, text: str, add_special_tokens: bool, limit: int | None) -> Ids:
        """Ids of one text, cut so that with special tokens there are at most `limit`."""
        ids = self.convert_tokens_to_ids(self.tokenize(text))
        if limit is not None:
            keep = max(0, limit - (len(self.prefix_tokens) + 1 if add_special_tokens else 0))
            ids = ids[:keep] if self.truncation_side == "right" else ids[max(0, len(ids) - keep) :]
        return self.build_inputs_with_special_tokens(ids) if add_special_tokens else ids

    def _pad(self, row: Ids, length: int, value: int) -> Ids:
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


def _saved_options(checkpoint: Checkpoint) -> dict[str, Any]:
    """The constructor's arguments as a checkpoint's files give them."""
    config = checkpoint.find("tokenizer_config.json")
    options = read_json(config) if config is not None else {}
    if "added_tokens_decoder" not in options:  # files of before 2023
        if (special := checkpoint.find("special_tokens_map.json")) is not None:
            options |= read_json(special)
        if (added := checkpoint.find("added_tokens.json")) is not None:
            options["added_tokens_decoder"] = {i: AddedToken(text) for text, i in read_json(added).items()}
    if unknown := [name for name in options if name not in _KNOWN | _NEUTRAL and options[name] is not None]:
        warnings.warn(
            f"{config or checkpoint} sets {', '.join(unknown)}, which Tritone does not use", stacklevel=3
        )
    return {name: value for name, value in options.items() if name in _KNOWN}


def _content(token: Any) -> str:
    """The text of a token, which files write as a string or as an object."""
    content = token.get("content") if isinstance(token, dict) else getattr(token, "content", token)
    if not isinstance(content, str):
        raise ValueError(f"a special token must be a string, got {token!r}")
    return content
