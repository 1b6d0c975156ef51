"""Word times: dynamic time warping against its plain loop, and words from times of tokens."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter

from tritone.models.whisper.word_times import check_heads, median_filter, warping_path
from tritone.models.whisper.words import Word, words_of


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 30),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 6]),
)
def test_the_path_is_that_of_the_plain_loop(rows: int, columns: int, seed: int, digits: int) -> None:
    # Few digits make ties, which must go the same way.
    costs = np.random.default_rng(seed).normal(size=(rows, columns)).round(digits)
    wanted = _dynamic_time_warping(costs)
    for mine, theirs in zip(warping_path(costs), wanted, strict=True):
        assert np.array_equal(mine, theirs)


def test_the_path_of_a_whole_window_is_that_of_the_plain_loop() -> None:
    costs = np.random.default_rng(3).normal(size=(40, 1500)).astype(np.float32).astype(np.float64)
    for mine, theirs in zip(warping_path(costs), _dynamic_time_warping(costs), strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("positions", [1, 3, 4, 40])
@pytest.mark.parametrize("width", [1, 3, 7])
def test_the_median_mirrors_both_ends(positions: int, width: int) -> None:
    rows = torch.randn(2, 5, positions, generator=torch.Generator().manual_seed(positions))
    assert torch.equal(median_filter(rows, width), _median_filter(rows, width))


def test_an_even_width_is_refused() -> None:
    with pytest.raises(ValueError, match="median_filter_width must be odd, got 4"):
        median_filter(torch.zeros(1, 1, 9), 4)


@pytest.mark.parametrize("heads", [[], [(2, 0)], [(0, 0), (1, 4)]], ids=str)
def test_heads_that_there_are_not_are_refused(heads: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="one of 2 layers and one of 4 heads"):
        check_heads(heads, 2, 4)


class Letters:
    """Tokenizer of a token a piece of text; ids from 10 on are times."""

    eos_token_id = 9
    pieces = (" so", " we", "ll", ",", " '", "go", " ", "s", ".")

    def split_tokens(self, tokens: Any, language: str | None = None) -> list[Word]:
        words: list[Word] = []
        for index, token in enumerate(tokens):
            piece = Word(self.pieces[token], [token], [index])
            if words and token in (2, 5, 7):
                words[-1] += piece
            else:
                words.append(piece)
        return words


def test_words_go_from_the_time_before_their_first_token_to_that_of_their_last() -> None:
    tokens = [10, 0, 1, 2, 3, 11, 9]
    times = [0.0, 0.4, 0.6, 0.9, 1.0, 1.5, 1.5]
    words = words_of(tokens, times, Letters(), probabilities=[0, 0.5, 0.25, 0.75, 1.0, 0, 0])
    assert [(word.text, word.start, word.end) for word in words] == [("so", 0.0, 0.4), ("well,", 0.4, 1.0)]
    assert [word.confidence for word in words] == pytest.approx([0.5, 2 / 3])


def test_words_stay_within_bounds_and_never_fall() -> None:
    words = words_of([0, 1, 0], [0.5, 0.7, 9.0], Letters(), bounds=(0.6, 2.0))
    assert [(word.start, word.end) for word in words] == [(0.6, 0.6), (0.6, 0.7), (0.7, 2.0)]
    assert [word.confidence for word in words] == [None] * 3


def test_the_first_word_begins_with_its_segment() -> None:
    assert words_of([10, 0], [0.0, 0.5], Letters(), begin=0.2)[0].start == 0.2
    assert words_of([10, 0], [0.0, 0.5], Letters(), begin=0.7)[0].start == 0.5


def test_tokens_without_text_give_no_words() -> None:
    assert words_of([10, 6, 11, 9], [0.0, 0.1, 0.2, 0.2], Letters()) == []
    assert words_of([], [], Letters()) == []
