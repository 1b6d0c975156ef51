"""Real tiny.en on spoken recordings of over two minutes: the windows, segments and text of transformers.

pytest prints at its end what was compared.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from whisper_tokenizers import english_folder

import tritone
from tritone.engine.audio.reader import load_audio

RATE = 16_000
SAMPLES = Path(__file__).parents[2] / "samples" / "english"
SHORT = ("bakery_16k.wav", "garden_44k.mp3", "library_8k.wav", "weather_22k.flac")
FALLBACK = {"compression_ratio_threshold": 1.35, "logprob_threshold": -1.0, "no_speech_threshold": 0.6}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whispers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """tiny.en in both libraries, theirs loaded from what ours saves."""
    ours = tritone.WhisperForConditionalGeneration.from_pretrained(english_folder(), dtype="float32")
    folder = tmp_path_factory.mktemp("english")
    ours.save_pretrained(folder)
    return transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval(), ours


def sound(*names: str) -> np.ndarray:
    return np.concatenate([load_audio(SAMPLES / name, RATE).samples for name in names])


def speech(kind: str) -> np.ndarray:
    """One of three recordings, each of at least two minutes."""
    if kind == "a story":
        return sound("three_minutes.m4a")[: 125 * RATE]
    if kind == "sentences and a pause":
        pause = "pause_of_40_seconds.opus"
        return sound(*SHORT, pause, *SHORT[::-1], pause)
    story, noise = sound("three_minutes.m4a"), np.random.default_rng(0)
    noisy = np.concatenate([story[60 * RATE : 150 * RATE] * 0.3, sound(*SHORT, *SHORT[:2])])
    return (noisy + 0.01 * noise.standard_normal(len(noisy))).astype(np.float32)


RECORDINGS: dict[str, dict[str, Any]] = {
    "a story": {},
    "sentences and a pause": {"condition_on_prev_tokens": True},
    "quiet speech in noise": FALLBACK,
}


@pytest.mark.parametrize("kind", RECORDINGS)
def test_a_recording_of_minutes_has_the_segments_of_transformers(
    kind: str, whispers: tuple[Any, Any], report: Callable[[str], None]
) -> None:
    samples = speech(kind)
    assert len(samples) >= 120 * RATE
    inputs = tritone.WhisperFeatureExtractor()(
        samples,
        sampling_rate=RATE,
        return_tensors="pt",
        truncation=False,
        padding="longest",
        return_attention_mask=True,
    )
    options = {"return_timestamps": True, "return_segments": True, "temperature": (0.0,), **RECORDINGS[kind]}
    found, seconds = [], []
    for model in whispers:
        begin = time.perf_counter()
        with torch.inference_mode():
            found.append(
                model.generate(inputs["input_features"], attention_mask=inputs["attention_mask"], **options)
            )
        seconds.append(time.perf_counter() - begin)
    wanted, got = found
    theirs, mine = (
        [
            (round(float(one["start"]), 6), round(float(one["end"]), 6), one["tokens"].tolist())
            for one in result["segments"][0]
        ]
        for result in found
    )
    assert mine == theirs
    assert torch.equal(got["sequences"], wanted["sequences"])
    report(
        f"{kind}, {len(samples) / RATE:.0f} s: the {len(mine)} segments and {wanted['sequences'].shape[1]} "
        f"tokens of transformers; {seconds[0]:.0f} s and {seconds[1]:.0f} s"
    )
