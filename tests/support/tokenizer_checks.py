"""Tokenizers of every family beside transformers' of the same vocabularies."""

import io
import json
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tritone.models.albert.tokenizer import AlbertTokenizer
from tritone.models.bart.tokenizer import BartTokenizer
from tritone.models.bert.tokenizer import BertTokenizer
from tritone.models.gpt2.tokenizer import GPT2Tokenizer
from tritone.models.mbart.tokenizer import MBart50Tokenizer, MBartTokenizer
from tritone.models.roberta.tokenizer import RobertaTokenizer
from tritone.models.t5.tokenizer import T5Tokenizer
from tritone.models.tokenizers.sentencepiece_model import read_sentencepiece
from tritone.models.xlnet.tokenizer import XLNetTokenizer

transformers = pytest.importorskip("transformers")

LINES = [
    "The cat, sat on a mat; it isn't flat.",
    "Über die Straße ging ein naïve Élève",
    "今天天气很好",
    "one two three four five",
    "one two three 1,000, four 2,",
    "hello world hello",
    "hello world (hello) . 5 €",
] * 10
TEXTS = [
    "The cat sat.",
    "",
    "  two   spaces ",
    "[CLS] x [MASK] <mask> y</s>z<s> <cls><sep> <eop>",
    "ÜBER straße 今天 ﬁne e\u0301 ｆｕｌｌ №",
    "isn't it ? ``quoted'' '' `` (so) 5 €",
    "<noise> cat <extra_id_0> <extra_id_3>x<extra_id_99>",
    "<|endoftext|> hi",
    "en_XX hello de_DE",
    "\x00\t\nabc\u3000wide",
]
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# Options of SentencePiece's trainer.
SENTENCEPIECE: dict[type, dict[str, Any]] = {
    AlbertTokenizer: {
        **{"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1},
        "control_symbols": ["[CLS]", "[SEP]"],
        "user_defined_symbols": ["[MASK]", "(", ")"],
    },
    T5Tokenizer: {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    XLNetTokenizer: {
        **{"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1},
        "control_symbols": ["<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"],
        "user_defined_symbols": [".", "€"],
    },
}
NOISE = {"additional_special_tokens": ["<noise>"]}
OPTIONS: dict[type, list[dict[str, Any]]] = {
    BertTokenizer: [
        {},
        {"do_lower_case": False},
        {"strip_accents": False, "model_max_length": 9},
        {"tokenize_chinese_chars": False},
        {"clean_up_tokenization_spaces": True},
        {
            "additional_special_tokens": ["<noise>", "cat"],
            "padding_side": "left",
            "truncation_side": "left",
        },
    ],
    RobertaTokenizer: [{}, {"add_prefix_space": True}, {"mask_token": "[MASK]"}],
    BartTokenizer: [{}],
    GPT2Tokenizer: [
        {},
        {"add_prefix_space": True},
        {"add_bos_token": True, "add_eos_token": True},
        {"pad_token": "<|endoftext|>"},
        {"pad_token": "[PAD]"},
    ],
    MBartTokenizer: [{}, {"src_lang": "de_DE", "tgt_lang": "fr_XX"}, NOISE],
    MBart50Tokenizer: [{}, {"src_lang": "de_DE", "tgt_lang": "pl_PL"}],
    AlbertTokenizer: [
        {},
        {"do_lower_case": False, "keep_accents": True},
        {"add_prefix_space": False, "model_max_length": 11},
        {**NOISE, "mask_token": "<mask>"},
    ],
    T5Tokenizer: [{}, {"extra_ids": 4}, {"extra_ids": 0}, {**NOISE, "truncation_side": "left"}],
    XLNetTokenizer: [{}, {"do_lower_case": True, "padding_side": "right"}, {**NOISE, "unk_id": 1}],
}
CASES = [(kind, options) for kind, several in OPTIONS.items() for options in several]


@dataclass(frozen=True)
class Vocabulary:
    """Arguments of a tokenizer's constructor; `theirs` are further ones of transformers' class."""

    arguments: tuple[Any, ...]
    theirs: dict[str, Any] = field(default_factory=dict)

    def both(self, kind: type, **options: Any) -> tuple[Any, Any]:
        """Tritone's tokenizer and transformers'."""
        charsmap = self.theirs.values()
        theirs = theirs_of(kind)(*deepcopy(self.arguments), **self.theirs, **deepcopy(options))
        return kind(*self.arguments, *charsmap, **options), theirs


def theirs_of(kind: type) -> Any:
    return getattr(transformers, kind.__name__)


def train_sentencepiece(path: Path, lines: list[str] = LINES, **options: Any) -> bytes:
    """Write a unigram model of SentencePiece, or of another type; returns the file's content."""
    model = io.BytesIO()
    arguments = {"model_type": "unigram", "vocab_size": 110, "hard_vocab_limit": False} | options
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, minloglevel=2, **arguments
    )
    path.write_bytes(model.getvalue())
    return model.getvalue()


def train_vocabularies(folders: dict[type, Path]) -> dict[type, Vocabulary]:
    """A vocabulary for each family; `folders` have those in SentencePiece's own file."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    pieces = _train(models.WordPiece(unk_token="[UNK]"), trainer, pre_tokenizers.BertPreTokenizer())["vocab"]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pairs = _byte_pairs([*special, "<mask>"])
    trainer = trainers.UnigramTrainer(
        vocab_size=100, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    unigram = _train(models.Unigram(), trainer, pre_tokenizers.Metaspace())["vocab"]
    unigram = [(piece, score) for piece, score in unigram]
    vocabularies = {
        BertTokenizer: Vocabulary((pieces,)),
        RobertaTokenizer: Vocabulary(pairs),
        BartTokenizer: Vocabulary(pairs),
        GPT2Tokenizer: Vocabulary(_byte_pairs(["<|endoftext|>"])),
    }
    for kind in (MBartTokenizer, MBart50Tokenizer):
        pieces = [*unigram, *((code, 0.0) for code in kind.languages), ("<mask>", 0.0)]
        vocabularies[kind] = Vocabulary((pieces,))
    for kind, folder in folders.items():
        read = read_sentencepiece(folder / "spiece.model")
        vocabularies[kind] = Vocabulary((list(read.pieces),), {"_spm_precompiled_charsmap": read.charsmap})
    return vocabularies


def _train(model: Any, trainer: Any, splitting: Any) -> dict[str, Any]:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = splitting
    tokenizer.train_from_iterator(LINES, trainer)
    return json.loads(tokenizer.to_str())["model"]


def _byte_pairs(special: list[str]) -> tuple[Any, ...]:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    model = _train(models.BPE(), trainer, pre_tokenizers.ByteLevel())
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def assert_same(ours: Any, theirs: Any, texts: list[str] = TEXTS) -> None:
    """The same vocabulary, special tokens, and texts there and back."""
    assert ours.get_vocab() == theirs.get_vocab()
    assert len(ours) == len(theirs)
    assert ours.vocab_size == theirs.vocab_size
    assert sorted(ours.all_special_tokens) == sorted(theirs.all_special_tokens)
    assert ours.padding_side == theirs.padding_side
    for role in ROLES:
        assert getattr(ours, f"{role}_token") == getattr(theirs, f"{role}_token")
        assert getattr(ours, f"{role}_token_id") == getattr(theirs, f"{role}_token_id")
    for text in texts:
        assert ours.tokenize(text) == theirs.tokenize(text)
        assert dict(ours(text)) == dict(theirs(text))
        ids = theirs.encode(text)
        tokens = theirs.convert_ids_to_tokens(ids)
        assert ours.convert_ids_to_tokens(ids) == tokens
        assert ours.convert_tokens_to_ids(tokens) == ids
        assert ours.convert_tokens_to_string(tokens) == theirs.convert_tokens_to_string(tokens)
        for options in ({}, {"skip_special_tokens": True}, {"clean_up_tokenization_spaces": True}):
            assert ours.decode(ids, **options) == theirs.decode(ids, **options)
