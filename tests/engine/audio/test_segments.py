"""Pieces of recordings that are cut at pauses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritone.engine.audio.segments import Piece, cut_at_pauses, sound_span

RATE = 1_000  # Hz, with hops of 10 samples
MAX_SECONDS, MIN_SECONDS = 1.0, 0.75


def cut(audio: np.ndarray, block: int = 1 << 20, shortest: float = MIN_SECONDS) -> list[Piece]:
    blocks = [audio[start : start + block] for start in range(0, len(audio), block)]
    return list(cut_at_pauses(blocks, RATE, MAX_SECONDS, shortest))


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 6_000),
    st.integers(1, 3_000),
    st.integers(0, 5),
    st.booleans(),
    st.sampled_from([0.02, 0.25, 0.5, 0.75, 0.98]),
)
def test_pieces_are_the_whole_recording_within_bounds_whatever_its_blocks(
    samples, block, seed, is_silent, shortest
):
    audio = np.zeros(samples, np.float32) if is_silent else noise(samples, seed)
    pieces = cut(audio, block, shortest)
    assert np.array_equal(np.concatenate([np.empty(0), *(piece.samples for piece in pieces)]), audio)
    assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces)][: len(pieces)]
    lengths = [len(piece.samples) for piece in pieces]
    assert all(RATE * shortest <= length <= RATE * MAX_SECONDS for length in lengths[:-1])
    if len(lengths) > 1:
        assert RATE * min(shortest, MAX_SECONDS - shortest) <= lengths[-1] + 1e-9 <= RATE * MAX_SECONDS + 1
    whole = cut(audio, shortest=shortest)
    assert [piece.end for piece in pieces] == [piece.end for piece in whole]


@pytest.mark.parametrize("place", [760, 870, 990])
def test_a_cut_is_in_the_pause(place):
    audio = noise(1_900)
    audio[place - 20 : place + 20] *= 0.001
    assert abs(cut(audio)[0].end - place) <= 10


def test_a_cut_is_in_the_middle_of_the_longest_pause_the_last_of_equal_ones():
    assert [piece.end for piece in cut(np.zeros(2_100, np.float32))] == [875, 1_735, 2_100]
    audio = noise(1_900)
    for start, end in ((760, 800), (820, 880), (920, 980)):
        audio[start:end] *= 0.01
    audio[990:1_010] = 0  # quieter, and shorter
    assert cut(audio)[0].end == 950


def test_a_bang_makes_no_speech_quiet():
    audio = noise(1_900)
    audio[850:900] *= 0.01
    audio[760:780] *= 300
    assert cut(audio)[0].end == pytest.approx(875, abs=10)
    audio[:200] *= 0.01
    assert sound_span(audio[:1_000], RATE) == (200, 1_000)


def test_steady_noise_is_quiet_beside_speech():
    audio = 0.2 * np.sign(noise(1_900, seed=1))  # 14 dB below
    for start, end in ((100, 780), (860, 940), (960, 1_800)):
        audio[start:end] += noise(end - start)
    assert cut(audio)[0].end == pytest.approx(820, abs=10)
    first, last = sound_span(audio, RATE)
    assert (first, last) == (pytest.approx(100, abs=20), pytest.approx(1_800, abs=20))


def test_no_sound_is_a_peak_below_a_step_of_16_bit_samples():
    audio = np.zeros(1_000, np.float32)
    assert sound_span(audio, RATE) == sound_span(audio[:0], RATE) == (0, 0)
    audio[500] = -0.99 * 2.0**-15
    assert sound_span(audio, RATE) == (0, 0)
    audio[500] = 2.0**-15
    assert sound_span(audio, RATE) == (500, 510)
    assert sound_span(np.full(1_005, 0.1, np.float32), RATE) == (0, 1_005)


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


@pytest.mark.parametrize(("longest", "shortest"), [(1.0, 0.0), (1.0, 0.99), (1.0, 1.5), (0.0, 0.0)])
def test_durations_out_of_range_are_refused(longest, shortest):
    with pytest.raises(ValueError, match="min_seconds"):
        list(cut_at_pauses([], RATE, longest, shortest))
