"""The tokenizers of MBart and MBart50: SentencePiece's pieces, and a token for each language."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import tokenizers
from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram
from tokenizers.processors import PostProcessor

from ..tokenizers.fast import Pieces, UnigramTokenizer
from ..tokenizers.options import AddedToken

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


class MBartTokenizer(UnigramTokenizer):
    """Text to the ids of pieces and back, as transformers 5's tokenizer of the same files.

    A text is followed by EOS and its language's token.

    Args:
        vocab: pieces with their scores, in the order of their ids.
        charsmap: compiled rules of normalization; transformers 5 uses none here, so neither does this.
        **options: bos_token, eos_token, sep_token, cls_token, unk_token, pad_token, mask_token; src_lang: the
            language of texts ("en_XX" by default); tgt_lang: that of `text_target`; and what every
            `Tokenizer` takes.

    Raises:
        ValueError: a vocabulary that makes no tokenizer, a language that it does not have, or an option's bad
            value; TypeError: for its name.
    """

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

    def _build(self, vocab: Pieces, charsmap: bytes | None = None) -> tokenizers.Tokenizer:
        backend = tokenizers.Tokenizer(Unigram(vocab, unk_id=3, byte_fallback=False))
        self._split(backend, charsmap)
        backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
        return backend

    def _split(self, backend: tokenizers.Tokenizer, charsmap: bytes | None) -> None:
        """Set how a text is normalized and split into words."""
        words = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])

    def _configure(self, options: dict[str, Any]) -> dict[str, Any]:
        settings = super()._configure(options)
        self._set_extra([*self.languages, *self.additional_special_tokens])
        named = {token: self._declared[token] for token in self._named.values()}
        self._declared = named | {token: AddedToken(token) for token in self.languages} | self._declared
        self._src_lang = settings.pop("src_lang")
        self._tgt_lang = settings.pop("tgt_lang")
        return settings

    def _wrap(self) -> None:
        self.lang_code_to_id = {code: self._id(code) for code in self.languages}
        self.src_lang = self._src_lang
        self.tgt_lang = self._tgt_lang

    @property
    def src_lang(self) -> str:
        """The language of texts."""
        return self._src_lang

    @src_lang.setter
    def src_lang(self, language: str) -> None:
        self._src_lang = self._known(language, "src_lang")
        self._language = language
        self.backend.post_processor = self._around()

    @property
    def tgt_lang(self) -> str | None:
        """The language of `text_target`; None for that of texts."""
        return self._tgt_lang

    @tgt_lang.setter
    def tgt_lang(self, language: str | None) -> None:
        self._tgt_lang = language if language is None else self._known(language, "tgt_lang")

    def _known(self, language: str, name: str) -> str:
        if language not in self.lang_code_to_id:
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

    @classmethod
    def _arranged(cls, pieces: Pieces) -> Pieces:
        first = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
        return [*first, *pieces[3:], *((code, 0.0) for code in cls.languages), ("<mask>", 0.0)]


class MBart50Tokenizer(MBartTokenizer):
    """MBart50's, of 52 languages: a text stands between its language's token and EOS.

    `charsmap` is used. Further arguments as for `MBartTokenizer`.
    """

    languages = LANGUAGES_50
    special_tokens: ClassVar[dict[str, Any]] = MBartTokenizer.special_tokens | {"bos_token": None}

    def _split(self, backend: tokenizers.Tokenizer, charsmap: bytes | None) -> None:
        rules = [normalizers.Precompiled(charsmap)] if charsmap else []
        backend.normalizer = normalizers.Sequence([*rules, normalizers.Replace(Regex(r" {2,}"), " ")])
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)

    def _around(self) -> PostProcessor:
        before = f"{self._language}:0 $A:0"
        return self._template(f"{before} {self.eos_token}:0", f"{before} $B:0 {self.eos_token}:0")
