"""Tokenizers of every family against transformers' of the same vocabularies: calls, and files of either."""

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_checks import TEXTS, assert_same

from tritone import AutoTokenizer


def test_texts_go_to_the_ids_of_transformers_and_back(both):
    ours, theirs = both
    assert_same(ours, theirs)
    assert ours.all_special_tokens == theirs.all_special_tokens
    assert ours.all_special_ids == theirs.all_special_ids


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(
        alphabet=st.one_of(
            st.sampled_from("catmelo Üßéi<s>[]|_天今.,1`'"), st.characters(exclude_categories=["Cs"])
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
        {"padding": True, "return_token_type_ids": True},
        {"padding": "max_length", "max_length": 24, "truncation": "longest_first"},
    ],
    ids=str,
)
def test_pairs_are_joined_and_cut_as_in_transformers(both, options):
    ours, theirs = both
    if theirs.pad_token is None and "padding" in options:
        with pytest.raises(ValueError, match="no pad_token"):
            ours(TEXTS, TEXTS, **options)
        return
    for first in TEXTS if "padding" not in options else ():
        for second in filter(None, TEXTS):
            assert dict(ours(first, second, **options)) == dict(theirs(first, second, **options))
    assert dict(ours(TEXTS, **options)) == dict(theirs(TEXTS, **options))
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
    assert type(AutoTokenizer.from_pretrained(tmp_path / "theirs")).__name__ == type(theirs).__name__
