"""Whisper's tokenizer against transformers' of the same files."""

import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_checks import assert_same
from whisper_tokenizers import (
    SPECIAL,
    TEXTS,
    TIMES,
    byte_pairs,
    english_folder,
    load_both,
    transformers,
    write_slow_files,
    write_vocabulary_list,
)

from tritone.models.whisper.languages import LANGUAGE_CODES, LANGUAGES, language_code
from tritone.models.whisper.tokenizer import WhisperTokenizer
from tritone.models.whisper.words import merge_punctuation

whisper = pytest.importorskip("transformers.models.whisper.tokenization_whisper")
fixture_checks = [HealthCheck.function_scoped_fixture]

PREFIXES: list[dict[str, Any]] = [
    {},
    {"language": "german", "task": "transcribe"},
    {"language": "Yue", "task": "translate", "predict_timestamps": True},
    {"language": "castilian"},
]


@pytest.fixture(autouse=True)
def quiet():
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="clean_up_tokenization_spaces has no effect")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_slow_files(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module", params=[True, False], ids=["with times", "without times"])
def both(request, tmp_path_factory) -> tuple[WhisperTokenizer, Any]:
    """Tokenizers of a vocabulary with tokens for times, and of an older one without."""
    return load_both(write_slow_files(tmp_path_factory.mktemp("whisper"), request.param))


@pytest.mark.parametrize("options", PREFIXES, ids=str)
def test_texts_go_to_the_ids_of_transformers_and_back(folder, options):
    ours, theirs = load_both(folder, **options)
    assert_same(ours, theirs, TEXTS)
    assert ours.all_special_ids == theirs.all_special_ids
    assert ours.prefix_tokens == theirs.prefix_tokens
    assert ours.language == theirs.language
    expected = theirs(TEXTS, TEXTS[::-1], padding=True, return_tensors="np")
    for name, values in ours(TEXTS, TEXTS[::-1], padding=True, return_tensors="np").items():
        np.testing.assert_array_equal(values, expected[name])


def test_prefix_tokens_are_set_and_built_as_in_transformers(both):
    ours, theirs = both
    for language, task, times in (
        *((None, None, False), ("french", None, None), (None, "translate", True), ("en", None, None)),
        *((code, "transcribe", False) for code in LANGUAGES),
    ):
        ours.set_prefix_tokens(language, task, times)
        theirs.set_prefix_tokens(language, task, times)
        assert ours.prefix_tokens == theirs.prefix_tokens
        assert ours.encode("ask not") == theirs.encode("ask not")
    for first, second in (([5, 6], None), ([], None), ([5, 2], [9])):
        built = theirs.build_inputs_with_special_tokens(first, second)
        assert ours.build_inputs_with_special_tokens(first, second) == built
        assert ours.get_special_tokens_mask(first, second) == theirs.get_special_tokens_mask(first, second)
        masks = [one.get_special_tokens_mask(built, already_has_special_tokens=True) for one in both]
        assert masks[0] == masks[1]
    for arguments in ({}, {"task": "translate", "language": "sv"}, {"no_timestamps": False}):
        assert ours.get_decoder_prompt_ids(**arguments) == theirs.get_decoder_prompt_ids(**arguments)


def test_a_prompt_has_the_ids_of_transformers_and_no_special_tokens(both):
    ours, theirs = both
    for text in ("ask not", "  what? ", ""):
        expected = theirs.get_prompt_ids(text)
        np.testing.assert_array_equal(ours.get_prompt_ids(text), expected)
        assert ours.get_prompt_ids(text, return_tensors=None) == expected.tolist()
        assert torch.equal(ours.get_prompt_ids(text, return_tensors="pt"), torch.from_numpy(expected))
    for one, message in ((ours, r"plain text, and has the special token '<\|en\|>'"), (theirs, "disallowed")):
        with pytest.raises(ValueError, match=message):
            one.get_prompt_ids("hello <|en|>")


def test_languages_and_their_tokens_are_those_of_transformers(both):
    ours, theirs = both
    assert whisper.LANGUAGES == LANGUAGES
    assert list(whisper.LANGUAGES) == list(LANGUAGES)
    assert whisper.TO_LANGUAGE_CODE == LANGUAGE_CODES
    assert ours.is_multilingual
    assert list(ours.lang_code_to_id.items()) == [
        (code, theirs.convert_tokens_to_ids(f"<|{code}|>")) for code in whisper.LANGUAGES
    ]
    assert language_code("<|Yue|>") == language_code("Cantonese") == language_code("yue") == "yue"
    with pytest.raises(ValueError, match="'klingon' is not one of Whisper's; there are english, chinese"):
        language_code("klingon")


def test_times_have_the_ids_of_transformers(both):
    ours, theirs = both
    assert ours.timestamp_begin == theirs.all_special_ids[-1] + 1 == ours.timestamp_ids()[0]
    assert ours.timestamp_ids() == [*range(ours.timestamp_begin, ours.timestamp_begin + 1501)]
    if theirs.convert_tokens_to_ids(TIMES[0]) != theirs.unk_token_id:
        assert ours.timestamp_ids() == theirs.timestamp_ids()
        assert ours.timestamp_ids(0.04) == theirs.timestamp_ids(time_precision=0.04)


def sequences(ours: WhisperTokenizer) -> st.SearchStrategy[list[int]]:
    """Sequences of text, times, a few of these in order, and special tokens."""
    first = ours.timestamp_begin
    text = st.integers(0, ours.eos_token_id - 1)
    time = st.integers(first, first + 1500)
    pair = time.map(lambda token: [token, token])
    group = st.one_of(st.lists(text, max_size=3), st.lists(time, max_size=3), pair)
    special = st.lists(st.integers(ours.eos_token_id, first - 1), max_size=2)
    start = st.sampled_from(["<|startofprev|>", "<|startoftranscript|>"]).map(
        lambda token: [ours.convert_tokens_to_ids(token)]
    )
    groups = st.lists(st.one_of(group, group, group, special, start), max_size=12)
    return groups.map(lambda parts: [token for part in parts for token in part])


DECODINGS: list[dict[str, Any]] = [
    {},
    {"skip_special_tokens": True},
    {"decode_with_timestamps": True},
    {"decode_with_timestamps": True, "skip_special_tokens": True, "time_precision": 0.04},
    {"output_offsets": True},
    {"output_offsets": True, "decode_with_timestamps": True, "time_precision": 0.01},
    {"normalize": True},
    {"basic_normalize": True, "skip_special_tokens": True},
    {"basic_normalize": True, "remove_diacritics": True},
]


@settings(max_examples=150, deadline=None, suppress_health_check=fixture_checks)
@given(data=st.data())
def test_any_sequence_decodes_to_the_text_and_times_of_transformers(both, data):
    ours, theirs = both
    ids = data.draw(sequences(ours))
    for options in DECODINGS:
        assert ours.decode(ids, **options) == theirs.decode(ids, **options)


def test_times_go_on_over_windows_as_in_transformers(both):
    ours, theirs = both
    first = ours.timestamp_begin
    text = ours.encode(" ask not", add_special_tokens=False)
    for windows in (
        [(0, 500), (500, 1400), (0, 300), (300, 900)],  # a pair of times ends the first window
        [(0, 500), (500, None), (0, 300), (20, 900), (10, 1500)],  # a single one does
        [(0, 1500), (0, 1500), (0, 4)],
        [(700, 1000), (0, None)],
        [(None, 5)],
    ):
        ids = []
        for start, end in windows:
            ids += [] if start is None else [first + start]
            ids += text
            ids += [] if end is None else [first + end]
        for options in DECODINGS:
            assert ours.decode(ids, **options) == theirs.decode(ids, **options)


def test_a_batch_decodes_to_the_texts_of_its_sequences(both):
    """transformers 5.23 leaves prompts in a batch, which it takes out of a sequence alone."""
    ours, theirs = both
    (previous,) = ours.encode("<|startofprev|>", add_special_tokens=False)
    rows = [[previous, *ours.encode(" your", add_special_tokens=False), *ours.encode(text)] for text in TEXTS]
    width = max(map(len, rows))
    rows = [row + [ours.eos_token_id] * (width - len(row)) for row in rows]
    for options in DECODINGS:
        expected = [theirs.decode(row, **options) for row in rows]
        for kind in (list, np.array, torch.tensor):
            assert ours.batch_decode(kind(rows), **options) == expected
    assert ours.decode(5) == theirs.decode(5)
    assert ours.decode([]) == ours.decode([], skip_special_tokens=True, decode_with_timestamps=True) == ""


@settings(max_examples=100, deadline=None, suppress_health_check=fixture_checks)
@given(data=st.data(), language=st.sampled_from([None, "english", "german", "chinese", "japanese"]))
def test_tokens_are_split_into_the_words_of_transformers(both, data, language):
    ours, theirs = both
    theirs.language = ours.language = None
    text = data.draw(st.text(alphabet="ab ,.?!'\"“¿([{-。)]} 今天Ç", max_size=24))
    ids = [*ours.encode(text, add_special_tokens=False), ours.eos_token_id]
    if data.draw(st.booleans()):
        ids = data.draw(sequences(ours))
    words, tokens, indices = whisper._combine_tokens_into_words(theirs, ids, language)
    merged = merge_punctuation(ours.split_tokens(ids, language))
    if len(words) == len(tokens):  # there an empty word with tokens shifts one list against the other
        assert [one.text for one in merged] == words
        assert [one.tokens for one in merged] == tokens
        assert [one.indices for one in merged] == indices


def test_files_go_from_either_to_the_other(tmp_path, folder):
    ours, theirs = load_both(folder, language="de", task="translate")
    ours.set_prefix_tokens("<|DE|>")
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    for path in (tmp_path / "ours", tmp_path / "theirs"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = WhisperTokenizer.from_pretrained(path)
        assert_same(loaded, transformers.WhisperTokenizer.from_pretrained(path), TEXTS)
        assert_same(loaded, theirs, TEXTS)
        assert loaded.prefix_tokens == theirs.prefix_tokens
        assert (loaded.language, loaded.task, loaded.predict_timestamps) == ("de", "translate", False)
    text = "the grey favour"
    kept = transformers.WhisperTokenizer.from_pretrained(tmp_path / "ours")
    assert kept.normalize(text) == WhisperTokenizer.from_pretrained(tmp_path / "ours").normalize(text)
    assert WhisperTokenizer(*byte_pairs()).normalize(text) == text  # without spellings


@pytest.mark.parametrize("name", ["vocabulary.txt", "vocabulary.json"])
def test_a_list_of_tokens_makes_the_tokenizer_of_all_files(tmp_path, folder, name):
    write_vocabulary_list(tmp_path / name)
    listed = WhisperTokenizer.from_pretrained(
        tmp_path, additional_special_tokens=SPECIAL, pad_token=SPECIAL[0]
    )
    whole = WhisperTokenizer.from_pretrained(folder, model_max_length=10**30)
    assert_same(listed, whole, TEXTS)
    assert listed.backend.to_str() == whole.backend.to_str()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocabulary.txt", b"a\nb\nab\n", r"has no <\|endoftext\|>"),
        ("vocabulary.txt", b"a\nb\nabc\n<|endoftext|>\n", "token 2, 'abc', is no merge"),
        ("vocabulary.txt", b"a\na\n<|endoftext|>\n", "has 'a' as token 0, which is there twice"),
        ("vocabulary.txt", b"a" * 300 + b"\n<|endoftext|>\n", "300 characters"),
        ("vocabulary.txt", b"\xff\xfe", "cannot be read as a list of tokens"),
        ("vocabulary.json", b"{", "cannot be read as a list of tokens"),
        ("vocabulary.json", b'{"a": 0}', "must be a list of tokens"),
        ("vocabulary.json", b'["a", 5]', "must be a list of tokens"),
        ("vocabulary.json", b'["\\ud800", "<|endoftext|>"]', "is no text"),
        ("tokenizer.json", b'{"model": {"type": "WordPiece"}}', "a WhisperTokenizer needs 'BPE'"),
    ],
)
def test_a_broken_vocabulary_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        WhisperTokenizer.from_pretrained(tmp_path)
    assert name in str(raised.value)


