"""A tokenizer.json without a family's class, read as it is, against transformers."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import tritone

transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "The", "cat", "##s", "sat", ".", "-", "é", "e"]
TEXTS = ["The cats sat.", "", " the  cat ", "the é [CLS] ÉE", "e\u0301 cat-cat\n", "[UNK]the[SEP]"]
ROLES = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
SPECIAL = {name: f"[{name[:3].upper()}]" for name in ("cls_token", "sep_token")}
GENERIC = ["PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer", "NobodysTokenizerFast"]


def library() -> Tokenizer:
    """Unlike BERT's in all that a vocabulary does not say."""
    tokenizer = Tokenizer(
        models.WordPiece({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.NFC()  # with capitals and accents
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "[UNK]"])
    return tokenizer


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """A folder of a BERT with such a tokenizer, whose configuration has these fields."""

    def write(tokenizer: Tokenizer | None = None, **fields: Any) -> Path:
        folder = tmp_path / "checkpoint"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
        (folder / "tokenizer_config.json").write_text(json.dumps(fields))
        (tokenizer or library()).save(str(folder / "tokenizer.json"))
        return folder

    return write


def both(folder: Path) -> tuple[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = tritone.AutoTokenizer.from_pretrained(folder)
    return ours, transformers.AutoTokenizer.from_pretrained(folder)


def assert_same(ours: Any, theirs: Any) -> None:
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.all_special_tokens == theirs.all_special_tokens
    assert list(ours.model_input_names) == list(theirs.model_input_names)
    for text in TEXTS:
        assert dict(ours(text)) == dict(theirs(text))
        assert ours.tokenize(text) == theirs.tokenize(text)
        ids = theirs.encode(text)
        for skip in (False, True):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    types = {"return_token_type_ids": True, "return_special_tokens_mask": True}
    for options in ({}, {"max_length": 6, "truncation": True}, {"padding": True} if ours.pad_token else {}):
        pairs = TEXTS, TEXTS[::-1]
        assert dict(ours(*pairs, **options, **types)) == dict(theirs(*pairs, **options, **types))


@pytest.mark.parametrize("name", GENERIC)
def test_ids_and_texts_are_those_of_transformers(written, name):
    ours, theirs = both(written(tokenizer_class=name, **ROLES))
    assert type(ours) is tritone.PreTrainedTokenizerFast
    assert_same(ours, theirs)
    assert ours.tokenize("The cats") == ["The", "cat", "##s"]
    assert ours.encode("cat") == [2, 6]


def test_a_family_s_own_class_goes_before_what_the_file_says(written):
    ours, theirs = both(written(tokenizer_class="BertTokenizer"))
    assert type(ours) is tritone.BertTokenizer
    assert_same(ours, theirs)
    assert ours.tokenize("The cats") == ["the", "cat", "##s"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {**ROLES, **SPECIAL, "model_max_length": 5, "padding_side": "left", "truncation_side": "left"},
        {**ROLES, "clean_up_tokenization_spaces": True, "additional_special_tokens": ["cat-cat"]},
        {**ROLES, "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]},
        {**ROLES, **SPECIAL, "add_bos_token": True, "bos_token": "the"},
    ],
    ids=str,
)
def test_what_the_options_say_counts_and_is_written(written, fields, tmp_path):
    ours, theirs = both(written(tokenizer_class="PreTrainedTokenizerFast", **fields))
    assert_same(ours, theirs)
    assert ours.model_max_length == theirs.model_max_length
    ours.save_pretrained(tmp_path / "saved")
    again, there = both(tmp_path / "saved")
    assert type(again) is type(ours)
    assert_same(again, there)
    assert_same(again, theirs)


def test_what_a_file_cuts_and_pads_by_itself_waits_for_a_call_that_asks(written):
    tokenizer = library()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    ours, theirs = both(written(tokenizer, tokenizer_class="PreTrainedTokenizerFast", **ROLES))
    assert_same(ours, theirs)
    assert len(ours.encode("the cat sat . the")) == 6


def test_without_anything_around_texts_none_has_something_around_it(written):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "cat": 1}, unk_token="[UNK]"))
    ours, theirs = both(written(tokenizer, tokenizer_class="PreTrainedTokenizerFast", unk_token="[UNK]"))
    assert_same(ours, theirs)
    assert ours.encode("cat", "cat") == [1, 1]


@pytest.mark.parametrize(("family", "name"), [("bert", "BertTokenizer"), ("gpt2", "GPT2Tokenizer")])
def test_which_inputs_a_model_reads_a_checkpoint_of_any_family_may_say(family, name, tmp_path):
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * (family == "gpt2")
    model = models.BPE({"<|endoftext|>": 0, "a": 1}, []) if family == "gpt2" else library().model
    Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    fields = {"tokenizer_class": name, "model_input_names": names}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(fields))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    ours, theirs = both(tmp_path)
    assert set(ours("a")) == set(theirs("a")) == set(names)
    ours.save_pretrained(tmp_path / "saved")
    assert set(both(tmp_path / "saved")[0]("a")) == set(names)


def test_what_makes_no_tokenizer_is_refused(written):
    folder = written(tokenizer_class="PreTrainedTokenizerFast", model_input_names="input_ids")
    with pytest.raises(ValueError, match="model_input_names must be a list, each item text, got 'input_ids'"):
        tritone.AutoTokenizer.from_pretrained(folder)
    folder = written(tokenizer_class="PreTrainedTokenizerFast")
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE"}}))
    with pytest.raises(ValueError, match="the vocabulary makes no PreTrainedTokenizerFast"):
        tritone.AutoTokenizer.from_pretrained(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer\.json"):
        tritone.PreTrainedTokenizerFast.from_pretrained(folder)
