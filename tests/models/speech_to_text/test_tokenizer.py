"""The tokenizer against transformers' tokenizer of the same files."""

import json
import random
from pathlib import Path

import factories
import numpy as np
import pytest
import sentencepiece
import torch
from tokenizer_checks import train_sentencepiece

from tritone.models.speech_to_text.tokenizer import LANGUAGES, Speech2TextTokenizer

transformers = pytest.importorskip("transformers")

TEXTS = [
    "one two three",
    "  seven   of nine ",
    "",
    "zebra, quartz! 42",
    "<s> one</s> two<pad>",
    "one<unk>two",
    "it 's here , is n't it ?",
    "Über Éire ﬁve",
    "<lang:fr> eight <lang:xx>",
]


def write_vocabulary(folder: Path, symbols: list[str]) -> None:
    """Train a small SentencePiece model with Speech2Text's numbering, and write both files."""
    random.seed(0)
    words = [*factories.WORDS.split()[:10], "it", "is", "n't", "here", "'s", "of", ",", "?", "!"]
    lines = [" ".join(random.choices(words, k=6)) for _ in range(200)]
    folder.mkdir(parents=True)
    numbers = {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3}
    options = {"model_type": "bpe", "vocab_size": 60 + len(symbols), "user_defined_symbols": symbols}
    model = train_sentencepiece(folder / "sentencepiece.bpe.model", lines, **options, **numbers)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocabulary = {pieces.id_to_piece(i): i for i in range(len(pieces))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary") / "plain"
    write_vocabulary(folder, [])
    return folder


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary") / "multilingual"
    write_vocabulary(folder, [f"<lang:{language}>" for language in LANGUAGES["mustc"]])
    return folder


def pair(folder: Path, **options):
    """Tritone's and transformers' tokenizers of the same files and options."""
    files = (str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model"))
    return Speech2TextTokenizer(*files, **options), transformers.Speech2TextTokenizer(*files, **options)


OPTIONS = [
    {},
    {"do_upper_case": True},
    {"additional_special_tokens": ["<noise>", "one"]},
    {"clean_up_tokenization_spaces": True},
    {"lang_codes": "mustc"},
    {"lang_codes": "mustc", "tgt_lang": "de", "additional_special_tokens": ["<noise>"]},
]


@pytest.fixture(params=OPTIONS, ids=str)
def both(request, plain, multilingual):
    return pair(multilingual if "lang_codes" in request.param else plain, **request.param)


def assert_same_tokenizer(ours, theirs) -> None:
    """Vocabulary, special tokens, and every text there and back."""
    assert len(ours) == len(theirs)
    assert ours.vocab_size == theirs.vocab_size
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.all_special_tokens == theirs.all_special_tokens
    assert ours.all_special_ids == theirs.all_special_ids
    assert ours.tgt_lang == theirs.tgt_lang
    for name in ("bos", "eos", "pad", "unk"):
        assert getattr(ours, f"{name}_token") == getattr(theirs, f"{name}_token")
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id")
    for text in TEXTS:
        assert ours.tokenize(text) == theirs.tokenize(text)
        ids = theirs.encode(text)
        assert ours.encode(text) == ids
        assert ours.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False)
        for skip in (False, True):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)


def test_texts_go_to_the_ids_of_transformers_and_back(both):
    assert_same_tokenizer(*both)


def test_any_ids_decode_to_the_text_of_transformers(both):
    ours, theirs = both
    generator = random.Random(1)
    for _ in range(50):
        ids = [generator.randrange(len(ours) + 2) for _ in range(generator.randrange(12))]
        assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
        assert ours.convert_ids_to_tokens(ids, True) == theirs.convert_ids_to_tokens(ids, True)
        for options in ({}, {"skip_special_tokens": True}, {"clean_up_tokenization_spaces": True}):
            assert ours.decode(ids, **options) == theirs.decode(ids, **options)


def test_tokens_and_ids_convert_one_by_one_and_in_lists(both):
    ours, theirs = both
    for tokens in ("</s>", "▁one", "no such piece", ["▁two", "<pad>", "no such piece"]):
        assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
    assert ours.convert_ids_to_tokens(2) == theirs.convert_ids_to_tokens(2) == "</s>"


def test_batches_decode_from_lists_arrays_and_tensors(both):
    ours, theirs = both
    ids = torch.tensor([[2, 12, 13, 2, 1], [2, 20, 21, 22, 2]])
    expected = theirs.batch_decode(ids, skip_special_tokens=True)
    for batch in (ids, ids.numpy(), ids.tolist(), list(ids)):
        assert ours.batch_decode(batch, skip_special_tokens=True) == expected
        assert ours.decode(batch, skip_special_tokens=True) == expected
    assert ours.decode(ids[0], skip_special_tokens=True) == expected[0]
    assert ours.batch_decode(ids[0], skip_special_tokens=True) == expected[:1]
    assert ours.decode(12) == theirs.decode(12)
    assert ours.batch_decode([]) == []


