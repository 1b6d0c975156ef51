"""Tokenizers of BERT, RoBERTa, BART, GPT-2 and MBart against transformers' of the same vocabularies."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tritone import AutoTokenizer
from tritone.models.bart.tokenizer import BartTokenizer
from tritone.models.bert.tokenizer import BertTokenizer
from tritone.models.gpt2.tokenizer import GPT2Tokenizer
from tritone.models.mbart.tokenizer import LANGUAGES, LANGUAGES_50, MBart50Tokenizer, MBartTokenizer
from tritone.models.roberta.tokenizer import RobertaTokenizer

transformers = pytest.importorskip("transformers")

LINES = [
    "The cat, sat on a mat; it isn't flat.",
    "Über die Straße ging ein naïve Élève",
    "今天天气很好",
    "one two three four five",
    "hello world hello",
] * 4
TEXTS = [
    "The cat sat.",
    "",
    "  two   spaces ",
    "[CLS] x [MASK] <mask> y</s>z<s>",
    "ÜBER straße 今天 ﬁne",
    "isn't it ?",
    "<noise> cat",
    "<|endoftext|> hi",
    "en_XX hello de_DE",
    "\x00\t\nabc",
]
CASES = [
    *(
        (BertTokenizer, options)
        for options in (
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
        )
    ),
    *((RobertaTokenizer, options) for options in ({}, {"add_prefix_space": True}, {"mask_token": "[MASK]"})),
    (BartTokenizer, {}),
    *(
        (GPT2Tokenizer, options)
        for options in ({}, {"add_prefix_space": True}, {"add_bos_token": True, "add_eos_token": True})
    ),
    *((GPT2Tokenizer, {"pad_token": token}) for token in ("<|endoftext|>", "[PAD]")),
    *(
        (MBartTokenizer, options)
        for options in (
            {},
            {"src_lang": "de_DE", "tgt_lang": "fr_XX"},
            {"additional_special_tokens": ["<noise>"]},
        )
    ),
    *((MBart50Tokenizer, options) for options in ({}, {"src_lang": "de_DE", "tgt_lang": "pl_PL"})),
]
IDS = [f"{kind.__name__}-{options}" for kind, options in CASES]


def trained(model, trainer, splitting) -> dict:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = splitting
    tokenizer.train_from_iterator(LINES, trainer)
    return json.loads(tokenizer.to_str())["model"]


def byte_pairs(special: list[str]) -> tuple:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    model = trained(models.BPE(), trainer, pre_tokenizers.ByteLevel())
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


@pytest.fixture(scope="session")
def vocabularies() -> dict[type, tuple]:
    """What each class's constructor takes, here and in transformers."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    pieces = trained(models.WordPiece(unk_token="[UNK]"), trainer, pre_tokenizers.BertPreTokenizer())["vocab"]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pairs = byte_pairs([*special, "<mask>"])
    trainer = trainers.UnigramTrainer(
        vocab_size=100, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    unigram = trained(models.Unigram(), trainer, pre_tokenizers.Metaspace())["vocab"]
    unigram = [(piece, score) for piece, score in unigram]
    return {
        BertTokenizer: (pieces,),
        RobertaTokenizer: pairs,
        BartTokenizer: pairs,
        GPT2Tokenizer: byte_pairs(["<|endoftext|>"]),
        MBartTokenizer: ([*unigram, *((code, 0.0) for code in LANGUAGES), ("<mask>", 0.0)],),
        MBart50Tokenizer: ([*unigram, *((code, 0.0) for code in LANGUAGES_50), ("<mask>", 0.0)],),
    }


def theirs_of(kind: type):
    return getattr(transformers, kind.__name__)


@pytest.fixture(scope="module", params=CASES, ids=IDS)
def both(request, vocabularies):
    kind, options = request.param
    return kind(*vocabularies[kind], **options), theirs_of(kind)(*vocabularies[kind], **options)


@pytest.fixture(autouse=True)
def quiet():
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="clean_up_tokenization_spaces has no effect")
        yield


