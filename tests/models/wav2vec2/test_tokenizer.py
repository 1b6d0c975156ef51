"""The CTC tokenizer against transformers' tokenizer of the same files."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tritone.models.wav2vec2.tokenizer import Wav2Vec2CTCTokenizer, Wav2Vec2CTCTokenizerOutput

transformers = pytest.importorskip("transformers")

PLAIN = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEÉ'.,?", "CH", "ẞ"]
OPTIONS = [
    {},
    {"do_lower_case": True},
    {"word_delimiter_token": "B"},
    {"word_delimiter_token": " "},
    {"replace_word_delimiter_char": "_"},
    {"additional_special_tokens": ["A", "<noise>"]},
    {"clean_up_tokenization_spaces": True},
    {"pad_token": "A"},
]
DECODING = [
    {},
    {"skip_special_tokens": True},
    {"group_tokens": False},
    {"spaces_between_special_tokens": True},
    {"clean_up_tokenization_spaces": True},
]
OFFSETS = [
    {"output_char_offsets": True},
    {"output_word_offsets": True},
    {"output_char_offsets": True, "output_word_offsets": True},
]
TEXTS = ["A B", "ABCH A CH", "a b", "  <pad> A", "|A|  B <unk> x", "C'E, D ?", "", "ÉẞÉ", "A <noise>B"]


def write(folder: Path, vocabulary: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    return folder / "vocab.json"


def table(tokens: list[str]) -> dict[str, int]:
    return {token: i for i, token in enumerate(tokens)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("plain"), table(PLAIN))


@pytest.fixture(scope="module")
def nested(tmp_path_factory) -> Path:
    second = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABGH", "GH", "IJ"]
    return write(tmp_path_factory.mktemp("nested"), {"fra": table(PLAIN), "hun": table(second)})


def pair(path: Path, **options):
    return Wav2Vec2CTCTokenizer(path, **options), transformers.Wav2Vec2CTCTokenizer(str(path), **options)


@pytest.fixture(scope="module", params=OPTIONS, ids=str)
def both(request, plain):
    return pair(plain, **request.param)


def assert_same(ours, theirs, texts=TEXTS) -> None:
    assert ours.get_vocab() == theirs.get_vocab()
    assert len(ours) == len(theirs)
    assert ours.vocab_size == theirs.vocab_size
    assert ours.all_special_tokens == theirs.all_special_tokens
    assert ours.all_special_ids == theirs.all_special_ids
    for name in ("bos", "eos", "pad", "unk", "word_delimiter"):
        assert getattr(ours, f"{name}_token") == getattr(theirs, f"{name}_token")
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id")
    for text in texts:
        assert ours.tokenize(text) == theirs.tokenize(text)
        ids = theirs.encode(text)
        assert ours.encode(text) == ids
        for options in DECODING:
            assert ours.decode(ids, **options) == theirs.decode(ids, **options)


def test_texts_go_to_the_ids_of_transformers_and_back(both):
    assert_same(*both)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet=st.one_of(st.sampled_from("ABCH |<>pad"), st.characters()), max_size=20))
def test_any_text_goes_to_the_ids_of_transformers(both, text):
    ours, theirs = both
    assert ours.encode(text) == theirs.encode(text)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.integers(0, 20), max_size=24))
def test_any_frames_decode_to_the_text_and_offsets_of_transformers(both, ids):
    ours, theirs = both
    for options in DECODING:
        assert ours.decode(ids, **options) == theirs.decode(ids, **options)
        for offsets in OFFSETS:
            decoded = ours.decode(ids, **options, **offsets)
            assert isinstance(decoded, Wav2Vec2CTCTokenizerOutput)
            assert dict(decoded.items()) == dict(theirs.decode(ids, **options, **offsets))


def test_offsets_of_a_known_sentence(plain):
    ids = [0, 5, 5, 0, 5, 4, 4, 0, 6, 7, 7, 0, 4]
    decoded = Wav2Vec2CTCTokenizer(plain).decode(ids, output_char_offsets=True, output_word_offsets=True)
    assert decoded.text == "AA BC"
    assert decoded["word_offsets"] == [
        {"word": "AA", "start_offset": 1, "end_offset": 5},
        {"word": "BC", "start_offset": 8, "end_offset": 11},
    ]
    assert decoded.char_offsets[1] == {"char": "A", "start_offset": 4, "end_offset": 5}
    json.dumps(decoded.char_offsets)  # plain numbers


def test_batches_decode_from_lists_arrays_and_tensors(both):
    ours, theirs = both
    ids = torch.tensor([[5, 5, 0, 6, 4, 7], [0, 0, 8, 8, 4, 4]])
    expected = theirs.batch_decode(ids)
    for batch in (ids, ids.numpy(), ids.tolist(), list(ids)):
        assert ours.batch_decode(batch) == expected
        assert ours.decode(batch) == expected
    for offsets in OFFSETS:
        decoded = ours.batch_decode(ids, **offsets)
        assert dict(decoded.items()) == dict(theirs.batch_decode(ids, **offsets))
    assert ours.batch_decode([]) == []
    assert ours.decode(np.int64(5).item()) == ours.decode([5])


def test_labels_are_padded_as_in_transformers(both):
    ours, theirs = both
    for options in ({"padding": True}, {"padding": True, "return_tensors": "pt"}, {"max_length": 2}):
        batch, expected = ours(TEXTS, **options), theirs(TEXTS, **options)
        for name in ("input_ids", "attention_mask"):
            assert type(batch[name]) is type(expected[name])
            assert [list(map(int, row)) for row in batch[name]] == [
                list(map(int, row)) for row in expected[name]
            ]
    assert dict(ours("A", "B")) == dict(theirs("A", "B"))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_files_of_ours_load_in_either(tmp_path, plain, options):
    ours, _ = pair(plain, **options, model_max_length=12)
    ours.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)
    assert_same(loaded, ours)
    assert loaded.model_max_length == 12
    if "word_delimiter_token" not in options:  # transformers 5.23 forgets this one when it loads
        assert_same(loaded, transformers.Wav2Vec2CTCTokenizer.from_pretrained(tmp_path))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_files_of_transformers_load(tmp_path, plain, options):
    _, theirs = pair(plain, **options)
    theirs.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)
    assert_same(loaded, theirs)


def test_the_files_of_the_first_checkpoints_load_as_in_transformers(tmp_path, plain):
    """As wav2vec2-base-960h has them, and a fine-tuned vocabulary without <s> and </s>."""
    folder = write(tmp_path, table(["[PAD]", "[UNK]", "|", *"abc"])).parent
    config = {"unk_token": "[UNK]", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "[PAD]"}
    config |= {"do_lower_case": False, "return_attention_mask": False, "do_normalize": True}
    config |= {"word_delimiter_token": "|", "tokenizer_class": "Wav2Vec2CTCTokenizer"}
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "[UNK]", "pad_token": "[PAD]"}
    files = [("tokenizer_config.json", config), ("special_tokens_map.json", special)]
    for name, content in [*files, ("added_tokens.json", {"<s>": 6, "</s>": 7})]:
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ours = Wav2Vec2CTCTokenizer.from_pretrained(folder)
        theirs = transformers.Wav2Vec2CTCTokenizer.from_pretrained(folder)
        assert_same(ours, theirs, [*TEXTS, "a b<s>c</s> d"])


def test_the_language_of_a_nested_vocabulary_is_chosen_and_changed(tmp_path, nested):
    ours, theirs = pair(nested, target_lang="fra")
    assert_same(ours, theirs)
    ours.set_target_lang("hun")
    theirs.set_target_lang("hun")
    assert ours.target_lang == "hun"
    for text in (*TEXTS, "GH IJ A"):
        assert ours.encode(text) == theirs.encode(text)
    for ids in ([9, 10, 4, 5], [12, 13, 14, 3]):
        assert ours.decode(ids) == theirs.decode(ids)
    ours.save_pretrained(tmp_path)
    assert Wav2Vec2CTCTokenizer.from_pretrained(tmp_path).encode("GH IJ") == ours.encode("GH IJ")
    assert Wav2Vec2CTCTokenizer.from_pretrained(tmp_path, target_lang="fra").encode("CH") == [15]


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "vocabularies of 2 languages; give target_lang, one of fra, hun", {}),
        (ValueError, "'eng' is not a language of .*it has fra, hun", {"target_lang": "eng"}),
        (TypeError, "no option 'lower'", {"target_lang": "fra", "lower": True}),
    ],
)
def test_a_bad_option_is_named(nested, error, message, options):
    with pytest.raises(error, match=message):
        Wav2Vec2CTCTokenizer.from_pretrained(nested.parent, **options)


def test_a_language_is_no_option_of_a_plain_vocabulary(plain):
    with pytest.raises(ValueError, match="it is of one language"):
        Wav2Vec2CTCTokenizer(plain, target_lang="fra")
    tokenizer = Wav2Vec2CTCTokenizer(plain)
    with pytest.raises(ValueError, match="it is of one language"):
        tokenizer.set_target_lang("fra")
    assert tokenizer.target_lang is None


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("is not JSON", "{"),
        ("must hold a JSON object", "[]"),
        ("whole number", '{"a": 1.5}'),
        ("whole number", '{"a": -1}'),
        ("nested too deeply", '{"a":' * 100_000),
    ],
)
def test_a_broken_vocabulary_is_named(tmp_path, message, content):
    (tmp_path / "vocab.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)


def test_a_missing_vocabulary_and_broken_settings_are_named(tmp_path, plain):
    with pytest.raises(FileNotFoundError, match=r"vocab\.json"):
        Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)
    write(tmp_path, table(PLAIN))
    config = tmp_path / "tokenizer_config.json"
    for content, message in (
        ('{"pad_token": 3}', "pad_token must be a string"),
        ('{"added_tokens_decoder": [1]}', "added_tokens_decoder"),
        ('{"added_tokens_decoder": {"x": "<s>"}}', "."),
    ):
        config.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)