@pytest.mark.parametrize(
    "options",
    [
        {"padding": True},
        {"padding": "longest", "pad_to_multiple_of": 8},
        {"padding": "max_length", "max_length": 20},
        {"padding": "max_length", "max_length": 4},
        {"padding": "max_length", "max_length": 4, "truncation": True},
        {"padding": True, "max_length": 6, "truncation": True},
        {"max_length": 6},
        {"max_length": 1},
        {"max_length": 6, "truncation": False},
        {"truncation": True},
        {"padding": "max_length"},
        {"padding": True, "add_special_tokens": False},
    ],
    ids=str,
)
def test_padding_and_truncation_are_those_of_transformers(both, options):
    ours, theirs = both
    batch, expected = ours(TEXTS, **options), theirs(TEXTS, **options)
    assert batch.input_ids == expected.input_ids
    assert batch.attention_mask == expected.attention_mask
    for text in TEXTS[:3]:
        assert dict(ours(text, **options)) == dict(theirs(text, **options))


@pytest.mark.parametrize("sides", [{"padding_side": "left"}, {"truncation_side": "left"}], ids=str)
def test_either_side_is_padded_and_cut_as_in_transformers(plain, sides):
    ours, theirs = pair(plain, **sides)
    for options in ({"padding": True}, {"max_length": 4}, {"max_length": 1}):
        assert dict(ours(TEXTS, **options)) == dict(theirs(TEXTS, **options))


def test_tensors_have_the_values_and_types_of_transformers(both):
    ours, theirs = both
    for kind in ("pt", "np"):
        for text in ("one two", ["one", "two three four"]):
            batch = ours(text, padding=True, return_tensors=kind)
            expected = theirs(text, padding=True, return_tensors=kind)
            for name in ("input_ids", "attention_mask"):
                assert batch[name].dtype == expected[name].dtype
                np.testing.assert_array_equal(batch[name], expected[name])
    assert "attention_mask" not in ours("one", return_attention_mask=False)


def test_special_tokens_are_built_and_masked_as_in_transformers(both):
    ours, theirs = both
    for first, second in (([5, 6, 7], None), ([], None), ([5, 2], [9])):
        built = theirs.build_inputs_with_special_tokens(first, second)
        assert ours.build_inputs_with_special_tokens(first, second) == built
        assert ours.get_special_tokens_mask(first, second) == theirs.get_special_tokens_mask(first, second)
        expected = theirs.create_token_type_ids_from_sequences(first, second)
        assert ours.create_token_type_ids_from_sequences(first, second) == expected
        assert ours.get_special_tokens_mask(
            built, already_has_special_tokens=True
        ) == theirs.get_special_tokens_mask(built, already_has_special_tokens=True)


def test_the_target_language_begins_every_text_and_can_be_changed(multilingual):
    ours, theirs = pair(multilingual, lang_codes="mustc")
    assert ours.lang_code_to_id == theirs.lang_code_to_id
    for language in ("pt", "ru"):
        ours.tgt_lang = theirs.tgt_lang = language
        assert ours.tgt_lang == language
        assert ours.encode("one") == theirs.encode("one")
        assert ours.encode("one")[0] == ours.lang_code_to_id[language]


def test_lower_case_is_made_before_splitting_but_not_of_special_tokens(plain):
    ours, _ = pair(plain, do_lower_case=True, additional_special_tokens=["<NOISE>"])
    assert ours.tokenize("ONE <NOISE>Two") == [*ours.tokenize("one "), "<NOISE>", *ours.tokenize("two")]


@pytest.mark.parametrize("options", [{}, {"lang_codes": "mustc", "tgt_lang": "it"}], ids=str)
def test_files_of_either_load_in_the_other(tmp_path, plain, multilingual, options):
    more = {"additional_special_tokens": ["<noise>"], "do_upper_case": True, "model_max_length": 12}
    ours, theirs = pair(multilingual if options else plain, **options, **more)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        loaded = Speech2TextTokenizer.from_pretrained(folder)
        assert_same_tokenizer(loaded, transformers.Speech2TextTokenizer.from_pretrained(folder))
        assert_same_tokenizer(loaded, theirs)
        assert loaded(["one " * 9], truncation=True) == ours(["one " * 9], max_length=12, truncation=True)


def test_an_argument_goes_before_the_files(tmp_path, multilingual):
    pair(multilingual, lang_codes="mustc", tgt_lang="it")[0].save_pretrained(tmp_path)
    assert Speech2TextTokenizer.from_pretrained(tmp_path, tgt_lang="es").tgt_lang == "es"


def test_the_files_of_older_checkpoints_load_as_in_transformers(tmp_path, plain):
    folder = tmp_path / "old"
    Speech2TextTokenizer.from_pretrained(plain).save_pretrained(folder)
    token = {"__type": "AddedToken", "content": "</s>", "lstrip": False, "normalized": True, "rstrip": False}
    config = {"eos_token": token | {"single_word": False}, "do_upper_case": True, "tokenizer_file": None}
    special = {"unk_token": {"content": "<unk>"}, "pad_token": "<pad>", "additional_special_tokens": ["<a>"]}
    for name, content in (
        ("tokenizer_config.json", config | {"name_or_path": "somebody/some-model", "sp_model_kwargs": {}}),
        ("special_tokens_map.json", special),
        ("added_tokens.json", {"<a>": 70, "<b>": 60}),
    ):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    loaded = Speech2TextTokenizer.from_pretrained(folder)
    assert_same_tokenizer(loaded, transformers.Speech2TextTokenizer.from_pretrained(folder))
    assert loaded.convert_tokens_to_ids(["<a>", "<b>"]) == [70, 60]


