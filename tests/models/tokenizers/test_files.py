"""Files of a vocabulary, older ones and SentencePiece's own, against transformers; languages; token types."""

import json
import warnings
from importlib import import_module
from pathlib import Path

import pytest
from tokenizer_checks import SENTENCEPIECE, TEXTS, assert_same, theirs_of, transformers

from tritone import AutoTokenizer
from tritone.models.albert.tokenizer import AlbertTokenizer
from tritone.models.bert.tokenizer import BertTokenizer
from tritone.models.distilbert.tokenizer import DistilBertTokenizer
from tritone.models.gpt2.tokenizer import GPT2Tokenizer
from tritone.models.mbart.tokenizer import MBart50Tokenizer, MBartTokenizer
from tritone.models.roberta.tokenizer import RobertaTokenizer
from tritone.models.t5.tokenizer import T5Tokenizer
from tritone.models.tokenizers.sentencepiece_model import read_sentencepiece
from tritone.models.xlnet.tokenizer import XLNetTokenizer

LEGACY = {
    BertTokenizer: ({"do_lower_case": True, "do_basic_tokenize": True, "never_split": None}, {}, {}),
    RobertaTokenizer: (
        {"errors": "replace", "mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True}},
        {"mask_token": {"content": "<mask>", "single_word": False, "lstrip": True, "rstrip": False}},
        {"<new>": 320, "cat": 321},
    ),
    GPT2Tokenizer: ({"add_bos_token": True, "model_max_length": 1024}, {"pad_token": "<|endoftext|>"}, {}),
}


@pytest.mark.parametrize("kind", LEGACY, ids=lambda kind: kind.__name__)
def test_the_files_of_older_checkpoints_load_as_in_transformers(tmp_path, kind, vocabularies):
    vocab = vocabularies[kind].arguments[0]
    if kind is BertTokenizer:
        lines = "".join(f"{token}\n" for token in sorted(vocab, key=vocab.get))
        (tmp_path / "vocab.txt").write_text(lines, encoding="utf-8")
    else:
        (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        merges = "".join(f"{left} {right}\n" for left, right in vocabularies[kind].arguments[1])
        (tmp_path / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    texts = [*TEXTS, "a <mask> b <new> c", "concat cat"]
    assert_same(kind.from_pretrained(tmp_path), theirs_of(kind).from_pretrained(tmp_path), texts)
    names = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    for name, content in zip(names, LEGACY[kind], strict=True):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ours = kind.from_pretrained(tmp_path)
        assert_same(ours, theirs_of(kind).from_pretrained(tmp_path), texts)
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": kind.__name__[:-9].lower()}), encoding="utf-8"
    )
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is kind


@pytest.mark.parametrize("kind", [MBartTokenizer, MBart50Tokenizer])
def test_languages_stand_around_texts_and_target_texts_as_in_transformers(kind, vocabularies):
    ours, theirs = vocabularies[kind].both(kind, tgt_lang="fr_XX")
    assert ours.lang_code_to_id == theirs.lang_code_to_id
    for language in ("de_DE", "zh_CN"):
        ours.src_lang = theirs.src_lang = language
        assert dict(ours(TEXTS)) == dict(theirs(TEXTS))
        assert dict(ours(TEXTS, text_target=TEXTS)) == dict(theirs(TEXTS, text_target=TEXTS))
        assert dict(ours(text_target="one")) == dict(theirs(text_target="one"))
        assert ours.encode("one") == theirs.encode("one")
    with pytest.raises(
        ValueError, match="src_lang 'xx_XX' is not a language of this tokenizer; it has ar_AR"
    ):
        ours.src_lang = "xx_XX"
    with pytest.raises(ValueError, match="tgt_lang 'french'"):
        ours.tgt_lang = "french"
    assert ours.src_lang == "zh_CN"


@pytest.fixture
def reads_models(monkeypatch):
    """Let transformers read SentencePiece files without protobuf, as if it had it."""

    class Extractor:
        def __init__(self, path: str) -> None:
            self.read = read_sentencepiece(Path(path))
            self.proto = None

        def extract(self, model_type, **kwargs):
            tokens = [
                transformers.AddedToken(piece, normalized=False, special=kind == 3)
                for (piece, _), kind in zip(self.read.pieces, self.read.kinds, strict=True)
                if kind in (3, 4)
            ]
            return kwargs | {
                "unk_id": self.read.unknown_id,
                "vocab": list(self.read.pieces),
                "additional_special_tokens": tokens,
                "_spm_precompiled_charsmap": self.read.charsmap,
            }

    module = import_module("transformers.convert_slow_tokenizer")
    monkeypatch.setattr(module, "SentencePieceExtractor", Extractor)


@pytest.mark.parametrize("kind", SENTENCEPIECE, ids=lambda kind: kind.__name__)
def test_a_model_s_own_file_loads_as_in_transformers(tmp_path, kind, folders, reads_models):
    ours, theirs = kind.from_pretrained(folders[kind]), theirs_of(kind).from_pretrained(folders[kind])
    assert_same(ours, theirs)
    assert ours.all_special_tokens == theirs.all_special_tokens
    for folder, one in ((tmp_path / "ours", ours), (tmp_path / "theirs", theirs)):
        one.save_pretrained(folder)
        assert_same(kind.from_pretrained(folder), theirs_of(kind).from_pretrained(folder))
        assert_same(kind.from_pretrained(folder), ours)


OLDER = {
    AlbertTokenizer: {
        "do_lower_case": False,
        "remove_space": True,
        "keep_accents": False,
        "additional_special_tokens": ["<noise>"],
        "sp_model_kwargs": {},
    },
    T5Tokenizer: {
        "extra_ids": 5,
        "additional_special_tokens": [f"<extra_id_{i}>" for i in range(5)],
        "model_max_length": 512,
        "sp_model_kwargs": {},
        "legacy": True,
    },
    XLNetTokenizer: {
        "additional_special_tokens": ["<eop>", "<eod>"],
        "mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "normalized": True},
        "do_lower_case": True,
        "sp_model_kwargs": {},
    },
}


@pytest.mark.parametrize("kind", SENTENCEPIECE, ids=lambda kind: kind.__name__)
def test_an_older_checkpoint_s_options_beside_it_count_as_in_transformers(
    tmp_path, kind, folders, reads_models
):
    (tmp_path / "spiece.model").write_bytes((folders[kind] / "spiece.model").read_bytes())
    fields = OLDER[kind] | {"tokenizer_class": kind.__name__}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(fields))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = kind.from_pretrained(tmp_path)
    assert_same(ours, theirs_of(kind).from_pretrained(tmp_path))


def test_what_a_tokenizer_file_puts_around_albert_s_texts_goes_before_the_family_s_own(tmp_path, folders):
    AlbertTokenizer.from_pretrained(folders[AlbertTokenizer]).save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    fields["post_processor"]["single"] = fields["post_processor"]["single"][:2]
    (tmp_path / "tokenizer.json").write_text(json.dumps(fields), encoding="utf-8")
    ours = AlbertTokenizer.from_pretrained(tmp_path)
    assert ours.encode("cat")[-1] != ours.sep_token_id
    assert ours.encode("cat") == transformers.AlbertTokenizer.from_pretrained(tmp_path).encode("cat")


def test_xlnet_s_types_tell_the_texts_and_the_token_at_the_end(folders):
    batch = XLNetTokenizer.from_pretrained(folders[XLNetTokenizer])(
        ["one", "one two"], ["two", "one"], padding=True, return_token_type_ids=True
    )
    assert batch.attention_mask[0][0] == 0
    for types, mask in zip(batch.token_type_ids, batch.attention_mask, strict=True):
        real = [kind for kind, there in zip(types, mask, strict=True) if there]
        assert real == sorted(real)
        assert set(real) == {0, 1, 2}
        assert real.count(2) == 1


def test_distilbert_s_tokenizer_is_bert_s_without_types(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", ".", "e"]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    ours = DistilBertTokenizer.from_pretrained(tmp_path)
    theirs = transformers.DistilBertTokenizer.from_pretrained(tmp_path)
    texts = ["The cats sat.", "é dog [MASK]", ""]
    assert_same(ours, theirs, texts)
    assert dict(ours(texts, texts[::-1], padding=True)) == dict(theirs(texts, texts[::-1], padding=True))
    assert list(ours(texts)) == ["input_ids", "attention_mask"]
    theirs.save_pretrained(tmp_path / "saved")
    assert_same(DistilBertTokenizer.from_pretrained(tmp_path / "saved"), theirs, texts)
