"""Tokenizers of MBart and MBart50: SentencePiece pieces, EOS and a language token."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers.processors import PostProcessor

from ..tokenizers.options import AddedToken
from ..tokenizers.sentencepiece import Pieces, SentencePieceTokenizer

LANGUAGES = (
    *("ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN", "it_IT"),
    *("ja_XX", "kk_KZ", "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO", "ru_RU", "si_LK"),
    *("tr_TR", "vi_VN", "zh_CN"),
)
LANGUAGES_50 = (
    *LANGUAGES,
    *("af_ZA", "az_AZ", "bn_IN", "fa_IR", "he_IL", "hr_HR", "id_ID", "ka_GE", "km_KH", "mk_MK", "ml_IN"),
    *("mn_MN", "mr_IN", "pl_PL", "ps_AF", "pt_XX", "sv_SE", "sw_KE", "ta_IN", "te_IN", "th_TH", "tl_XX"),
    *("uk_UA", "ur_PK", "xh_ZA", "gl_ES", "sl_SI"),
)


class MBartTokenizer(SentencePieceTokenizer):
    """SentencePiece tokenizer of MBart, which ends a text with EOS and its language token.

    Vocabulary arguments are those of `SentencePieceTokenizer`. As in transformers 5, `charsmap` is ignored
    here; MBart50 uses it.

    Args:
        **options: bos_token, eos_token, sep_token, cls_token, unk_token, pad_token, mask_token; src_lang:
            language of input texts ("en_XX" by default); tgt_lang: language of `text_target`; and the
            options of every `Tokenizer`.

    Raises:
        ValueError: as in `SentencePieceTokenizer`, or a language that the tokenizer does not have.
    """

    unknown_id = 3
    model_file = "sentencepiece.bpe.model"
    languages: ClassVar[tuple[str, ...]] = LANGUAGES
    special_tokens: ClassVar[dict[str, Any]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "cls_token": "<s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": AddedToken("<mask>", lstrip=True),
    }
    settings: ClassVar[dict[str, Any]] = {"src_lang": "en_XX", "tgt_lang": None}
    neutral = frozenset({"sp_model_kwargs", "language_codes", "unk_id"})

    def __init__(self, *vocabulary: Any, **options: Any) -> None:
        super().__init__(*vocabulary, **options)
        self.lang_code_to_id = {code: self._id(code) for code in self.languages}

    def _configure(self, options: dict[str, Any]) -> dict[str, Any]:
        languages = super()._configure(options)
        self._names_tokens = True  # the languages replace the special tokens of the model file
        self._set_extra([*self.languages, *self.additional_special_tokens])
        named = {token: self._declared[token] for token in self._named.values()}
        self._declared = named | {token: AddedToken(token) for token in self.languages} | self._declared
        self._src_lang = self._language = self._check(languages.pop("src_lang"), "src_lang")
        self.tgt_lang = languages.pop("tgt_lang")
        return languages

    @property
    def src_lang(self) -> str:
        """Language code of input texts, such as "en_XX"."""
        return self._src_lang

    @src_lang.setter
    def src_lang(self, language: str) -> None:
        self._src_lang = self._language = self._check(language, "src_lang")
        self.backend.post_processor = self._around()

    @property
    def tgt_lang(self) -> str | None:
        """Language code of `text_target`; None means `src_lang`."""
        return self._tgt_lang

    @tgt_lang.setter
    def tgt_lang(self, language: str | None) -> None:
        self._tgt_lang = language if language is None else self._check(language, "tgt_lang")

    def _check(self, language: str, name: str) -> str:
        if language not in self.languages:
            raise ValueError(
                f"{name} {language!r} is not a language of this tokenizer; it has {', '.join(self.languages)}"
            )
        return language

    @contextmanager
    def _as_target(self) -> Iterator[None]:
        self._language = self._tgt_lang or self._src_lang
        self.backend.post_processor = self._around()
        try:
            yield
        finally:
            self.src_lang = self._src_lang

    def _around(self) -> PostProcessor:
        behind = f"{self.eos_token}:0 {self._language}:0"
        return self._template(f"$A:0 {behind}", f"$A:0 $B:0 {behind}")

    def _complete(self, pieces: Pieces) -> Pieces:
        first = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
        return [*first, *pieces[3:], *((code, 0.0) for code in self.languages), ("<mask>", 0.0)]


class MBart50Tokenizer(MBartTokenizer):
    """MBart50 tokenizer, of 52 languages: language token, text, EOS; arguments are MBart's."""

    languages = LANGUAGES_50
    special_tokens: ClassVar[dict[str, Any]] = MBartTokenizer.special_tokens | {"bos_token": None}

    def _build(self, *vocabulary: Any) -> tokenizers.Tokenizer:
        backend = super()._build(*vocabulary)
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
        return backend

    def _normalizer(self, charsmap: bytes | None) -> Any:
        rules = [normalizers.Precompiled(charsmap)] if charsmap else []
        return normalizers.Sequence([*rules, normalizers.Replace(Regex(r" {2,}"), " ")])

    def _around(self) -> PostProcessor:
        before = f"{self._language}:0 $A:0"
        return self._template(f"{before} {self.eos_token}:0", f"{before} $B:0 {self.eos_token}:0")