def assert_same(ours, theirs, texts=TEXTS) -> None:
    assert ours.get_vocab() == theirs.get_vocab()
    assert len(ours) == len(theirs)
    assert ours.vocab_size == theirs.vocab_size
    assert sorted(ours.all_special_tokens) == sorted(theirs.all_special_tokens)
    for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
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


def test_texts_go_to_the_ids_of_transformers_and_back(both):
    ours, theirs = both
    assert_same(ours, theirs)
    assert ours.all_special_tokens == theirs.all_special_tokens
    assert ours.all_special_ids == theirs.all_special_ids


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(
        alphabet=st.one_of(
            st.sampled_from("catmelo Üßéi<s>[]|_天今."), st.characters(exclude_categories=["Cs"])
        ),
        max_size=30,
    ),
    ids=st.lists(st.integers(0, 330), max_size=12),
)
def test_any_text_and_any_ids_are_as_in_transformers(both, text, ids):
    ours, theirs = both
    assert ours.encode(text) == theirs.encode(text)
    for options in ({}, {"skip_special_tokens": True}):
        assert ours.decode(ids, **options) == theirs.decode(ids, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"return_token_type_ids": True, "return_special_tokens_mask": True},
        {"add_special_tokens": False, "return_token_type_ids": True, "return_special_tokens_mask": True},
        {"max_length": 7},
        {"max_length": 12, "truncation": True, "return_token_type_ids": True},
        {"max_length": 16, "truncation": "longest_first"},
    ],
    ids=str,
)
def test_pairs_are_joined_and_cut_as_in_transformers(both, options):
    ours, theirs = both
    for first in TEXTS:
        for second in filter(None, TEXTS):
            assert dict(ours(first, second, **options)) == dict(theirs(first, second, **options))
    seconds = TEXTS[::-1]
    expected = dict(theirs(TEXTS, seconds, **options))
    assert dict(ours(TEXTS, seconds, **options)) == expected
    assert dict(ours(list(zip(TEXTS, seconds, strict=True)), **options)) == expected


@pytest.mark.parametrize("cut", ["only_first", "only_second"])
def test_one_text_of_a_pair_is_cut_as_in_transformers(both, cut):
    ours, theirs = both
    options = {"max_length": 28, "truncation": cut}
    pair = (
        ("one two", "The cat sat on a mat") if cut == "only_second" else ("The cat sat on a mat", "one two")
    )
    assert dict(ours(*pair, **options)) == dict(theirs(*pair, **options))
    with pytest.raises(ValueError, match="longest_first"):
        ours("The cat sat on a mat", "The cat sat on a mat", max_length=5, truncation=cut)


@pytest.mark.parametrize("texts", [("one two",), ("one two", "cat"), ("one", "the cat sat")])
def test_room_for_special_tokens_alone_leaves_nothing_of_the_texts_as_in_transformers(both, texts):
    ours, theirs = both
    around = len(theirs(*([""] for _ in texts)).input_ids[0])
    for cut in ("longest_first", "only_first", "only_second")[: 1 + len(texts)]:
        options = {"max_length": around, "truncation": cut, "return_special_tokens_mask": True}
        if around:  # GPT-2 has none
            found = dict(ours(*texts, **options))
            assert found == dict(theirs(*texts, **options))
            assert len(found["input_ids"]) == around


def test_an_empty_second_text_is_one_alone_as_it_is_in_a_batch_of_transformers(both):
    """There a single call takes it for none, so that a text's ids would depend on how they are asked for."""
    ours, theirs = both
    (wanted,) = theirs(["cat"], [""]).input_ids
    assert ours("cat", "").input_ids == ours(["cat"], [""]).input_ids[0] == wanted


