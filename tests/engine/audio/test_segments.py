"""Pieces of recordings that are cut at pauses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritone.engine.audio.segments import Piece, cut_at_pauses

RATE = 1_000  # Hz, with hops of 10 samples
MAX_SECONDS, MIN_SECONDS = 1.0, 0.75  # seconds


def cut(audio: np.ndarray, block: int = 1 << 20) -> list[Piece]:
    blocks = [audio[start : start + block] for start in range(0, len(audio), block)]
    return list(cut_at_pauses(blocks, RATE, MAX_SECONDS, MIN_SECONDS))


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6_000), st.integers(1, 3_000), st.integers(0, 5), st.booleans())
def test_pieces_are_the_whole_recording_within_bounds_whatever_its_blocks(samples, block, seed, is_silent):
    audio = np.zeros(samples, np.float32) if is_silent else noise(samples, seed)
    pieces = cut(audio, block)
    assert np.array_equal(np.concatenate([np.empty(0), *(piece.samples for piece in pieces)]), audio)
    assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces)][: len(pieces)]
    lengths = [len(piece.samples) for piece in pieces]
    assert all(RATE * MIN_SECONDS <= length <= RATE * MAX_SECONDS for length in lengths[:-1])
    if len(lengths) > 1:
        assert RATE * (MAX_SECONDS - MIN_SECONDS) <= lengths[-1] <= RATE * MAX_SECONDS
    whole = cut(audio)
    assert [piece.end for piece in pieces] == [piece.end for piece in whole]


@pytest.mark.parametrize("place", [760, 870, 990])
def test_a_cut_is_in_the_pause(place):
    audio = noise(1_900)
    audio[place - 20 : place + 20] *= 0.001
    assert abs(cut(audio)[0].end - place) <= 10


def test_of_equally_quiet_places_the_last_is_taken():
    assert [piece.end for piece in cut(np.zeros(2_100, np.float32))] == [1_000, 1_850, 2_100]


def test_a_pause_before_the_last_quarter_is_no_place_to_cut_at():
    audio = noise(1_900)
    audio[300:340] = 0
    assert cut(audio)[0].end >= 750


def test_no_more_than_a_piece_and_the_search_behind_it_are_read_ahead():
    read = 0

    def blocks():
        nonlocal read
        for _ in range(100):
            read += 100
            yield noise(100)

    for piece in cut_at_pauses(blocks(), RATE, MAX_SECONDS, MIN_SECONDS):
        assert read <= piece.start + 1_250 + 100


def test_pieces_share_no_memory_with_the_blocks():
    audio = noise(1_500)
    for piece in cut(audio):
        assert not np.shares_memory(piece.samples, audio)


@pytest.mark.parametrize(("longest", "shortest"), [(1.0, 0.4), (1.0, 0.99), (1.0, 1.5), (0.0, 0.0)])
def test_durations_out_of_range_are_refused(longest, shortest):
    with pytest.raises(ValueError, match="min_seconds"):
        list(cut_at_pauses([], RATE, longest, shortest))