def test_a_folder_without_a_vocabulary_is_refused_with_what_is_missing(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no tokenizer\.json, nor both vocab\.json and merges\.txt, nor"
    ):
        WhisperTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "'klingon' is not one of Whisper's", {"language": "klingon"}),
        (ValueError, "language must be text or null", {"language": 5}),
        (ValueError, "task must be one of 'transcribe', 'translate'", {"task": "sing"}),
        (ValueError, "predict_timestamps must be true or false", {"predict_timestamps": "yes"}),
        (TypeError, "no option 'langauge'", {"langauge": "en"}),
    ],
)
def test_a_bad_option_is_named(folder, error, message, options):
    with pytest.raises(error, match=message):
        WhisperTokenizer.from_pretrained(folder, **options)


def test_a_bad_language_or_file_leaves_nothing_behind(tmp_path, folder):
    tokenizer = WhisperTokenizer.from_pretrained(folder, language="de")
    former = tokenizer.encode("ask")
    with pytest.raises(ValueError, match="klingon"):
        tokenizer.set_prefix_tokens("klingon", "translate")
    assert (tokenizer.language, tokenizer.task, tokenizer.encode("ask")) == ("de", None, former)
    with pytest.raises(ValueError, match="already_has_special_tokens"):
        tokenizer.get_special_tokens_mask([1], [2], already_has_special_tokens=True)
    write_slow_files(tmp_path)
    (tmp_path / "normalizer.json").write_text(json.dumps({"grey": 5}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"spelling of 'grey' in normalizer\.json must be text, got 5"):
        WhisperTokenizer.from_pretrained(tmp_path)


@settings(max_examples=40, deadline=None, suppress_health_check=fixture_checks)
@given(data=st.data())
def test_a_damaged_list_of_tokens_loads_or_is_refused(tmp_path, data):
    path = write_vocabulary_list(tmp_path / data.draw(st.sampled_from(["vocabulary.txt", "vocabulary.json"])))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.sampled_from(b'"[],:\n a\xff'))
    path.write_bytes(bytes(content))
    try:
        tokenizer = WhisperTokenizer.from_pretrained(tmp_path)
    except ValueError:
        return
    finally:
        path.unlink()
    assert isinstance(tokenizer.encode("one"), list)


