"""The tokenizer of CTC models: characters, and what a model says at every frame turned into text."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from ..checkpoints.files import read_json, write_json
from ..core.batches import as_list, is_batch
from ..core.outputs import ModelOutput
from ..tokenizers.options import AddedToken
from ..tokenizers.slow import VOCAB_FILE, PythonTokenizer, check_vocabulary

Offsets = list[dict[str, Any]]


@dataclass
class Wav2Vec2CTCTokenizerOutput(ModelOutput):
    """Decoded text and where it was said.

    Args:
        text: the text, or that of each sequence.
        char_offsets: {"char", "start_offset", "end_offset"} of each character, in the model's frames; a list
            of those for each sequence. None where not asked for.
        word_offsets: the same of words, with "word".
    """

    text: Any
    char_offsets: Any = None
    word_offsets: Any = None


class Wav2Vec2CTCTokenizer(PythonTokenizer):
    """Text to the ids of its characters, and a model's ids, one a frame, to text.

    Args:
        vocab_file: JSON object from character to id, or from language to such objects.
        **options: bos_token, eos_token, unk_token; pad_token: CTC's blank too; word_delimiter_token: what
            stands between words; replace_word_delimiter_char: what it becomes in decoded text; do_lower_case:
            take text of either case and decode to lower case, for a vocabulary in upper case; target_lang:
            the language of a vocabulary of several; and what every `Tokenizer` takes.

    Raises:
        ValueError: for a broken file, a language that is missing or unknown, or an option's bad value;
            TypeError: for its name.
    """

    special_tokens: ClassVar[dict[str, Any]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "word_delimiter_token": "|",
    }
    settings: ClassVar[dict[str, Any]] = {
        "replace_word_delimiter_char": " ",
        "do_lower_case": False,
        "target_lang": None,
    }
    neutral = frozenset({"do_normalize", "return_attention_mask", "tokenizer_type"})

    def __init__(self, vocab_file: str | Path, **options: Any) -> None:
        settings = self._configure(options)
        if not self.word_delimiter_token:
            raise ValueError("word_delimiter_token must be what stands between words, got none")
        self.do_lower_case: bool = settings["do_lower_case"]
        self.replace_word_delimiter_char: str = settings["replace_word_delimiter_char"]
        self.target_lang: str | None = settings["target_lang"]
        self._file = str(vocab_file)
        self.vocab: dict[str, Any] = read_json(Path(vocab_file))
        self._choose_vocabulary()
        self._number_added_tokens(options.get("added_tokens_decoder") or {})
        self._keep_long_tokens()

    def _choose_vocabulary(self) -> None:
        languages = [name for name, inner in self.vocab.items() if isinstance(inner, dict)]
        if self.target_lang is None:
            if languages:
                raise ValueError(
                    f"{self._file} has vocabularies of {len(languages)} languages; give target_lang, one of "
                    f"{_some(languages)}"
                )
            self.encoder = self.vocab
        elif self.target_lang in languages:
            self.encoder = self.vocab[self.target_lang]
        else:
            known = f"it has {_some(languages)}" if languages else "it is of one language; leave it out"
            raise ValueError(f"target_lang {self.target_lang!r} is not a language of {self._file}; {known}")
        check_vocabulary(self.encoder, self._file)
        self.decoder = {index: token for token, index in self.encoder.items()}

    def _keep_long_tokens(self) -> None:
        """Have tokens of several characters found in text as a whole, the spaces around them taken along."""
        for token, index in self.encoder.items():
            if len(token) > 1:
                self.added_tokens_decoder[index] = AddedToken(token, lstrip=True, rstrip=True, special=False)
                self.added_tokens_encoder[token] = index
        self._split_at_added()

    def set_target_lang(self, target_lang: str) -> None:
        """Change the language of a vocabulary of several.

        Raises:
            ValueError: no such language, or a vocabulary of one.
        """
        before = self.target_lang
        self.target_lang = target_lang
        try:
            self._choose_vocabulary()
        except ValueError:
            self.target_lang = before
            raise
        for index in self.decoder.keys() & self.added_tokens_decoder.keys():
            self.added_tokens_encoder.pop(self.added_tokens_decoder.pop(index).content, None)
        self._keep_long_tokens()

    @property
    def word_delimiter_token(self) -> str:
        """What stands between words."""
        return self._named.get("word_delimiter_token", "")

    @property
    def word_delimiter_token_id(self) -> Any:
        """Its id."""
        return self._id(self.word_delimiter_token)

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary, without added ones."""
        return len(self.decoder)

    def _pieces(self, text: str) -> list[str]:
        text = text.upper() if self.do_lower_case else text
        return list(text.replace(" ", self.word_delimiter_token))

    def _token(self, index: int) -> Any:
        if index in self.decoder:  # before added ones: the numbers of several languages' tokens collide
            return self.decoder[index]
        added = self.added_tokens_decoder.get(index)
        return self.unk_token if added is None else added.content

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        output_char_offsets: bool = False,
        output_word_offsets: bool = False,
        group_tokens: bool = True,
        spaces_between_special_tokens: bool = False,
    ) -> Any:
        """The text of a model's ids, one a frame.

        Equal neighbors are one, and blanks (`pad_token`) are left out.

        Args:
            token_ids: [frames] in a list, array or tensor, one id, or a batch of them [batch, frames].
            skip_special_tokens: leave out special tokens; word delimiters stay.
            clean_up_tokenization_spaces: take away the space before punctuation marks and contractions.
            output_char_offsets, output_word_offsets: where characters and words begin and end, in frames.
            group_tokens: False for ids that are text already, such as labels.
            spaces_between_special_tokens: join everything with spaces.

        Returns:
            the text, or a `Wav2Vec2CTCTokenizerOutput` where offsets are asked for; of a batch, a list.
        """
        token_ids = as_list(token_ids)
        if is_batch(token_ids):
            return [
                self.decode(
                    one,
                    skip_special_tokens,
                    clean_up_tokenization_spaces,
                    output_char_offsets,
                    output_word_offsets,
                    group_tokens,
                    spaces_between_special_tokens,
                )
                for one in token_ids
            ]
        tokens = self.convert_ids_to_tokens([token_ids] if isinstance(token_ids, int) else token_ids)
        if skip_special_tokens:
            skip = set(self.all_special_tokens) - {self.word_delimiter_token}
            tokens = [token for token in tokens if token not in skip]
        parts = self.convert_tokens_to_string(
            tokens,
            group_tokens,
            spaces_between_special_tokens,
            output_char_offsets,
            output_word_offsets,
        )
        if self._cleans(clean_up_tokenization_spaces):
            parts["text"] = self._cleaned(parts["text"])
        if output_char_offsets or output_word_offsets:
            return Wav2Vec2CTCTokenizerOutput(**parts)
        return parts["text"]

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        """`decode` of each sequence: texts, or one `Wav2Vec2CTCTokenizerOutput` of lists."""
        decoded = [self.decode(one, *args, **kwargs) for one in sequences]
        if not any(isinstance(one, Wav2Vec2CTCTokenizerOutput) for one in decoded):
            return decoded
        columns = {}
        for name in ("text", "char_offsets", "word_offsets"):
            values = [getattr(one, name) for one in decoded]
            columns[name] = None if values[0] is None else values
        return Wav2Vec2CTCTokenizerOutput(**columns)

    def convert_tokens_to_string(
        self,
        tokens: Sequence[str],
        group_tokens: bool = True,
        spaces_between_special_tokens: bool = False,
        output_char_offsets: bool = False,
        output_word_offsets: bool = False,
    ) -> dict[str, Any]:
        """{"text", "char_offsets", "word_offsets"} of tokens, one a frame; see `decode`."""
        if not tokens:
            return {"text": "", "char_offsets": [], "word_offsets": []}
        runs = [(token, len(list(run))) for token, run in groupby(tokens)] if group_tokens else None
        offsets: Offsets = []
        frame = 0
        for token, frames in runs or ((token, 1) for token in tokens):
            if token != self.pad_token:
                char = self.replace_word_delimiter_char if token == self.word_delimiter_token else token
                offsets.append({"char": char, "start_offset": frame, "end_offset": frame + frames})
            frame += frames
        text = (" " if spaces_between_special_tokens else "").join(one["char"] for one in offsets).strip()
        return {
            "text": text.lower() if self.do_lower_case else text,
            "char_offsets": offsets if output_char_offsets else None,
            "word_offsets": _words(offsets, self.replace_word_delimiter_char)
            if output_word_offsets
            else None,
        }

    def save_vocabulary(
        self, save_directory: str | Path, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write vocab.json, with every language's vocabulary, into a folder that exists; returns its path."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        return (write_json(Path(save_directory) / (prefix + VOCAB_FILE), self.vocab),)


def _words(chars: Offsets, delimiter: str) -> Offsets:
    """Words of characters: from the first one's beginning to the last one's end."""
    words: Offsets = []
    for delimits, run in groupby(chars, key=lambda one: one["char"] == delimiter):
        if not delimits:
            word = list(run)
            words.append(
                {
                    "word": "".join(one["char"] for one in word),
                    "start_offset": word[0]["start_offset"],
                    "end_offset": word[-1]["end_offset"],
                }
            )
    return words


def _some(languages: list[str]) -> str:
    shown = ", ".join(languages[:20])
    return shown + (f" and {len(languages) - 20} more" if len(languages) > 20 else "")
