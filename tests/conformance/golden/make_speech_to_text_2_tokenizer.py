"""Write speech_to_text_2_tokenizer.json: texts and ids through transformers 4.57.6's tokenizer.

Transformers 5 has no Speech2Text2 any more. Run with Python from this folder, in an environment that has
`pip install torch transformers==4.57.6`. The vocabulary and the merges that it uses are in the file too.
"""

import json
import random
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

from transformers import Speech2Text2Tokenizer

LINES = [
    "der Hund und die Katze",
    "die Straße über den Fluss",
    "und der Hund, und der Fluss",
    "Élève à l' école",
]
TEXTS = [
    *(
        "der Hund",
        "  die   Katze\tund\n",
        "",
        "Straßenhund überfluss",
        "x",
        "das ist neu",
        "</s> der <pad> Hund<s>",
    ),
    *("<noise> Hund", "der<noise>Fluss", "ÉLÈVE à 今天", "a@@ b", "</w>"),
]
OPTIONS = [
    {},
    {"do_lower_case": True},
    {"additional_special_tokens": ["<noise>"]},
    {"clean_up_tokenization_spaces": True},
]


def learn(lines: list[str], count: int) -> list[tuple[str, str]]:
    """The most frequent pairs, one after the other, as byte-pair encoding learns them."""
    words = [(*word[:-1], word[-1] + "</w>") for line in lines for word in line.split()]
    merges = []
    for _ in range(count):
        pairs = Counter(pair for word in words for pair in pairwise(word))
        if not pairs:
            break
        best = max(sorted(pairs), key=pairs.get)
        merges.append(best)
        words = [merged(word, best) for word in words]
    return merges


def merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return tuple(out)


def main() -> None:
    merges = learn(LINES, 40)
    letters = sorted({letter for line in LINES for letter in line if letter != " "})
    pieces = letters + [left + right for left, right in merges]
    tokens = ["<s>", "<pad>", "</s>", "<unk>"]
    for piece in pieces:
        token = piece.removesuffix("</w>") if piece.endswith("</w>") else f"{piece}@@"
        tokens += [token] if token not in tokens else []
    tokens += [letter for letter in letters if letter not in tokens]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    random.seed(0)
    some_ids = [[random.randrange(len(tokens) + 3) for _ in range(random.randrange(9))] for _ in range(40)]
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        vocab_file, merges_file = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocab_file.write_text(json.dumps(vocabulary), encoding="utf-8")
        merges_file.write_text("".join(f"{left} {right}\n" for left, right in merges), encoding="utf-8")
        for options in OPTIONS:
            tokenizer = Speech2Text2Tokenizer(str(vocab_file), merges_file=str(merges_file), **options)
            cases.append(
                {
                    "options": options,
                    "vocabulary": tokenizer.get_vocab(),
                    "special": tokenizer.all_special_tokens,
                    "tokens": [tokenizer.tokenize(text) for text in TEXTS],
                    "ids": [tokenizer(text).input_ids for text in TEXTS],
                    "padded": dict(tokenizer(TEXTS, padding=True)),
                    "texts": [tokenizer.decode(ids) for ids in some_ids],
                    "without_special": [tokenizer.decode(ids, skip_special_tokens=True) for ids in some_ids],
                }
            )
    golden = {"vocab": vocabulary, "merges": merges, "texts": TEXTS, "some_ids": some_ids, "cases": cases}
    path = Path(__file__).with_name("speech_to_text_2_tokenizer.json")
    path.write_text(json.dumps(golden, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
