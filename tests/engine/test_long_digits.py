"""Long recordings with the digits model: as many word errors as its sentences have alone, in flat memory."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from word_errors import word_errors

import tritone
from tritone.engine.audio.reader import load_audio

SAMPLES = Path(__file__).parents[2] / "samples" / "digits"
RATE = 16_000


def joined(repetitions: int) -> tuple[np.ndarray, list[tuple[float, float]], list[str]]:
    """The samples in random order, with pauses of 0.5 to 1.5 s and noise; their seconds, and file names."""
    draw = random.Random(1)
    noise = np.random.default_rng(1)
    names = sorted(path.name for path in SAMPLES.iterdir() if path.suffix in (".wav", ".flac"))
    sounds = {name: load_audio(SAMPLES / name, RATE).samples for name in names}
    order = names * repetitions
    draw.shuffle(order)
    parts, places, count = list[np.ndarray](), list[tuple[float, float]](), 0
    for name in order:
        parts += [sounds[name], np.zeros(int(draw.uniform(0.5, 1.5) * RATE), np.float32)]
        places.append((count / RATE, (count + len(sounds[name])) / RATE))
        count += len(parts[-2]) + len(parts[-1])
    hiss = 3e-4 * noise.standard_normal(count).astype(np.float32)
    return np.concatenate(parts) + hiss, places, order


@pytest.fixture(scope="module")
def engine():
    with tritone.Engine("digits", device="cpu") as engine:
        yield engine


def test_a_long_recording_has_as_few_word_errors_as_its_sentences_alone(engine):
    audio, places, order = joined(16)
    result = engine.submit(audio).result(60)
    alone = {name: engine.submit(SAMPLES / name).result(60).text for name in dict.fromkeys(order)}
    # Words that the normalization does not join to numbers.
    wanted, found = (text.split() for text in (" ".join(alone[name] for name in order), result.text))
    errors, words = word_errors(*(" ".join(f"x{word}" for word in text) for text in (wanted, found)))
    assert words > 500
    assert errors / words <= 0.01
    for segment in result.segments:  # each begins and ends within a sentence
        for second in (segment.start, segment.end):
            assert any(start - 0.1 <= second <= end + 0.1 for start, end in places)
    times = [second for one in result.segments for second in (one.start, one.end)]
    assert times == sorted(times)


MEMORY = """
import json, resource, sys
import tritone
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
with tritone.Engine("digits", device="cpu") as engine:
    found = [peak()]
    for path in sys.argv[1:]:
        assert len(engine.submit(path).result().segments) > 10
        found.append(peak())
print(json.dumps(found))
"""


def test_memory_does_not_grow_with_the_length_of_a_recording(tmp_path):
    audio, _, _ = joined(4)
    paths = []
    for repetitions in (1, 5):
        path = tmp_path / f"{repetitions}.wav"
        soundfile.write(path, np.tile(audio, repetitions), RATE)
        paths.append(path)
    command = [sys.executable, "-c", MEMORY, *paths]
    model, shorter, longer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert longer - shorter < 30  # MB
    assert longer - model < 300