@pytest.mark.parametrize("option", ["stride", "return_overflowing_tokens", "return_offsets_mapping"])
def test_what_is_not_supported_is_refused_by_name(both, option):
    with pytest.raises(TypeError, match=option):
        both[0]("cat", **{option: 1})


@pytest.mark.parametrize(
    "options",
    [
        {"padding": True},
        {"padding": True, "pad_to_multiple_of": 8},
        {"padding": "max_length", "max_length": 9, "truncation": True},
        {"padding": "max_length", "max_length": 3},
        {"max_length": 2},
        {"truncation": True},
        {"padding": True, "return_special_tokens_mask": True, "return_attention_mask": False},
    ],
    ids=str,
)
def test_padding_and_truncation_are_those_of_transformers(both, options):
    ours, theirs = both
    if theirs.pad_token is None and "padding" in options:
        with pytest.raises(ValueError, match="no pad_token"):
            ours(TEXTS, **options)
        ours.pad_token = ours.eos_token
        try:
            assert len({len(row) for row in ours(TEXTS, padding=True).input_ids}) == 1
        finally:
            ours.pad_token = None
        return
    assert dict(ours(TEXTS, **options)) == dict(theirs(TEXTS, **options))


@pytest.mark.parametrize("kind", ["pt", "np"])
def test_tensors_have_the_values_and_types_of_transformers(both, kind):
    ours, theirs = both
    for texts in ("one two", ["one two", "one two"]):
        batch, expected = ours(texts, return_tensors=kind), theirs(texts, return_tensors=kind)
        assert list(batch) == list(expected)
        for name in batch:
            assert batch[name].dtype == expected[name].dtype
            np.testing.assert_array_equal(batch[name], expected[name])
    assert ours.batch_decode(batch["input_ids"]) == theirs.batch_decode(expected["input_ids"])
    assert ours.decode(int(batch["input_ids"][0, 0])) == theirs.decode(int(batch["input_ids"][0, 0]))


def test_files_go_from_either_to_the_other(tmp_path, both):
    ours, theirs = both
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = type(ours).from_pretrained(folder)
        assert_same(loaded, type(theirs).from_pretrained(folder))
        assert_same(loaded, theirs)
        assert loaded.model_max_length == theirs.model_max_length
    assert type(AutoTokenizer.from_pretrained(tmp_path / "ours")) is type(ours)


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
    vocab = vocabularies[kind][0]
    if kind is BertTokenizer:
        lines = "".join(f"{token}\n" for token in sorted(vocab, key=vocab.get))
        (tmp_path / "vocab.txt").write_text(lines, encoding="utf-8")
    else:
        (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        merges = "".join(f"{left} {right}\n" for left, right in vocabularies[kind][1])
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
    vocab = vocabularies[kind]
    ours, theirs = kind(*vocab, tgt_lang="fr_XX"), theirs_of(kind)(*vocab, tgt_lang="fr_XX")
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


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (TypeError, "no option 'do_lowercase'", {"do_lowercase": True}),
        (TypeError, "split_special_tokens", {"split_special_tokens": True}),
        (ValueError, "padding_side", {"padding_side": "top"}),
        (ValueError, "must be a string", {"cls_token": 2}),
        (ValueError, "model_max_length must be a number", {"model_max_length": "long"}),
        (ValueError, "does not have the unk_token '<unk>'", {"unk_token": "<unk>"}),
    ],
)
def test_a_bad_option_is_named(vocabularies, error, message, options):
    with pytest.raises(error, match=message):
        BertTokenizer(*vocabularies[BertTokenizer], **options)


