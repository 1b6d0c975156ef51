"""Speech of recordings: spans as Silero's, joined blocks, times, and memory."""

import importlib.util
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritone.engine.audio.speech import SpeechBlocks, SpeechSpans, SpeechTimes, VadOptions
from tritone.engine.audio.vad import find_weights

needs_silero = pytest.mark.skipif(
    find_weights() is None, reason="silero-vad is not installed: pip install 'tritone[vad]'"
)


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
@given(
    runs,
    st.sampled_from([8_000, 16_000]),
    st.sampled_from([(0.5, None), (0.45, 0.3)]),
    st.sampled_from([0, 100, 250, 1000]),
    st.sampled_from([0, 100, 500, 2000]),
    st.sampled_from([0, 30, 400]),
    st.integers(0, 255),
    st.integers(1, 50),
)
def test_spans_are_those_of_silero_however_probabilities_come(
    silero, runs, rate, thresholds, speech, silence, pad, missing, group
):
    probabilities = [value for value, count in runs for _ in range(count)]
    samples = max(len(probabilities) * rate * 32 // 1000 - missing, 0)
    names = dict(
        threshold=thresholds[0],
        neg_threshold=thresholds[1],
        min_speech_duration_ms=speech,
        min_silence_duration_ms=silence,
        speech_pad_ms=pad,
    )
    expected = silero.get_speech_timestamps_from_probs(
        probabilities, sampling_rate=rate, audio_length_samples=samples, **names
    )
    found = spans(probabilities, VadOptions(**names), rate, samples, group)
    assert found == joined((one["start"], one["end"]) for one in expected)


