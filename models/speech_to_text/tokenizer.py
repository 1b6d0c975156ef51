"""Tokenizer of Speech2Text: a SentencePiece model whose pieces have their ids from vocab.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from sentencepiece import SentencePieceProcessor

from ..checkpoints.files import Checkpoint
from ..core.batches import one_of
from ..core.field_types import conform
from ..tokenizers.pieces import sentencepiece_bytes
from ..tokenizers.sentencepiece_model import read_sentencepiece
from ..tokenizers.slow import VOCAB_FILE, PythonTokenizer, read_vocabulary
from ..tokenizers.special_tokens import Ids

LANGUAGES = {"mustc": ["pt", "fr", "ru", "nl", "ro", "it", "es", "de"]}

_SPM_OPTIONS: dict[str, Any] = {
    **{"enable_sampling": bool, "nbest_size": int, "alpha": float, "num_threads": int},
    **dict.fromkeys(("add_bos", "add_eos", "reverse", "emit_unk_piece"), bool),
}
_SPM_FILE = "sentencepiece.bpe.model"


class Speech2TextTokenizer(PythonTokenizer):
    """SentencePiece tokenizer: encodes text to token ids, decodes token ids to text, as in transformers.

    Args:
        vocab_file: vocabulary file, a JSON object from SentencePiece piece to id.
        spm_file: file of the SentencePiece model.
        **options: bos_token, eos_token, pad_token, unk_token; do_upper_case: decode to upper case;
            do_lower_case: encode text in lower case (as transformers 4 does; 5.23 no longer does);
            lang_codes: the name of a list of languages, None or "mustc"; tgt_lang: one of them, by default
            the first; sp_model_kwargs: arguments of SentencePieceProcessor, such as enable_sampling,
            nbest_size, alpha; and the options of every `Tokenizer`.

    Raises:
        ValueError: a broken file, an unknown language or an option's bad value; TypeError: an unknown option.
    """

    settings: ClassVar[dict[str, Any]] = {
        "do_upper_case": False,
        "do_lower_case": False,
        "tgt_lang": None,
        "lang_codes": None,
        "sp_model_kwargs": {},
    }

    do_upper_case: bool
    do_lower_case: bool
    lang_codes: str | None
    sp_model_kwargs: dict[str, Any]

    def __init__(self, vocab_file: str | Path, spm_file: str | Path, **options: Any) -> None:
        language = self._configure(options)["tgt_lang"]
        one_of("lang_codes", self.lang_codes, (None, *LANGUAGES))
        if unknown := self.sp_model_kwargs.keys() - _SPM_OPTIONS.keys():
            raise ValueError(f"sp_model_kwargs has {min(unknown)!r}; there are {', '.join(_SPM_OPTIONS)}")
        self.sp_model_kwargs = {
            name: conform(f"{name} in sp_model_kwargs", value, _SPM_OPTIONS[name])
            for name, value in self.sp_model_kwargs.items()
        }
        self.encoder = read_vocabulary(vocab_file)
        self.decoder = {index: token for token, index in self.encoder.items()}
        read_sentencepiece(Path(spm_file))  # the library does not survive every damaged file
        self._spm_bytes = Path(spm_file).read_bytes()
        try:
            self.sp_model = SentencePieceProcessor(model_proto=self._spm_bytes, **self.sp_model_kwargs)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"{spm_file} is not a SentencePiece model: {error}") from None

        self.langs = LANGUAGES[self.lang_codes] if self.lang_codes else []
        languages = [f"<lang:{language}>" for language in self.langs]
        self._set_extra([*languages, *self.additional_special_tokens])
        self._number_added_tokens(options.get("added_tokens_decoder") or {})

        self.lang_code_to_id = {language: self._id(f"<lang:{language}>") for language in self.langs}
        self.prefix_tokens: Ids = []
        self._tgt_lang: str | None = None
        if language or self.langs:
            self.tgt_lang = language or self.langs[0]

    @property
    def tgt_lang(self) -> str | None:
        """Target language, whose token precedes every encoded text; None without `lang_codes`."""
        return self._tgt_lang

    @tgt_lang.setter
    def tgt_lang(self, language: str) -> None:
        if language not in self.lang_code_to_id:
            known = ", ".join(self.langs) or "none, having no lang_codes"
            raise ValueError(f"tgt_lang {language!r} is not a language of this tokenizer; it has {known}")
        self._tgt_lang = language
        self.prefix_tokens = [self.lang_code_to_id[language]]

    def build_inputs_with_special_tokens(self, token_ids_0: Ids, token_ids_1: Ids | None = None) -> Ids:
        """Frame token ids with special tokens: target language (if any), the sequence or pair, EOS."""
        return [*self.prefix_tokens, *token_ids_0, *(token_ids_1 or []), self.eos_token_id]

    def _special_mask(self, token_ids_0: Ids, token_ids_1: Ids | None) -> Ids:
        return [1] * len(self.prefix_tokens) + [0] * len([*token_ids_0, *(token_ids_1 or [])]) + [1]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Join tokens to text: special tokens followed by a space, the others decoded by SentencePiece."""
        special, text = set(self.all_special_tokens), ""
        if special.isdisjoint(tokens):
            return self._join(list(tokens)).strip()
        pieces: list[str] = []
        for token in tokens:
            if token in special:
                text += self._join(pieces) + token + " "
                pieces = []
            else:
                pieces.append(token)
        return (text + self._join(pieces)).strip()

    @classmethod
    def _vocabulary(cls, checkpoint: Checkpoint) -> tuple[Any, ...]:
        return checkpoint.require(VOCAB_FILE), checkpoint.require(_SPM_FILE)

    def _files(self) -> dict[str, dict[str, Any] | bytes]:
        return super()._files() | {_SPM_FILE: self._spm_bytes}

    def _pieces(self, text: str) -> list[str]:
        return self.sp_model.encode(text.lower() if self.do_lower_case else text, out_type=str)

    def _bytes(self, token: str) -> bytes:
        return sentencepiece_bytes(token.upper() if self.do_upper_case else token)

    def _join(self, pieces: list[str]) -> str:
        text: str = self.sp_model.decode(pieces)
        return text.upper() if self.do_upper_case else text
