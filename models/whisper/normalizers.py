"""Text normalizers for word error rates: one for any language and one for English, as in openai's Whisper."""

import re
import unicodedata
from collections.abc import Mapping

from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from .spoken_numbers import EnglishNumberNormalizer

# Letters that Unicode does not decompose into a letter and a diacritic.
ADDITIONAL_DIACRITICS = {
    **{"œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE", "ß": "ss", "ẞ": "SS"},
    **{"đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "th", "ł": "l", "Ł": "L"},
}

_BRACKETS = re.compile(r"[<\[][^>\]]*[>\]]")
_PARENTHESES = re.compile(r"\(([^)]+?)\)")
_SPACES = re.compile(r"\s+")
_FILLERS = re.compile(r"\b(hmm|mm|mhm|mmm|uh|um)\b")

# English words and endings written out, in the order in which they are replaced.
_EXPANSIONS = {
    **{r"\bwon't\b": "will not", r"\bcan't\b": "can not", r"\blet's\b": "let us", r"\bain't\b": "aint"},
    **{r"\by'all\b": "you all", r"\bwanna\b": "want to", r"\bgotta\b": "got to", r"\bgonna\b": "going to"},
    **{r"\bi'ma\b": "i am going to", r"\bimma\b": "i am going to"},
    **{r"\bwoulda\b": "would have", r"\bcoulda\b": "could have", r"\bshoulda\b": "should have"},
    r"\bma'am\b": "madam",
    # titles
    **{r"\bmr\b": "mister ", r"\bmrs\b": "missus ", r"\bst\b": "saint ", r"\bdr\b": "doctor "},
    **{r"\bprof\b": "professor ", r"\bcapt\b": "captain ", r"\bgov\b": "governor "},
    **{r"\bald\b": "alderman ", r"\bgen\b": "general ", r"\bsen\b": "senator "},
    **{r"\brep\b": "representative ", r"\bpres\b": "president ", r"\brev\b": "reverend "},
    **{r"\bhon\b": "honorable ", r"\basst\b": "assistant ", r"\bassoc\b": "associate "},
    **{r"\blt\b": "lieutenant ", r"\bcol\b": "colonel ", r"\bjr\b": "junior ", r"\bsr\b": "senior "},
    r"\besq\b": "esquire ",
    # perfect tenses; "'s done" has two meanings
    **{r"'d been\b": " had been", r"'s been\b": " has been", r"'d gone\b": " had gone"},
    **{r"'s gone\b": " has gone", r"'d done\b": " had done", r"'s got\b": " has got"},
    # contractions in general
    **{r"n't\b": " not", r"'re\b": " are", r"'s\b": " is", r"'d\b": " would", r"'ll\b": " will"},
    **{r"'t\b": " not", r"'ve\b": " have", r"'m\b": " am"},
}
_REPLACED_IN_ENGLISH = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\s+'", "'"),
        *_EXPANSIONS.items(),
        (r"(\d),(\d)", r"\1\2"),
        (r"\.([^0-9]|$)", r" \1"),  # periods, except in decimals
    )
]
_KEPT_FOR_NUMBERS = ".%$¢€£"
_LONE_PREFIX = re.compile(r"[.$¢€£]([^0-9])")
_LONE_PERCENT = re.compile(r"([^0-9])%")


def remove_symbols(text: str) -> str:
    """Compose a text (NFKC), and replace its marks, symbols and punctuation by spaces."""
    return "".join(" " if _is_symbol(one) else one for one in unicodedata.normalize("NFKC", text))


def remove_symbols_and_diacritics(text: str, keep: str = "") -> str:
    """Replace symbols and punctuation of a text by spaces, and drop diacritics; characters of `keep` stay."""

    def replaced(character: str) -> str:
        if character in keep:
            return character
        if character in ADDITIONAL_DIACRITICS:
            return ADDITIONAL_DIACRITICS[character]
        if unicodedata.category(character) == "Mn":
            return ""
        return " " if _is_symbol(character) else character

    return "".join(map(replaced, unicodedata.normalize("NFKD", text)))


class BasicTextNormalizer:
    """Normalizer of texts in any language: lower case, nothing in brackets, no symbols, single spaces.

    Args:
        remove_diacritics: drop diacritics too.
        split_letters: put a space between any two letters, for the error rate of characters.
    """

    def __init__(self, remove_diacritics: bool = False, split_letters: bool = False) -> None:
        self.remove_diacritics = remove_diacritics
        self.split_letters = split_letters

    def __call__(self, text: str) -> str:
        """Normalize a text."""
        text = _without_brackets(text.lower())
        clean = remove_symbols_and_diacritics if self.remove_diacritics else remove_symbols
        text = clean(text).lower()
        if self.split_letters:
            text = " ".join(letter for letter, _ in _LETTERS.pre_tokenize_str(text))
        return _SPACES.sub(" ", text)


class EnglishSpellingNormalizer:
    """Normalizer of spelling, word by word.

    Args:
        english_spelling_mapping: spelling by other spelling of a word, as in normalizer.json.
    """

    def __init__(self, english_spelling_mapping: Mapping[str, str]) -> None:
        self.mapping = english_spelling_mapping

    def __call__(self, text: str) -> str:
        """Normalize a text, and the spaces between its words to single ones."""
        return " ".join(self.mapping.get(word, word) for word in text.split())


class EnglishTextNormalizer:
    """Normalizer of English texts: contractions, titles, numbers, currencies, spelling, symbols, fillers.

    Args:
        english_spelling_mapping: as in `EnglishSpellingNormalizer`.
    """

    def __init__(self, english_spelling_mapping: Mapping[str, str]) -> None:
        self.standardize_numbers = EnglishNumberNormalizer()
        self.standardize_spellings = EnglishSpellingNormalizer(english_spelling_mapping)

    def __call__(self, text: str) -> str:
        """Normalize a text."""
        text = _FILLERS.sub("", _without_brackets(text.lower()))
        for pattern, replacement in _REPLACED_IN_ENGLISH:
            text = pattern.sub(replacement, text)
        text = remove_symbols_and_diacritics(text, keep=_KEPT_FOR_NUMBERS)
        text = self.standardize_spellings(self.standardize_numbers(text))
        text = _LONE_PERCENT.sub(r"\1 ", _LONE_PREFIX.sub(r" \1", text))
        return _SPACES.sub(" ", text)


_LETTERS = Split(Regex(r"\X"), "isolated")  # Python's own patterns know no grapheme clusters


def _without_brackets(text: str) -> str:
    return _PARENTHESES.sub("", _BRACKETS.sub("", text))


def _is_symbol(character: str) -> bool:
    return unicodedata.category(character)[0] in "MSP"
