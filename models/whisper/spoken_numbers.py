"""Normalizer of English number words to digits, with currencies, ordinals and per cent."""

import re
from collections.abc import Callable
from fractions import Fraction

_MAX_DIGITS = 4000  # Python converts up to 4,300 digits to a number

_ZEROS = ("o", "oh", "zero")
_UNIT_NAMES = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen nineteen"
)
_TEN_NAMES = "twenty thirty forty fifty sixty seventy eighty ninety"
_SCALE_NAMES = (
    "thousand million billion trillion quadrillion quintillion sextillion septillion octillion nonillion"
    " decillion"
)
_UNITS = {name: value for value, name in enumerate(_UNIT_NAMES.split(), 1)}
_TENS = {name: 10 * value for value, name in enumerate(_TEN_NAMES.split(), 2)}
_SCALES = {"hundred": 100} | {name: 1000**power for power, name in enumerate(_SCALE_NAMES.split(), 1)}

Endings = dict[str, tuple[int, str]]  # value and ending of a word that ends a number
_UNIT_ENDINGS: Endings = {
    **{"sixes" if name == "six" else f"{name}s": (value, "s") for name, value in _UNITS.items()},
    **{"zeroth": (0, "th"), "first": (1, "st"), "second": (2, "nd"), "third": (3, "rd")},
    **{"fifth": (5, "th"), "twelfth": (12, "th")},
    **{
        f"{name}h" if name == "eight" else f"{name}th": (value, "th")
        for name, value in _UNITS.items()
        if value > 3 and value not in (5, 12)
    },
}
_TEN_ENDINGS: Endings = {
    **{name.replace("y", "ies"): (value, "s") for name, value in _TENS.items()},
    **{name.replace("y", "ieth"): (value, "th") for name, value in _TENS.items()},
}
_SCALE_ENDINGS: Endings = {
    f"{name}{ending}": (value, ending) for ending in ("s", "th") for name, value in _SCALES.items()
}

_SIGNS = {"minus": "-", "negative": "-", "plus": "+", "positive": "+"}
_CURRENCIES = {
    **dict.fromkeys(("pound", "pounds"), "£"),
    **dict.fromkeys(("euro", "euros"), "€"),
    **dict.fromkeys(("dollar", "dollars"), "$"),
    **dict.fromkeys(("cent", "cents"), "¢"),
}
_PREFIXES = frozenset("-+£€$¢")
_DIGITS = re.compile(r"^\d+(\.\d+)?$")


class EnglishNumberNormalizer:
    """Normalizer of numbers in lower-case English: "twenty two" to "22", "two million dollars" to "$2000000".

    Ordinals and plurals keep their endings ("1960s", "32nd"), currencies become prefixes, digits spoken one
    by one are joined ("one oh one" to "101"), and a lone "one" stays a word.
    """

    def __call__(self, text: str) -> str:
        """Normalize a text, and the spaces between its words to single ones."""
        return _joined_cents(" ".join(_Numbers(_prepared(text).split()).normalized()))


