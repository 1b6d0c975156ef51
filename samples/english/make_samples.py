"""Synthesize the recordings of this folder: English sentences in several voices, formats and rates.

python samples/english/make_samples.py

Writes the audio files and transcripts.json beside this script. It needs flite, festival with the voice
cmu_us_slt_arctic_hts, and ffmpeg; the committed files are from Debian's flite 2.2 and festival 2.5. Other
versions may write other bytes.
"""

from __future__ import annotations

import io
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import soxr


@dataclass(frozen=True)
class Sample:
    """A recording to synthesize: parts of speech with pauses between them."""

    name: str
    voice: str  # of flite, or "festival"
    sampling_rate: int  # Hz, of the file
    parts: tuple[str, ...]
    pause: float = 0.6  # seconds between parts
    stretch: float = 1.0  # of the duration, with flite's voices
    options: tuple[str, ...] = ()  # of ffmpeg, for the formats that it writes


_LIGHTHOUSE = (
    "The lighthouse stood at the end of a long road, where the land ran out and the water began. For forty "
    "years the same man had climbed its stairs every evening and lit the lamp.",
    "He kept a small garden behind the house, with potatoes and onions and a single apple tree. In the "
    "winter the wind was so strong that he tied the gate with rope.",
    "Once a month a boat came from the town with flour, coffee, oil for the lamp, and letters. He read the "
    "letters slowly, one each day, so that they would last until the boat came back.",
    "People in the town called him the quiet man, but he was not lonely. He talked to the birds, to the "
    "apple tree, and to the sea, and he said that all of them listened.",
    "One autumn a storm came early. The rain fell for three days, and the waves broke over the rocks below "
    "the house. On the second night the old man heard a sound that was not the wind.",
    "He took his lantern and went down to the shore. A small fishing boat was lying on its side, and two "
    "people were holding on to the mast. He threw them a rope and pulled until his hands hurt.",
    "In the kitchen he gave them soup and dry clothes. They were a mother and her son, and they had been on "
    "the water since the morning. The boy looked at the lamp above them and asked how it worked.",
    "So the old man took him up the stairs and showed him everything. He showed him the glass, the clock "
    "that turned it, and the book in which he wrote the weather every day.",
    "When the storm was over, the boat from the town came to take them home. The boy promised that he would "
    "come again, and the old man smiled, because people often say such things.",
    "But the next summer the boy was there, and every summer after that. He learned to trim the lamp and to "
    "read the sky. He learned which birds come before the rain.",
    "The boy grew tall. He bought a boat of his own and painted it blue and white. In the spring they "
    "painted the tower together, and it took them nine days.",
    "Ten years later the old man could not climb the stairs any more. He sat in the garden under the apple "
    "tree, and in the evening he looked up and saw the light go on.",
    "He wrote one last line in his book. The light is in good hands, he wrote, and the weather is fair.",
    "The book is still there. If you visit the lighthouse, you can read it, and you can taste the apples in "
    "the fall.",
)
SAMPLES = (
    Sample("bakery_16k.wav", "slt", 16_000, ("The bakery on the corner opens at six every morning.",)),
    Sample(
        "weather_22k.flac",
        "festival",
        22_050,
        ("Tomorrow it will be cold and cloudy in the north. In the south the sun will shine all day.",),
    ),
    Sample(
        "library_8k.wav",
        "rms",
        8_000,
        ("Please return these books to the library before the end of the week.",),
    ),
    Sample(
        "garden_44k.mp3",
        "slt",
        44_100,
        (
            "My grandmother planted roses along the wall.",
            "Every spring they were the first flowers to bloom.",
        ),
        options=("-b:a", "48k"),
    ),
    Sample(
        "pause_of_40_seconds.opus",
        "slt",
        48_000,
        ("The first train leaves at seven o'clock.", "My brother will wait for us at the station."),
        pause=40.0,
        options=("-b:a", "20k"),
    ),
    Sample("three_minutes.m4a", "slt", 22_050, _LIGHTHOUSE, pause=1.2, stretch=1.32, options=("-b:a", "32k")),
)


def main() -> None:
    folder = Path(__file__).resolve().parent
    for sample in SAMPLES:
        audio = speak(sample)
        path = folder / sample.name
        if path.suffix in (".wav", ".flac"):
            soundfile.write(path, audio, sample.sampling_rate, subtype="PCM_16")
        else:
            encode(path, audio, sample)
        print(f"{sample.name}: {len(audio) / sample.sampling_rate:.1f} s, {path.stat().st_size} bytes")
    transcripts = {sample.name: " ".join(sample.parts) for sample in SAMPLES}
    (folder / "transcripts.json").write_text(json.dumps(transcripts, indent=2) + "\n", encoding="utf-8")


def speak(sample: Sample) -> np.ndarray:
    """The sample's audio, float32 [samples] at its own rate, with a faint noise in the pauses."""
    noise = np.random.default_rng(len(sample.name))
    silence = int(sample.pause * sample.sampling_rate)
    pieces: list[np.ndarray] = []
    for part in sample.parts:
        if pieces:
            pieces.append(noise.normal(0.0, 2e-4, silence).astype(np.float32))
        pieces.append(spoken(part, sample))
    audio = np.concatenate(pieces)
    return (audio / np.abs(audio).max() * 0.7).astype(np.float32)


def spoken(text: str, sample: Sample) -> np.ndarray:
    """One part of a sample, float32 [samples] at the sample's rate."""
    with TemporaryDirectory() as folder:
        wave = f"{folder}/speech.wav"
        if sample.voice == "festival":
            command = ["text2wave", "-eval", "(voice_cmu_us_slt_arctic_hts)", "-o", wave]
        else:
            stretch = f"duration_stretch={sample.stretch}"
            command = ["flite", "-voice", sample.voice, "--setf", stretch, "-t", text, "-o", wave]
        subprocess.run(command, input=text.encode(), check=True)
        audio, rate = soundfile.read(wave, dtype="float32")
    resampled: np.ndarray = soxr.resample(audio, rate, sample.sampling_rate)
    return resampled


def encode(path: Path, audio: np.ndarray, sample: Sample) -> None:
    """Write a file in a format of ffmpeg's, without its version and the date."""
    wave = io.BytesIO()
    soundfile.write(wave, audio, sample.sampling_rate, format="WAV", subtype="PCM_16")
    command = [
        "ffmpeg",
        "-loglevel",
        "error",
        "-y",
        "-i",
        "-",
        "-fflags",
        "+bitexact",
        "-flags:a",
        "+bitexact",
    ]
    subprocess.run([*command, *sample.options, str(path)], input=wave.getvalue(), check=True)


if __name__ == "__main__":
    main()
