"""Voice activity detection alone: three minutes of speech at 16 kHz, by one thread.

`extra_info` has RTFx, seconds of audio per second of CPU time.
"""

import time
from pathlib import Path

import torch

from tritone.engine.audio.reader import audio_blocks, load_audio
from tritone.engine.audio.speech import SpeechBlocks

SAMPLE = Path(__file__).parents[2] / "samples" / "english" / "three_minutes.m4a"
RATE = 16_000


def test_speech(benchmark) -> None:
    samples = load_audio(SAMPLE, RATE).samples

    def detect() -> int:
        return sum(len(block) for block in SpeechBlocks(audio_blocks(samples, RATE), RATE))

    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    used = time.process_time()
    kept = benchmark.pedantic(detect, rounds=10, warmup_rounds=1)
    used = (time.process_time() - used) / 11
    torch.set_num_threads(usual)
    assert kept > 170 * RATE
    benchmark.extra_info["rtfx"] = round(len(samples) / RATE / used)