@pytest.mark.parametrize(
    ("message", "inputs", "options"),
    [
        ("got int", (5,), {}),
        ("got NoneType", (["one", None],), {}),
        ("give text, text_target or both", (), {}),
        ("2 texts and 1 second ones", (["a", "b"], "c"), {}),
        ("padding must be", ("one",), {"padding": "widest"}),
        ("truncation must be", ("one",), {"truncation": "middle"}),
        ("set padding=True", (["one", "one two"],), {"return_tensors": "pt"}),
    ],
)
def test_a_bad_call_is_explained(vocabularies, message, inputs, options):
    tokenizer = BertTokenizer(*vocabularies[BertTokenizer])
    with pytest.raises(ValueError, match=message):
        tokenizer(*inputs, **options)
    with pytest.raises(ValueError, match="-100 is no token id"):
        tokenizer.decode([2, -100])


@pytest.mark.parametrize(
    ("kind", "name", "content", "message"),
    [
        (BertTokenizer, "tokenizer.json", "{", "is not JSON"),
        (BertTokenizer, "tokenizer.json", '{"model": 3}', "a BertTokenizer needs 'WordPiece'"),
        (BertTokenizer, "tokenizer.json", '{"model": {"type": "BPE"}}', "'BPE'; a BertTokenizer needs"),
        (BertTokenizer, "tokenizer.json", '{"model": {"vocab": ["a"]}}', "must map every token"),
        (BertTokenizer, "tokenizer.json", '{"model": {"vocab": {"a": "b"}}}', "must map every token"),
        (BertTokenizer, "tokenizer.json", '{"added_tokens": [3], "model": {"vocab": {}}}', "added_tokens"),
        (BertTokenizer, "vocab.txt", b"\xff\xfe", "cannot be read as a vocabulary"),
        (
            GPT2Tokenizer,
            "tokenizer.json",
            '{"model": {"vocab": {"a": 0}, "merges": ["b c"]}}',
            "no GPT2Tokenizer",
        ),
        (GPT2Tokenizer, "tokenizer.json", '{"model": {"vocab": {"a": 0}, "merges": ["b"]}}', "two pieces"),
        (GPT2Tokenizer, "tokenizer.json", '{"model": {"vocab": {"a": 0}, "merges": 3}}', "two pieces"),
        (BertTokenizer, "tokenizer_config.json", '{"cls_token": ["a"]}', "special token must be a string"),
        (MBartTokenizer, "tokenizer.json", '{"model": {"vocab": [["a"]]}}', "pieces with scores"),
        (MBartTokenizer, "tokenizer.json", '{"model": {"vocab": []}}', "no MBartTokenizer"),
        (MBartTokenizer, "sentencepiece.bpe.model", b"nothing of the kind", "is not a SentencePiece model"),
        (MBartTokenizer, "sentencepiece.bpe.model", b"", "it has no pieces"),
    ],
)
def test_a_broken_file_is_named(tmp_path, kind, name, content, message):
    (tmp_path / "vocab.txt").write_text("[UNK]\n", encoding="utf-8")
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        kind.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "kind", [BertTokenizer, GPT2Tokenizer, MBartTokenizer], ids=lambda kind: kind.__name__
)
def test_a_missing_or_too_large_vocabulary_is_named(tmp_path, kind, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer\.json, nor"):
        kind.from_pretrained(tmp_path)
    monkeypatch.setattr("tritone.models.checkpoints.files.MAX_JSON_BYTES", 99)
    for name in ("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model"):
        (tmp_path / name).write_bytes(b" " * 100)
    with pytest.raises(ValueError, match="has 100 bytes, more than the 99 that are read"):
        kind.from_pretrained(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_tokenizer_file_loads_or_is_refused(tmp_path, vocabularies, data):
    kind = data.draw(st.sampled_from([BertTokenizer, GPT2Tokenizer, MBartTokenizer]))
    folder = tmp_path / kind.__name__
    kind(*vocabularies[kind]).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        content = bytearray((folder / name).read_bytes())
        for _ in range(data.draw(st.integers(0, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
                st.sampled_from(b'"{}[],:0 a\xff')
            )
        (folder / name).write_bytes(bytes(content))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tokenizer = kind.from_pretrained(folder)
        except ValueError:
            return
        assert isinstance(tokenizer.encode("one"), list)
