"""Text normalizers against transformers'."""

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from whisper_tokenizers import SPELLINGS

from tritone.models.whisper import normalizers as ours
from tritone.models.whisper.spoken_numbers import _KINDS

theirs = pytest.importorskip("transformers.models.whisper.english_normalizer")

SENTENCES = [
    "Mr. Smith's favour isn't grey; he won't organise it, y'all!",
    "I gotta go, she'd been there [noise] (laughs) <unk> hmm um uh",
    "twenty two million three hundred and five dollars and seven cents",
    "one oh one, double oh seven, triple five and a half",
    "two and a half million; and a half; five and a half percent, fifty per cent, per hour",
    "the nineteen sixties, 1960s, the twenty first, 32 nd, 274th, five hundredths",
    "minus three point one four, plus $20.05, €0.07, -5, £1,000,000.50 and 3.7 billion",
    "127.0.0.1 is one two seven point zero point zero point one",
    "point five. ones and ones, 1s and 1, one hundred thousand twenty eleven thirteen",
    "Éric naïve Straße œuvre Łódź þorn ½ ² ﬁ № ٣ ４２",
    "0 hundred . zero million. five trillion trillionth 2.5 thousandth 0.3 hundred o'clock",
    "",
    " \t\n ",
]
WORDS = [
    *_KINDS,
    *(
        "a half",
        "cats",
        "1",
        "12",
        "2.5",
        "0",
        "100",
        "$5",
        "-3",
        "¢7",
        "€",
        "%",
        "2nd",
        "19th",
        "10s",
        "a1b",
    ),
    *("0.07", "3.", ".", "'s", "n't", "mr", "st", "favour", ",", "and a half", "1,000", "¢5"),
]
# Apostrophes in words, at their ends and beside numbers, straight and curved.
APOSTROPHES = [
    *("o'clock", "seven o'clock", "7 o\u2019clock", "O'Brien", "rock'n'roll", "'tis", "ma'am", "y'all're"),
    *("the dogs'", "James's", "'90s", "1990's", "won\u2019t", "can't", "couldn't've", "I'd've", "she'll"),
    *("it's been", "who's gone", "let's", "ain't", "fo'c'sle", "jack-o'-lantern", "l'\xe9t\xe9", "5'10\""),
    *("' s", "'", "''", "\u2018single\u2019", "i'ma", "dr's", "mr.'s", "ones'", "two's"),
]
sentences = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
apostrophes = st.lists(st.sampled_from([*APOSTROPHES, *WORDS]), max_size=6).map(" ".join)
numbers = st.lists(st.sampled_from(list(_KINDS)), max_size=9).map(" ".join)
texts = st.one_of(
    sentences,
    apostrophes,
    numbers,
    st.text(max_size=40),
    st.text(alphabet="ab 01.,'$¢%-[](<>)éßÅ한\u1112\u1161\u11ab\u200d\u0e33\r\nİſ", max_size=30),
)


@settings(max_examples=600, deadline=None)
@given(text=texts)
def test_any_english_text_is_normalized_as_in_transformers(text):
    assert ours.EnglishTextNormalizer(SPELLINGS)(text) == theirs.EnglishTextNormalizer(SPELLINGS)(text)
    lower = text.lower()
    assert ours.EnglishNumberNormalizer()(lower) == theirs.EnglishNumberNormalizer()(lower)


@settings(max_examples=300, deadline=None)
@given(text=texts)
@example("한국어 \u0e01\u0e33")
def test_any_text_is_normalized_as_in_transformers(text):
    for options in ({}, {"remove_diacritics": True}, {"split_letters": True}, dict.fromkeys(BOTH, True)):
        assert ours.BasicTextNormalizer(**options)(text) == theirs.BasicTextNormalizer(**options)(text)


BOTH = ("remove_diacritics", "split_letters")


@pytest.mark.parametrize("text", SENTENCES)
def test_sentences_are_normalized_as_in_transformers(text):
    test_any_english_text_is_normalized_as_in_transformers.hypothesis.inner_test(text)
    test_any_text_is_normalized_as_in_transformers.hypothesis.inner_test(text)


def test_every_character_is_replaced_as_in_transformers():
    every = "".join(
        chr(code) for code in range(0x30000) if unicodedata.category(chr(code)) not in ("Cs", "Cn")
    )
    assert ours.remove_symbols(every) == theirs.remove_symbols(every)
    assert ours.remove_symbols_and_diacritics(every, ".%") == theirs.remove_symbols_and_diacritics(
        every, ".%"
    )


@pytest.mark.parametrize(
    ("spoken", "written"),
    [
        ("twenty two", "22"),
        ("two million dollars", "$2000000"),
        ("five dollars and seven cents", "$5.07"),
        ("one oh one", "101"),
        ("the nineteen sixties", "the 1960s"),
        ("thirty second", "32nd"),
        ("two and a half", "2.5"),
        ("minus fifty per cent", "-50%"),
        ("one", "one"),
    ],
)
def test_spoken_numbers_become_digits(spoken, written):
    assert ours.EnglishNumberNormalizer()(spoken) == written


def test_an_oclock_is_a_zero_and_a_clock_as_in_openais():
    """The apostrophe becomes a space, and "o" is a spoken zero: the same in a reference and a transcript."""
    normalize = ours.EnglishTextNormalizer(SPELLINGS)
    assert normalize("seven o'clock") == normalize("7 o\u2019clock") == "70 clock"


def test_numbers_too_long_to_convert_stay_digits():
    for text in ("9" * 5000, "one " * 5000 + "million", "9" * 4299 + " decillion"):
        assert ours.EnglishNumberNormalizer()(text)
