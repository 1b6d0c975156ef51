"""Texts through an engine and through transformers' pipeline: each family with a tokenizer of its own."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
import transformers
from text_classifiers import TINY
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import tritone

LINES = [
    "the quick brown fox, it isn't quick",
    "Über die Straße",
    "今天天气很好",
    "one two (three) 4,000",
] * 8
TEXTS = [
    "the fox",
    " two  spaces\tand\nlines ",
    "Über naïve e\u0301 今天 😀👍🏽",
    "a\u00a0b\u200bc \x01 \ufeff",
    "[MASK] <mask> </s> <pad> <|endoftext|> <extra_id_0> x",
    "x" * 200,
    ("the fox", "isn't quick"),
    ("今天", " the "),
]
# What a family's SentencePiece model is trained with.
PIECES: dict[str, dict[str, Any]] = {
    "Albert": {
        **{"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1},
        **{"control_symbols": ["[CLS]", "[SEP]"], "user_defined_symbols": ["[MASK]"]},
    },
    "T5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "XLNet": {
        **{"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1},
        "control_symbols": ["<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"],
    },
}


def write_slow_files(family: str, folder: Path) -> None:
    """The files of a vocabulary as they are without a tokenizer.json."""
    if family in PIECES:
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(LINES),
            model_writer=model,
            model_type="unigram",
            vocab_size=90,
            hard_vocab_limit=False,
            minloglevel=2,
            **PIECES[family],
        )
        (folder / "spiece.model").write_bytes(model.getvalue())
        return
    quiet: dict[str, Any] = {"vocab_size": 120, "show_progress": False}
    if family in ("Bert", "DistilBert"):
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokenizer.train_from_iterator(LINES, trainers.WordPieceTrainer(special_tokens=special, **quiet))
        vocab = tokenizer.get_vocab()
        (folder / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.__getitem__)), encoding="utf-8")
        return
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    special = ["<|endoftext|>"] if family.startswith("GPT") else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    quiet |= {"vocab_size": 300, "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    tokenizer.train_from_iterator(LINES, trainers.BpeTrainer(special_tokens=special, **quiet))
    tokenizer.model.save(str(folder))


@pytest.mark.parametrize("family", TINY)
def test_labels_and_scores_of_texts_and_pairs_are_those_of_the_pipeline(family: str, tmp_path: Path) -> None:
    slow, folder = tmp_path / "slow", tmp_path / "whole"
    slow.mkdir()
    write_slow_files(family, slow)
    name = "GPT2" if family.startswith("GPT") else family
    pad = {"pad_token": "<|endoftext|>"} if name == "GPT2" else {}
    ours = getattr(tritone, f"{name}Tokenizer").from_pretrained(slow, **pad)
    ours.save_pretrained(folder)
    special = {"pad_token_id": ours.pad_token_id, "eos_token_id": ours.eos_token_id}
    if family == "Bart":
        special |= {"bos_token_id": ours.bos_token_id, "decoder_start_token_id": ours.eos_token_id}
    if family == "T5":
        special["decoder_start_token_id"] = ours.pad_token_id
    config = getattr(transformers, f"{family}Config")(
        **{**TINY[family], **special, "vocab_size": len(ours), "num_labels": 4}
    )
    torch.manual_seed(4)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(1.0 if family == "T5" else 8.0)  # fresh weights say much the same of all texts
    model.save_pretrained(folder)
    pipeline = transformers.pipeline("text-classification", model=str(folder), device="cpu", top_k=None)
    answers = set()
    with tritone.Engine(folder, device="cpu") as engine:
        for result, text in zip(engine.classify(TEXTS, top_k=None), TEXTS, strict=True):
            assert result.error is None, text
            given = text if isinstance(text, str) else {"text": text[0], "text_pair": text[1]}
            found = {label.label: label.score for label in result.labels}
            wanted = pipeline([given])[0]
            wanted = wanted if isinstance(wanted, list) else pipeline(given)
            assert found == pytest.approx({one["label"]: one["score"] for one in wanted}, abs=1e-4), text
            answers.add(json.dumps(found))
    assert len(answers) > len(TEXTS) / 2
