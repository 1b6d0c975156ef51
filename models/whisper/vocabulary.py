"""Special tokens of Whisper's vocabularies, which the number of tokens fixes, and known lists of tokens."""

from dataclasses import dataclass

from .languages import LANGUAGES, language_token

# fmt: off
_FIRST_MULTILINGUAL = 51865  # tokens of the smallest multilingual vocabulary
_OTHERS = 51765  # tokens of an English vocabulary that name no language

# Tokens of brackets, notes and the like that are never part of speech: Hugging Face's generation_config.json
# of openai/whisper-tiny.en and of openai/whisper-tiny.
NON_SPEECH_TOKENS = [
    1, 2, 7, 8, 9, 10, 14, 25, 26, 27, 28, 29, 31, 58, 59, 60, 61, 62, 63, 90, 91, 92, 93, 357, 366, 438,
    532, 685, 705, 796, 930, 1058, 1220, 1267, 1279, 1303, 1343, 1377, 1391, 1635, 1782, 1875, 2162, 2361,
    2488, 3467, 4008, 4211, 4600, 4808, 5299, 5855, 6329, 7203, 9609, 9959, 10563, 10786, 11420, 11709,
    11907, 13163, 13697, 13700, 14808, 15306, 16410, 16791, 17992, 19203, 19510, 20724, 22305, 22935, 27007,
    30109, 30420, 33409, 34949, 40283, 40493, 40549, 47282, 49146,
]
NON_SPEECH_TOKENS_MULTILINGUAL = [
    1, 2, 7, 8, 9, 10, 14, 25, 26, 27, 28, 29, 31, 58, 59, 60, 61, 62, 63, 90, 91, 92, 93, 359, 503, 522,
    542, 873, 893, 902, 918, 922, 931, 1350, 1853, 1982, 2460, 2627, 3246, 3253, 3268, 3536, 3846, 3961,
    4183, 4667, 6585, 6647, 7273, 9061, 9383, 10428, 10929, 11938, 12033, 12331, 12562, 13793, 14157, 14635,
    15265, 15618, 16553, 16604, 18362, 18956, 20075, 21675, 22520, 26130, 26161, 26435, 28279, 29464, 31650,
    32302, 32470, 36865, 42863, 47425, 49870, 50254,
]

# Cross-attention heads (layer, head) whose weights follow the time of words, found by openai for each model.
ALIGNMENT_HEADS = {
    "tiny.en": [(1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)],
    "tiny": [(2, 2), (3, 0), (3, 2), (3, 3), (3, 4), (3, 5)],
    "base.en": [(3, 3), (4, 7), (5, 1), (5, 5), (5, 7)],
    "base": [(3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6)],
    "small.en": [
        (6, 6), (7, 0), (7, 3), (7, 8), (8, 2), (8, 5), (8, 7), (9, 0), (9, 4), (9, 8), (9, 10), (10, 0),
        (10, 1), (10, 2), (10, 3), (10, 6), (10, 11), (11, 2), (11, 4),
    ],
    "small": [(5, 3), (5, 9), (8, 0), (8, 4), (8, 7), (8, 8), (9, 0), (9, 7), (9, 9), (10, 5)],
    "medium.en": [
        (11, 4), (14, 1), (14, 12), (14, 14), (15, 4), (16, 0), (16, 4), (16, 9), (17, 12), (17, 14), (18,
        7), (18, 10), (18, 15), (20, 0), (20, 3), (20, 9), (20, 14), (21, 12),
    ],
    "medium": [(13, 15), (15, 4), (15, 15), (16, 1), (20, 0), (23, 4)],
    "large-v1": [(9, 19), (11, 2), (11, 4), (11, 17), (22, 7), (22, 11), (22, 17), (23, 2), (23, 15)],
    "large-v2": [
        (10, 12), (13, 17), (16, 11), (16, 12), (16, 13), (17, 15), (17, 16), (18, 4), (18, 11), (18, 19),
        (19, 11), (21, 2), (21, 3), (22, 3), (22, 9), (22, 12), (23, 5), (23, 7), (23, 13), (25, 5), (26,
        1), (26, 12), (27, 15),
    ],
    "large-v3": [
        (7, 0), (10, 17), (12, 18), (13, 12), (16, 1), (17, 14), (19, 11), (21, 4), (24, 1), (25, 6),
    ],
    "large": [
        (7, 0), (10, 17), (12, 18), (13, 12), (16, 1), (17, 14), (19, 11), (21, 4), (24, 1), (25, 6),
    ],
    "large-v3-turbo": [(2, 4), (2, 11), (3, 3), (3, 6), (3, 11), (3, 14)],
    "turbo": [(2, 4), (2, 11), (3, 3), (3, 6), (3, 11), (3, 14)],
}
# fmt: on


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids of Whisper's special tokens in a vocabulary of one size.

    Attributes:
        end: <|endoftext|>, also for padding.
        start: <|startoftranscript|>.
        languages: id of each language by its token, "<|en|>" first; empty in an English vocabulary, whose own
            ids for them are never predicted.
        translate, transcribe: the tasks.
        start_of_lm, start_of_previous, no_speech, no_timestamps: <|startoflm|>, <|startofprev|>,
            <|nospeech|> (or <|nocaptions|>) and <|notimestamps|>; the next id is that of the time 0.00 s.
    """

    end: int
    start: int
    languages: dict[str, int]
    translate: int
    transcribe: int
    start_of_lm: int
    start_of_previous: int
    no_speech: int
    no_timestamps: int

    @property
    def is_multilingual(self) -> bool:
        """True for a vocabulary with languages and tasks."""
        return bool(self.languages)

    @classmethod
    def of_vocabulary(cls, size: int) -> "SpecialTokens":
        """Special tokens of a vocabulary of `size` tokens, times included.

        Raises:
            ValueError: no published vocabulary has this size.
        """
        is_multilingual = size >= _FIRST_MULTILINGUAL
        count = size - _OTHERS - is_multilingual
        if not 99 <= count <= len(LANGUAGES):
            raise ValueError(
                f"a vocabulary of {size} tokens is none of Whisper's; those have 51864, 51865 or 51866"
            )
        end = 50257 if is_multilingual else 50256
        first = end + 2
        after = first + count
        codes = list(LANGUAGES)[:count]
        names = {language_token(code): first + index for index, code in enumerate(codes)}
        return cls(end, end + 1, names if is_multilingual else {}, *range(after, after + 6))
