"""Character tokenizer of CTC models, which decodes one token id per frame to text."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from ..checkpoints.contents import read_json
from ..core.batches import as_list, is_batch
from ..core.outputs import ModelOutput
from ..tokenizers.options import AddedToken
from ..tokenizers.slow import VOCAB_FILE, PythonTokenizer, check_vocabulary
from ..tokenizers.special_tokens import Ids, role

Offsets = list[dict[str, Any]]


@dataclass
class Wav2Vec2CTCTokenizerOutput(ModelOutput):
    """Decoded text with the time offsets of its characters and words.

    Args:
        text: decoded text, or a list of texts for several sequences.
        char_offsets: list with {"char", "start_offset", "end_offset"} of each character, in model frames, or
            a list of such lists for several sequences. None unless requested.
        word_offsets: the same for words, with the key "word".
    """

    text: Any
    char_offsets: Any = None
    word_offsets: Any = None


class Wav2Vec2CTCTokenizer(PythonTokenizer):
    """CTC tokenizer: encodes text to character ids and decodes a model's ids, one per frame, to text.

    Args:
        vocab_file: vocabulary file, a JSON object from character to id, or from language to such objects.
        **options: bos_token, eos_token, unk_token; pad_token: CTC's blank too; word_delimiter_token:
            word-boundary marker; replace_word_delimiter_char: its form in decoded text; do_lower_case: encode
            text in upper case and decode to lower case, for a vocabulary in upper case; target_lang: the
            language to use of a multilingual vocabulary; and the options of every `Tokenizer`.

    Raises:
        ValueError: a broken vocabulary file, a missing or unknown language, or a bad value of an option;
            TypeError: an unknown option.
    """

    special_tokens: ClassVar[dict[str, Any]] = PythonTokenizer.special_tokens | {"word_delimiter_token": "|"}
    neutral = frozenset({"do_normalize", "return_attention_mask", "tokenizer_type"})

    replace_word_delimiter_char: str = " "
    do_lower_case: bool = False
    target_lang: str | None = None

    word_delimiter_token, word_delimiter_token_id = role("word_delimiter_token")

    def __init__(self, vocab_file: str | Path, **options: Any) -> None:
        self._configure(options)
        if not self.word_delimiter_token:
            raise ValueError("word_delimiter_token must be the text between words, got none")
        self._file = str(vocab_file)
        self.vocab: dict[str, Any] = read_json(Path(vocab_file))
        self._choose_vocabulary()
        self._number_added_tokens(options.get("added_tokens_decoder") or {})
        self._add_long_tokens()

    def _choose_vocabulary(self) -> None:
        languages = [name for name, inner in self.vocab.items() if isinstance(inner, dict)]
        if self.target_lang is None:
            if languages:
                raise ValueError(
                    f"{self._file} has vocabularies of {len(languages)} languages; give target_lang, one of "
                    f"{_list(languages)}"
                )
            self.encoder = self.vocab
        elif self.target_lang in languages:
            self.encoder = self.vocab[self.target_lang]
        else:
            known = f"it has {_list(languages)}" if languages else "it is of one language; leave it out"
            raise ValueError(f"target_lang {self.target_lang!r} is not a language of {self._file}; {known}")
        check_vocabulary(self.encoder, self._file)
        self.decoder = {index: token for token, index in self.encoder.items()}

    def _add_long_tokens(self) -> None:
        """Make vocabulary entries of several characters added tokens, which absorb adjacent spaces."""
        for token, index in self.encoder.items():
            if len(token) > 1:
                self.added_tokens_decoder[index] = AddedToken(token, lstrip=True, rstrip=True, special=False)
                self.added_tokens_encoder[token] = index
        self._split_at_added()

    def set_target_lang(self, target_lang: str) -> None:
        """Switch to another language of a multilingual vocabulary.

        Raises:
            ValueError: the vocabulary has no such language, or is monolingual.
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
        self._add_long_tokens()

    @property
    def vocab_size(self) -> int:
        """Vocabulary size, without added tokens."""
        return len(self.decoder)

    def _pieces(self, text: str) -> list[str]:
        text = text.upper() if self.do_lower_case else text
        return list(text.replace(" ", self.word_delimiter_token))

    def _bytes(self, token: str) -> bytes:
        return b" " if token == self.word_delimiter_token else token.encode()

    def _tokens(self, ids: Ids) -> list[Any]:
        added, own, unknown = self.added_tokens_decoder, self.decoder, self.unk_token
        # Added tokens come last, as languages share ids.
        return [
            own[index] if index in own else added[index].content if index in added else unknown
            for index in ids
        ]

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
        """Decode a model's token ids, one per frame, to text, without repeats and blanks (`pad_token`).

        Args:
            token_ids: list, array or tensor [frames], a single id, or a batch [batch, frames].
            skip_special_tokens: omit special tokens; word-boundary markers stay.
            clean_up_tokenization_spaces: remove the space before punctuation and contractions.
            output_char_offsets, output_word_offsets: also return the frame offsets of characters or words.
            group_tokens: merge repeated ids; False for ids without repetition, such as labels.
            spaces_between_special_tokens: join all tokens with spaces.

        Returns:
            the text, or a `Wav2Vec2CTCTokenizerOutput` if offsets are requested; a list for a batch.
        """
        token_ids = as_list(token_ids)
        grouping = (group_tokens, spaces_between_special_tokens)
        if is_batch(token_ids):
            options = (skip_special_tokens, clean_up_tokenization_spaces)
            return [
                self.decode(one, *options, output_char_offsets, output_word_offsets, *grouping)
                for one in token_ids
            ]
        tokens = self.convert_ids_to_tokens([token_ids] if isinstance(token_ids, int) else token_ids)
        if skip_special_tokens:
            skip = set(self.all_special_tokens) - {self.word_delimiter_token}
            tokens = [token for token in tokens if token not in skip]
        parts = self.convert_tokens_to_string(tokens, *grouping, output_char_offsets, output_word_offsets)
        if self._cleans(clean_up_tokenization_spaces):
            parts["text"] = self._cleaned(parts["text"])
        if output_char_offsets or output_word_offsets:
            return Wav2Vec2CTCTokenizerOutput(**parts)
        return parts["text"]

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> Any:
        """Decode several sequences to a list of texts or, with offsets, one `Wav2Vec2CTCTokenizerOutput`."""
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
        """Convert tokens, one per frame, to {"text", "char_offsets", "word_offsets"}, as `decode` does."""
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

    def _files(self) -> dict[str, dict[str, Any] | bytes]:
        return {VOCAB_FILE: self.vocab}  # of every language


def _words(chars: Offsets, delimiter: str) -> Offsets:
    """Word offsets from character offsets, each from its first character's start to its last one's end."""
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


def _list(languages: list[str]) -> str:
    shown = ", ".join(languages[:20])
    return shown + (f" and {len(languages) - 20} more" if len(languages) > 20 else "")