@pytest.fixture(scope="module")
def english() -> Path:
    return english_folder()


def test_the_published_english_vocabulary_is_that_of_transformers(english):
    written = json.loads((english / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    special = [token["content"] for token in written]  # transformers counts times from the last of these
    ours, theirs = load_both(english, additional_special_tokens=special, pad_token="<|endoftext|>")
    assert not ours.is_multilingual
    assert ours.timestamp_begin == WhisperTokenizer.from_pretrained(english).timestamp_begin == 50363
    assert_same(ours, theirs, TEXTS)
    generator = random.Random(0)
    for _ in range(100):
        text = [generator.randrange(50256) for _ in range(9)]
        words, tokens, _ = whisper._combine_tokens_into_words(theirs, text, "english")
        merged = merge_punctuation(ours.split_tokens(text))
        assert ([one.text for one in merged], [one.tokens for one in merged]) == (words, tokens)
        timed = [token for index in text for token in (index, 50363 + index % 1501)]
        for options in DECODINGS[:6]:  # normalize fails in transformers, for want of spellings
            assert ours.decode(timed, **options) == theirs.decode(timed, **options)


def test_the_published_list_of_tokens_makes_the_published_tokenizer(english, tmp_path):
    (tmp_path / "vocabulary.txt").write_bytes((english / "vocabulary.txt").read_bytes())
    listed = WhisperTokenizer.from_pretrained(tmp_path)
    written = json.loads((english / "tokenizer.json").read_text(encoding="utf-8"))
    found = json.loads(listed.backend.to_str())
    assert found["model"]["vocab"] == written["model"]["vocab"]
    assert found["model"]["merges"] == [
        one.split(" ") if isinstance(one, str) else one for one in written["model"]["merges"]
    ]
    count = len(written["added_tokens"])
    assert found["added_tokens"][:count] == written["added_tokens"]
    assert [one["content"] for one in found["added_tokens"][count:]] == TIMES
