"""Speech of recordings: spans as Silero's, joined blocks, times, and memory."""

import importlib.util
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tritone.engine.audio.reader import audio_blocks, load_audio
from tritone.engine.audio.segments import Piece, pieces
from tritone.engine.audio.speech import SpeechBlocks, SpeechSpans, SpeechTimes, VadOptions
from tritone.engine.audio.vad import REMEDY, find_weights

ENGLISH = Path(__file__).parents[3] / "samples" / "english"
RATE = 16_000
needs_silero = pytest.mark.skipif(find_weights() is None, reason=f"silero-vad is not installed: {REMEDY}")


@pytest.fixture(scope="module")
def silero():
    """The module of Silero's that has the spans, without the package, whose import sets torch's threads."""
    weights = find_weights()
    assert weights is not None
    path = weights.parent.parent / "utils_vad.py"
    spec = importlib.util.spec_from_file_location("silero_utils", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def joined(ranges):
    """Ranges, of which those that follow each other without a gap are one."""
    found = []
    for start, end in ranges:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def spans(probabilities, options, rate, samples, group):
    chunk = 512 if rate == 16_000 else 256
    machine = SpeechSpans(options, rate, chunk)
    ranges = []
    for first in range(0, len(probabilities), group):
        needed = machine.needed
        new = machine.add(probabilities[first : first + group])
        assert all(start >= needed for start, _ in new)
        ranges += new
    return joined(ranges + machine.finish(samples))


# Runs of chunks of one kind: speech, between the thresholds, silence.
runs = st.lists(st.tuples(st.sampled_from([0.9, 0.5, 0.4, 0.35, 0.1]), st.integers(1, 40)), max_size=25)


@needs_silero
@settings(max_examples=300, deadline=None)
@example([(0.9, 10), (0.1, 90)], 16_000, (0.5, None), 320, 2000, 400, 0, 7)  # as long as the minimum
@given(
    runs,
    st.sampled_from([8_000, 16_000]),
    st.sampled_from([(0.5, None), (0.45, 0.3)]),
    st.sampled_from([0, 100, 320, 1000]),
    st.sampled_from([0, 100, 320, 2000]),
    st.sampled_from([0, 30, 400]),
    st.integers(0, 255),
    st.integers(1, 50),
)
def test_spans_are_those_of_silero_however_probabilities_come(
    silero, runs, rate, thresholds, speech, silence, pad, missing, group
):
    probabilities = [value for value, count in runs for _ in range(count)]
    samples = max(len(probabilities) * rate * 32 // 1000 - missing, 0)
    names = {
        "threshold": thresholds[0],
        "neg_threshold": thresholds[1],
        "min_speech_duration_ms": speech,
        "min_silence_duration_ms": silence,
        "speech_pad_ms": pad,
    }
    expected = silero.get_speech_timestamps_from_probs(
        probabilities, sampling_rate=rate, audio_length_samples=samples, **names
    )
    found = spans(probabilities, VadOptions(**names), rate, samples, group)
    assert found == joined((one["start"], one["end"]) for one in expected)


@pytest.fixture(scope="module")
def conversation() -> np.ndarray:
    """Two sentences, 40 s of faint noise, and two sentences again with pauses of some seconds between."""
    pause = load_audio(ENGLISH / "pause_of_40_seconds.opus", RATE).samples
    others = [load_audio(ENGLISH / name, RATE).samples for name in ("bakery_16k.wav", "garden_44k.mp3")]
    quiet = pause[20 * RATE : 25 * RATE]
    return np.concatenate([pause, quiet, others[0], quiet[: 3 * RATE], others[1]])


def speech_of(audio, block=1 << 16, options=None):
    """Blocks of speech, and the object that gave them."""
    blocks = SpeechBlocks(
        Pretended(audio[start : start + block] for start in range(0, len(audio), block)), RATE, options
    )
    return list(blocks), blocks


class Pretended:
    """Blocks of an array in sizes of the test's."""

    warnings = ()

    def __init__(self, blocks):
        self._blocks = blocks

    def __iter__(self):
        return iter(self._blocks)


@needs_silero
@pytest.mark.parametrize("options", [VadOptions(), VadOptions(min_silence_duration_ms=100, speech_pad_ms=30)])
def test_kept_audio_is_that_of_silero_in_whatever_blocks_it_comes(silero, conversation, options):
    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.load"):
        model = torch.jit.load(find_weights())
    names = {name: getattr(options, name) for name in options.__slots__}
    expected = silero.get_speech_timestamps(torch.from_numpy(conversation), model, **names)
    expected = joined((one["start"], one["end"]) for one in expected)
    assert len(expected) > 3
    for block in (997, 1 << 16, len(conversation)):
        found, blocks = speech_of(conversation, block, options)
        assert [(round(start * RATE), round(end * RATE)) for start, end in blocks.speech.spans] == expected
        kept = [conversation[start:end] for start, end in expected]
        assert np.array_equal(np.concatenate(found), np.concatenate(kept))
        assert blocks.speech.duration == len(conversation) / RATE
        assert blocks.speech.speech_duration == sum(map(len, kept)) / RATE


@needs_silero
def test_a_pause_of_40_seconds_is_left_out():
    blocks = SpeechBlocks(audio_blocks(ENGLISH / "pause_of_40_seconds.opus", RATE), RATE)
    kept = sum(len(block) for block in blocks) / RATE
    assert kept < 6.0
    assert blocks.speech.duration == 45.0
    (_, first), (second, _) = blocks.speech.spans
    assert first < 3.5
    assert second > 41.5


@needs_silero
@pytest.mark.parametrize(
    "audio", [np.zeros(RATE, np.float32), np.zeros(0, np.float32), np.zeros(5, np.float32)]
)
def test_silence_has_no_speech(audio):
    found, blocks = speech_of(audio)
    assert sum(map(len, found)) == 0
    assert (blocks.speech.spans, blocks.speech.duration) == ([], len(audio) / RATE)


@needs_silero
def test_an_hour_takes_flat_memory(conversation):
    def hour():
        for _ in range(3600 * RATE // len(conversation)):
            yield from np.split(conversation, range(1 << 16, len(conversation), 1 << 16))

    blocks = SpeechBlocks(Pretended(hour()), RATE)
    tracemalloc.start()
    try:
        longest = max(len(piece.samples) for piece in pieces(blocks, RATE, 30.0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert longest <= 30 * RATE
    assert blocks.speech.duration > 3500
    assert peak < 20e6  # some windows of 30 s, 1.9 MB each; the hour has 49 MB of speech


def times(*spans: tuple[float, float], pad: float = 0.5) -> SpeechTimes:
    speech = SpeechTimes(1_000, pad)
    for start, end in spans:
        speech.add(round(1_000 * start), round(1_000 * end))
    speech.samples = 100_000
    return speech


def test_times_are_those_of_the_recording():
    speech = times((10, 12), (12, 15), (40, 42))  # of which the second goes on from the first
    assert speech.spans == [(10, 15), (40, 42)]
    assert (speech.duration, speech.speech_duration) == (100, 7)
    assert speech.word(0, 1) == (10, 11)
    assert speech.word(6, 7) == (41, 42)
    assert speech.segment(1, 3) == (11, 13)
    assert speech.segment(1, 6) == (11, 41)  # speech on both sides of the pause


def test_pieces_are_cut_further_between_spans_unless_too_little_is_left():
    speech = times((10, 15), (40, 42), (50, 50.2), (60, 63), pad=0.1)  # joined at 5, 7 and 7.2
    audio = np.arange(10_200, dtype=np.float32)
    whole = [Piece(0, audio[:5_100]), Piece(5_100, audio[5_100:])]
    found = list(speech.split(whole, 0.0))
    assert [(one.start, one.end) for one in found] == [
        (0, 5_100), (5_100, 7_000), (7_000, 7_200), (7_200, 10_200)
    ]  # fmt: skip
    assert np.array_equal(np.concatenate([one.samples for one in found]), audio)
    assert [one.end for one in speech.split(whole, 0.201)] == [5_100, 7_000, 10_200]


def test_a_word_stays_in_the_span_of_its_middle():
    speech = times((10, 15), (40, 42))
    assert speech.word(4.6, 5.2) == pytest.approx((14.6, 15))
    assert speech.word(4.8, 5.4) == pytest.approx((40, 40.4))
    assert speech.word(6.8, 7.5) == pytest.approx((41.8, 42))


def test_a_segment_takes_no_pause_before_or_behind_its_speech():
    speech = times((10, 15), (40, 42))
    assert speech.segment(5, 6) == (40, 41)
    assert speech.segment(4.7, 6) == (40, 41)  # begins in the pad behind the first span
    assert speech.segment(2, 5) == (12, 15)
    assert speech.segment(2, 5.3) == (12, 15)
    assert speech.segment(5, 5) == (40, 40)


@given(st.lists(st.floats(0, 9), min_size=2, max_size=12).map(sorted), st.integers(0, 6))
def test_times_rise_as_they_did_and_never_pass_the_end(moments, gap):
    speech = times((0, 2), (2 + gap, 4 + gap), (20, 25))
    words = [speech.word(start, end) for start, end in pairwise(moments)]
    segments = [speech.segment(start, end) for start, end in pairwise(moments)]
    for spans in (words, segments):
        flat = [time for span in spans for time in span]
        assert flat == sorted(flat)
        assert flat[-1] <= 25


def test_without_speech_there_is_nothing_to_map():
    assert times().word(1, 2) == times().segment(1, 2) == (1, 2)
