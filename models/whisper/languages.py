"""Languages of Whisper: codes, English names and other names, and the codes' tokens."""

from ..core.field_types import shown

_TABLE = """
    en: english, zh: chinese, de: german, es: spanish, ru: russian, ko: korean, fr: french, ja: japanese,
    pt: portuguese, tr: turkish, pl: polish, ca: catalan, nl: dutch, ar: arabic, sv: swedish, it: italian,
    id: indonesian, hi: hindi, fi: finnish, vi: vietnamese, he: hebrew, uk: ukrainian, el: greek,
    ms: malay, cs: czech, ro: romanian, da: danish, hu: hungarian, ta: tamil, no: norwegian, th: thai,
    ur: urdu, hr: croatian, bg: bulgarian, lt: lithuanian, la: latin, mi: maori, ml: malayalam, cy: welsh,
    sk: slovak, te: telugu, fa: persian, lv: latvian, bn: bengali, sr: serbian, az: azerbaijani,
    sl: slovenian, kn: kannada, et: estonian, mk: macedonian, br: breton, eu: basque, is: icelandic,
    hy: armenian, ne: nepali, mn: mongolian, bs: bosnian, kk: kazakh, sq: albanian, sw: swahili,
    gl: galician, mr: marathi, pa: punjabi, si: sinhala, km: khmer, sn: shona, yo: yoruba, so: somali,
    af: afrikaans, oc: occitan, ka: georgian, be: belarusian, tg: tajik, sd: sindhi, gu: gujarati,
    am: amharic, yi: yiddish, lo: lao, uz: uzbek, fo: faroese, ht: haitian creole, ps: pashto, tk: turkmen,
    nn: nynorsk, mt: maltese, sa: sanskrit, lb: luxembourgish, my: myanmar, bo: tibetan, tl: tagalog,
    mg: malagasy, as: assamese, tt: tatar, haw: hawaiian, ln: lingala, ha: hausa, ba: bashkir,
    jw: javanese, su: sundanese, yue: cantonese
"""
# English name of each language by its code, in the order of the token ids; the 100th came with large-v3.
LANGUAGES: dict[str, str] = dict(entry.strip().split(": ") for entry in _TABLE.split(","))

_OTHER_NAMES = {
    "burmese": "my",
    "castilian": "es",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "mandarin": "zh",
    "moldavian": "ro",
    "moldovan": "ro",
    "panjabi": "pa",
    "pushto": "ps",
    "sinhalese": "si",
    "valencian": "ca",
}
# Code of each language by its names.
LANGUAGE_CODES: dict[str, str] = {name: code for code, name in LANGUAGES.items()} | _OTHER_NAMES

# Languages whose words are not separated by spaces.
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


def plain_language(language: str) -> str:
    """Language in lower case, without the marks of a token."""
    return language.lower().removeprefix("<|").removesuffix("|>")


def language_code(language: str) -> str:
    """Code of a language given as its code, its token such as "<|de|>", or a name, in any case.

    Raises:
        ValueError: no language of Whisper.
    """
    name = plain_language(language)
    code = LANGUAGE_CODES.get(name, name)
    if code not in LANGUAGES:
        accepted = ", ".join(LANGUAGES if len(name) <= 3 else LANGUAGE_CODES)
        raise ValueError(f"language {shown(language)} is not one of Whisper's; there are {accepted}")
    return code


def language_token(language: str) -> str:
    """Token of a language given as in `language_code`, such as "<|de|>"."""
    return f"<|{language_code(language)}|>"