class _Numbers:
    """Pass over the words of a text that collects number words into numbers.

    A number in progress is an int while its words add up ("twenty" "two"), and a string once its digits are
    spoken one after another or it has a decimal point; None between numbers.
    """

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.output: list[str] = []
        self.prefix = ""  # sign or currency of the number in progress
        self.value: int | str | None = None
        self.previous = self.next = ""  # words beside the current one
        self.skips = False  # the next word has been used up

    def normalized(self) -> list[str]:
        """Words of the text, with numbers in digits."""
        beside = ["", *self.words, ""]
        for index, word in enumerate(self.words):
            if self.skips:
                self.skips = False
                continue
            self.previous, self.next = beside[index], beside[index + 2]
            self._take(word)
        self._end_number()
        return self.output

    def _take(self, word: str) -> None:
        """Process one word by its kind."""
        has_prefix = word[0] in _PREFIXES
        if _DIGITS.match(word[has_prefix:]):
            self._take_digits(word, has_prefix)
        elif (kind := _KINDS.get(word)) is not None:
            kind(self, word)
        else:
            self._end_number()
            self._emit(word)

    def _emit(self, text: str) -> None:
        self.output.append(self.prefix + text)
        self.prefix, self.value = "", None

    def _end_number(self) -> None:
        if self.value is not None:
            self._emit(str(self.value))

    def _next_is_number(self) -> bool:
        return self.next in _KINDS or _DIGITS.match(self.next) is not None

    def _append(self, digits: str) -> None:
        """Append digits to the number in progress; a value of 0 is replaced, as in transformers."""
        self.value = f"{self.value or ''}{digits}"

    def _take_digits(self, word: str, has_prefix: bool) -> None:
        if isinstance(self.value, str) and self.value.endswith("."):
            self.value += word
            return
        self._end_number()
        digits = word[has_prefix:]
        if has_prefix:
            self.prefix = word[0]
        number = _fraction(digits)
        is_whole = number is not None and number.denominator == 1
        self.value = number.numerator if number is not None and is_whole else digits

    def _take_zero(self, word: str) -> None:
        self._append("0")

    def _take_unit(self, word: str) -> None:
        self.value = self._with_unit(_UNITS[word])

    def _take_unit_ending(self, word: str) -> None:
        unit, ending = _UNIT_ENDINGS[word]
        self._emit(f"{self._with_unit(unit)}{ending}")

    def _with_unit(self, unit: int) -> int | str:
        """Number in progress followed by a number below 20: their sum, or their digits joined."""
        value = self.value
        if value is None:
            return unit
        if isinstance(value, str) and self.previous in _TENS and unit < 10:
            return f"{value[:-1]}{unit}"
        if isinstance(value, str) or self.previous in _UNITS or value % (10 if unit < 10 else 100):
            return f"{value}{unit}"
        return value + unit

    def _take_ten(self, word: str) -> None:
        self.value = self._with_ten(_TENS[word])

    def _take_ten_ending(self, word: str) -> None:
        ten, ending = _TEN_ENDINGS[word]
        self._emit(f"{self._with_ten(ten)}{ending}")

    def _with_ten(self, ten: int) -> int | str:
        if self.value is None:
            return ten
        if isinstance(self.value, str) or self.value % 100:
            return f"{self.value}{ten}"
        return self.value + ten

    def _take_scale(self, word: str) -> None:
        scale = _SCALES[word]
        scaled = self._scaled(scale)
        if scaled is None:
            self._end_number()
        self.value = scale if scaled is None else scaled

    def _take_scale_ending(self, word: str) -> None:
        scale, ending = _SCALE_ENDINGS[word]
        scaled = self._scaled(scale)
        if scaled is None:
            self._end_number()
        self._emit(f"{scale if scaled is None else scaled}{ending}")

    def _scaled(self, scale: int) -> int | None:
        """Number in progress times `scale`, which multiplies its last three digits; None if not whole."""
        value = self.value
        if isinstance(value, int):
            return value // 1000 * 1000 + value % 1000 * scale
        number = None if value is None else _fraction(value)
        product = None if number is None else number * scale
        return product.numerator if product is not None and product.denominator == 1 else None

    def _take_sign(self, word: str) -> None:
        self._end_number()
        if self._next_is_number():
            self.prefix = _SIGNS[word]
        else:
            self._emit(word)

    def _take_currency(self, word: str) -> None:
        if self.value is None:
            self._emit(word)
        else:
            self.prefix = _CURRENCIES[word]
            self._end_number()

    def _take_percent(self, word: str) -> None:
        if self.value is None:
            self._emit(word)
        else:
            self._emit(f"{self.value}%")

    def _take_per(self, word: str) -> None:
        if self.value is not None and self.next == "cent":
            self._emit(f"{self.value}%")
            self.skips = True
        else:
            self._end_number()
            self._emit(word)

    def _take_and(self, word: str) -> None:
        if not self._next_is_number() or self.previous not in _SCALES:
            self._end_number()
            self._emit(word)

    def _take_repeated(self, word: str) -> None:
        if self.next in _UNITS or self.next in _ZEROS:
            self._append(str(_UNITS.get(self.next, 0)) * (2 if word == "double" else 3))
            self.skips = True
        else:
            self._end_number()
            self._emit(word)

    def _take_point(self, word: str) -> None:
        if self.next in _DECIMALS or _DIGITS.match(self.next):
            self._append(".")
        elif self.next not in _KINDS:
            self._end_number()
            self._emit(word)


_DECIMALS = frozenset({*_UNITS, *_TENS, *_ZEROS})
_KINDS: dict[str, Callable[[_Numbers, str], None]] = {
    **dict.fromkeys(_ZEROS, _Numbers._take_zero),
    **dict.fromkeys(_UNITS, _Numbers._take_unit),
    **dict.fromkeys(_UNIT_ENDINGS, _Numbers._take_unit_ending),
    **dict.fromkeys(_TENS, _Numbers._take_ten),
    **dict.fromkeys(_TEN_ENDINGS, _Numbers._take_ten_ending),
    **dict.fromkeys(_SCALES, _Numbers._take_scale),
    **dict.fromkeys(_SCALE_ENDINGS, _Numbers._take_scale_ending),
    **dict.fromkeys(_SIGNS, _Numbers._take_sign),
    **dict.fromkeys(_CURRENCIES, _Numbers._take_currency),
    **{"percent": _Numbers._take_percent, "per": _Numbers._take_per, "and": _Numbers._take_and},
    **dict.fromkeys(("double", "triple"), _Numbers._take_repeated),
    "point": _Numbers._take_point,
}


def _fraction(digits: str) -> Fraction | None:
    """Exact value of digits; None if they make no number, or one too long to convert."""
    if len(digits) > _MAX_DIGITS:
        return None
    try:
        return Fraction(digits)
    except ValueError:
        return None


def _prepared(text: str) -> str:
    """Text with "and a half" as "point five" after numbers, and digits apart from letters."""
    *segments, last = re.split(r"\band\s+a\s+half\b", text)
    parts = []
    for segment in filter(str.strip, segments):
        is_number = segment.split()[-1] in _DECIMALS | _SCALES.keys()
        parts += [segment, "point five" if is_number else "and a half"]
    text = " ".join([*parts, last] if last.strip() else parts)
    text = re.sub(r"([a-z])([0-9])", r"\1 \2", text)
    text = re.sub(r"([0-9])([a-z])", r"\1 \2", text)
    return re.sub(r"([0-9])\s+(st|nd|rd|th|s)\b", r"\1\2", text)


def _joined_cents(text: str) -> str:
    """Text with cents joined to their currency ("$2 and ¢7" to "$2.07"), and 1 as "one"."""
    text = re.sub(
        r"([€£$])([0-9]+) (?:and )?¢([0-9]{1,2})\b",
        lambda found: f"{found[1]}{found[2]}.{int(found[3]):02d}",
        text,
    )
    text = re.sub(r"[€£$]0.([0-9]{1,2})\b", lambda found: f"¢{int(found[1])}", text)
    return re.sub(r"\b1(s?)\b", r"one\1", text)