def test_added_tokens_take_spaces_and_whole_words_as_in_transformers(tmp_path, plain):
    folder = tmp_path / "added"
    Speech2TextTokenizer.from_pretrained(plain).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    common = {"normalized": False, "special": False}
    config["added_tokens_decoder"] |= {
        "60": {"content": "<l>", "lstrip": True, "rstrip": False, "single_word": False} | common,
        "61": {"content": "<r>", "lstrip": False, "rstrip": True, "single_word": False} | common,
        "62": {"content": "ne", "lstrip": False, "rstrip": False, "single_word": True} | common,
    }
    path.write_text(json.dumps(config), encoding="utf-8")
    ours = Speech2TextTokenizer.from_pretrained(folder)
    theirs = transformers.Speech2TextTokenizer.from_pretrained(folder)
    for text in ("one  <l>  two", "one  <r>  two", "one ne two", "ne", "<l><r>"):
        assert ours.tokenize(text) == theirs.tokenize(text)


def test_a_folder_with_the_two_files_of_the_vocabulary_is_enough(plain):
    assert Speech2TextTokenizer.from_pretrained(plain).encode("one")[-1] == 2


def test_vocabulary_files_are_saved_under_a_prefix(tmp_path, plain):
    tokenizer = Speech2TextTokenizer.from_pretrained(plain)
    paths = tokenizer.save_vocabulary(tmp_path, filename_prefix="s2t")
    assert [Path(path).name for path in paths] == ["s2t-vocab.json", "s2t-sentencepiece.bpe.model"]
    assert Path(paths[1]).read_bytes() == (plain / "sentencepiece.bpe.model").read_bytes()
    assert json.loads(Path(paths[0]).read_text(encoding="utf-8")) == tokenizer.encoder


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "'xx' is not a language", {"lang_codes": "mustc", "tgt_lang": "xx"}),
        (ValueError, "no lang_codes", {"tgt_lang": "fr"}),
        (ValueError, "lang_codes must be one of", {"lang_codes": "europarl"}),
        (ValueError, "padding_side", {"padding_side": "top"}),
        (ValueError, "must be a string", {"eos_token": 2}),
        (TypeError, "no option 'do_lowercase'", {"do_lowercase": True}),
        (TypeError, "split_special_tokens", {"split_special_tokens": True}),
    ],
)
def test_a_bad_option_is_named(multilingual, error, message, options):
    with pytest.raises(error, match=message):
        Speech2TextTokenizer.from_pretrained(multilingual, **options)


@pytest.mark.parametrize(
    ("message", "text", "options"),
    [
        ("got int", 5, {}),
        ("got int", ["one", 5], {}),
        ("padding must be", "one", {"padding": "widest"}),
        ("truncation must be", "one", {"truncation": "middle"}),
        ("return_tensors must be", "one", {"return_tensors": "tf"}),
        ("at least 1", "one", {"max_length": 0}),
        ("multiple", "one", {"max_length": 6, "padding": True, "truncation": True, "pad_to_multiple_of": 4}),
        ("set padding=True", ["one", "one two"], {"return_tensors": "pt"}),
    ],
)
def test_a_bad_call_is_explained(plain, message, text, options):
    with pytest.raises(ValueError, match=message):
        Speech2TextTokenizer.from_pretrained(plain)(text, **options)


def test_broken_files_are_named(tmp_path, plain):
    Speech2TextTokenizer.from_pretrained(plain).save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text('{"one": "1"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"vocab\.json must map every token"):
        Speech2TextTokenizer.from_pretrained(tmp_path)
    Speech2TextTokenizer.from_pretrained(plain).save_vocabulary(tmp_path)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"sentencepiece\.bpe\.model is not a SentencePiece model"):
        Speech2TextTokenizer.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Speech2TextTokenizer.from_pretrained(tmp_path / "nowhere")


def test_an_unknown_setting_of_a_file_is_warned_about(tmp_path, plain):
    Speech2TextTokenizer.from_pretrained(plain).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({"dropout_of_merges": 0.1}), encoding="utf-8")
    with pytest.warns(UserWarning, match="dropout_of_merges"):
        Speech2TextTokenizer.from_pretrained(tmp_path)


def test_without_an_end_token_texts_decode_and_cannot_be_encoded(plain):
    files = plain / "vocab.json", plain / "sentencepiece.bpe.model"
    bare = Speech2TextTokenizer(*files, eos_token=None)
    assert bare.decode([8, 6]) != ""
    with pytest.raises(ValueError, match="unk_token or eos_token is not set"):
        bare("a")
