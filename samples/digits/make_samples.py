"""Synthesize the recordings of this folder with espeak-ng: digits in several voices, file formats and rates.

python samples/digits/make_samples.py

Writes the audio files and transcripts.json beside this script. The bytes depend on espeak-ng's version;
the committed files are from espeak-ng 1.51 (Debian).
"""

from __future__ import annotations

import io
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

# Rates and pitches off the grid of examples/training/digits_data.py (tens and fives): none was trained on.


@dataclass(frozen=True)
class Sample:
    """A recording to synthesize."""

    name: str
    text: str
    voice: str
    rate: int  # words a minute
    pitch: int  # espeak-ng's own scale, 0 to 99
    sampling_rate: int  # Hz, of the file
    stereo: bool = False


SAMPLES = (
    Sample("one_digit_8k.wav", "seven", "en-us+m3", 148, 47, 8_000),
    Sample("two_digits_16k.wav", "four two", "en-gb+f2", 136, 53, 16_000),
    Sample("three_digits_22k.flac", "three one four", "en-us+m1", 143, 38, 22_050),
    Sample("four_digits_44k_stereo.wav", "nine zero five eight", "en-us+f4", 152, 61, 44_100, stereo=True),
    Sample("five_digits_48k.flac", "six two eight three one", "en-gb+m5", 127, 44, 48_000),
    Sample("six_digits_16k.flac", "zero zero seven five five nine", "en-gb-scotland+m2", 139, 33, 16_000),
    Sample("seven_digits_fast_44k.flac", "eight six seven five three zero nine", "en-us+f1", 174, 67, 44_100),
    Sample("eight_digits_low_8k.wav", "two seven one eight two eight four six", "en-gb+m7", 122, 21, 8_000),
)


def main() -> None:
    folder = Path(__file__).resolve().parent
    for sample in SAMPLES:
        audio = speak(sample)
        soundfile.write(folder / sample.name, audio, sample.sampling_rate, subtype="PCM_16")
        print(f"{sample.name}: {len(audio) / sample.sampling_rate:.1f} s, {sample.text}")
    transcripts = {sample.name: sample.text for sample in SAMPLES}
    (folder / "transcripts.json").write_text(json.dumps(transcripts, indent=2) + "\n", encoding="utf-8")


def speak(sample: Sample) -> np.ndarray:
    """The sample's audio, [samples] or [samples, 2], float32 at its own rate."""
    command = ["espeak-ng", "-v", sample.voice, "-s", str(sample.rate), "-p", str(sample.pitch), "--stdout"]
    sound = subprocess.run([*command, sample.text], check=True, capture_output=True).stdout
    audio, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
    audio = np.clip(soxr.resample(audio, rate, sample.sampling_rate), -1, 1)
    if not sample.stereo:
        return audio
    # A source nearer to the left microphone reaches the right one later and fainter.
    delay = sample.sampling_rate // 2_000
    return np.stack([audio, 0.6 * np.pad(audio, (delay, 0))[: len(audio)]], axis=1)


if __name__ == "__main__":
    main()
