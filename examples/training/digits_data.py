"""Strings of spoken digits for the training scripts: recordings, synthesis, joining and augmentation.

A string joins single digits of one voice, so the span of each digit is known. Two kinds of voices: the Free
Spoken Digit Dataset (CC BY-SA 4.0, github.com/Jakobovski/free-spoken-digit-dataset) and espeak-ng, where it
is installed. espeak-ng also speaks whole strings, whose words run into each other; their spans are unknown.
"""

from __future__ import annotations

import io
import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

SAMPLING_RATE = 16_000  # Hz, of every waveform that leaves this file
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

ACCENTS = ("en-us", "en-us", "en-us-nyc", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-029")
USUAL_VARIANTS = tuple(f"m{i}" for i in range(1, 9)) + tuple(f"f{i}" for i in range(1, 6)) + ("croak",)
# Multiples of ten and of five: samples/digits/make_samples.py stays off this grid, so none was trained on.
RATES = tuple(range(100, 240, 10))  # words a minute
PITCHES = tuple(range(20, 85, 5))  # espeak-ng's own scale, 0 to 99


@dataclass(frozen=True)
class Clip:
    """A recording at its own sampling rate."""

    samples: np.ndarray  # [samples], float32
    rate: int  # Hz


@dataclass(frozen=True)
class Utterance:
    """One string of digits at 16 kHz."""

    waveform: np.ndarray  # [samples], float32
    digits: tuple[int, ...]
    spans: tuple[tuple[int, int], ...] | None  # first sample and end of each digit; None where unknown


Voice = dict[int, list[Clip]]  # digit -> recordings of it


def load_recordings(folder: Path, speakers: Sequence[str] | None = None) -> dict[str, Voice]:
    """Read `{digit}_{speaker}_{index}.wav` files, in order of name: speaker -> digit -> recordings."""
    voices: dict[str, Voice] = {}
    for path in sorted(folder.glob("*_*_*.wav")):
        digit, speaker, _ = path.stem.split("_")
        if speakers is None or speaker in speakers:
            samples, rate = soundfile.read(path, dtype="float32")
            voices.setdefault(speaker, {}).setdefault(int(digit), []).append(Clip(samples, rate))
    if not voices:
        raise FileNotFoundError(
            f"no recordings named digit_speaker_index.wav in {folder}; "
            "give the folder that holds train/ and test/ with --data"
        )
    return voices


def training_speakers(data: Path, leave_out: str | None) -> dict[str, Voice]:
    """The recordings of train/ by speaker, without the speaker left out.

    Raises:
        SystemExit: there is no such speaker.
    """
    speakers = load_recordings(data / "train")
    if leave_out is not None:
        if leave_out not in speakers:
            raise SystemExit(f"no speaker {leave_out!r} in {data}; there are {', '.join(speakers)}")
        del speakers[leave_out]
    return speakers


# --- espeak-ng ------------------------------------------------------------------------------------


def synthesize(text: str, voice: str, rate: int, pitch: int, gap: int = 0) -> Clip:
    """Speak `text` with espeak-ng; rate in words a minute, gaps in 10 ms. Silent ends are cut off."""
    command = ["espeak-ng", "-v", voice, "-s", str(rate), "-p", str(pitch), "-g", str(gap), "--stdout", text]
    sound = subprocess.run(command, check=True, capture_output=True).stdout
    samples, sampling_rate = soundfile.read(io.BytesIO(sound), dtype="float32")
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    return Clip(samples[loud[0] : loud[-1] + 1], sampling_rate)


def espeak_voices(
    count: int, phrase_count: int, seed: int
) -> tuple[list[Voice], list[tuple[Clip, tuple[int, ...]]]]:
    """Render `count` random voices saying each digit, and `phrase_count` connected strings in others.

    Returns two empty lists where espeak-ng is not installed.
    """
    if shutil.which("espeak-ng") is None:
        return [], []
    listing = subprocess.run(
        ["espeak-ng", "--voices=variant"], check=True, capture_output=True, text=True
    ).stdout
    variants = sorted(set(re.findall(r"!v/(\S+)", listing)) | set(USUAL_VARIANTS))
    rng = np.random.default_rng(seed)

    def draw_voice() -> tuple[str, int, int]:
        names = USUAL_VARIANTS if rng.random() < 0.5 else variants
        name = f"{rng.choice(ACCENTS)}+{rng.choice(names)}"
        return name, int(rng.choice(RATES)), int(rng.choice(PITCHES))

    singles = [(word, *draw) for draw in [draw_voice() for _ in range(count)] for word in WORDS]
    strings = [tuple(int(d) for d in rng.integers(0, 10, rng.integers(1, 9))) for _ in range(phrase_count)]
    phrases = []
    for digits in strings:
        separator = ", " if rng.random() < 0.3 else " "
        phrases.append(
            (separator.join(WORDS[d] for d in digits), *draw_voice(), int(rng.choice((0, 0, 2, 5, 10))))
        )
    with ThreadPoolExecutor(2) as pool:
        clips = list(pool.map(lambda arguments: synthesize(*arguments), singles))
        spoken = list(pool.map(lambda arguments: synthesize(*arguments), phrases))
    voices = [{d: [clip] for d, clip in enumerate(clips[i : i + 10])} for i in range(0, len(clips), 10)]
    return voices, list(zip(spoken, strings, strict=True))


# --- strings --------------------------------------------------------------------------------------


def resample(clip: Clip, speed: float = 1.0) -> np.ndarray:
    """The clip at 16 kHz, played `speed` times as fast: tempo, pitch and formants move together."""
    if clip.rate == SAMPLING_RATE and speed == 1.0:
        return clip.samples
    return soxr.resample(clip.samples, clip.rate * speed, SAMPLING_RATE, quality="HQ")


def join(clips: Sequence[np.ndarray], pauses: Sequence[float], digits: tuple[int, ...]) -> Utterance:
    """Put clips one after the other; pauses (seconds, one more than clips) before, between and after them.

    A negative pause lets two clips overlap.
    """
    starts, position = [], 0
    for clip, pause in zip(clips, pauses, strict=False):
        position = max(0, position + round(pause * SAMPLING_RATE))
        starts.append(position)
        position += len(clip)
    total = max(1, position + round(max(0.0, pauses[-1]) * SAMPLING_RATE))
    waveform = np.zeros(total, dtype=np.float32)
    for start, clip in zip(starts, clips, strict=True):
        waveform[start : start + len(clip)] += clip
    spans = tuple((start, start + len(clip)) for start, clip in zip(starts, clips, strict=True))
    return Utterance(waveform, digits, spans)


def evaluation_strings(
    voices: dict[str, Voice], per_length: int = 10, seed: int = 1
) -> dict[str, list[Utterance]]:
    """For each speaker `per_length` strings of each length from 1 to 8; as recorded, pauses to 0.6 s.

    Pauses hold digital silence in every other string and noise of about -70 dB in the rest.
    """
    rng = np.random.default_rng(seed)
    strings: dict[str, list[Utterance]] = {}
    for speaker, voice in voices.items():
        for length in range(1, 9):
            for index in range(per_length):
                digits = tuple(int(d) for d in rng.integers(0, 10, length))
                clips = [resample(voice[d][rng.integers(len(voice[d]))]) for d in digits]
                string = join(clips, rng.uniform(0.0, 0.6, length + 1).tolist(), digits)
                hiss = rng.standard_normal(len(string.waveform), dtype=np.float32) * np.float32(3e-4)
                waveform = string.waveform + (hiss if index % 2 else 0)
                strings.setdefault(speaker, []).append(Utterance(waveform, digits, string.spans))
    return strings


class StringMaker:
    """Random augmented strings for training; the same seed draws the same strings."""

    def __init__(
        self,
        speakers: dict[str, Voice],
        synthetic: list[Voice],
        phrases: list[tuple[Clip, tuple[int, ...]]],
        seed: int,
    ):
        self._speakers = list(speakers.values())
        self._synthetic = synthetic
        self._phrases = phrases
        self._strength = 1.0
        self._rng = np.random.default_rng(seed)
        self._noises = [_colored_noise(self._rng, slope) for slope in (0.0, 0.5, 1.0, 1.5)]

    def draw(self, strength: float = 1.0) -> Utterance:
        """A string of digits, augmented less often the lower `strength` is, from 0 to 1."""
        rng, self._strength = self._rng, strength
        if rng.random() < 0.015:
            string = Utterance(np.zeros(int(rng.integers(4_000, 40_000)), dtype=np.float32), (), ())
        elif self._phrases and self._chance(0.12):
            string = self._draw_phrase()
        else:
            string = self._draw_joined()
        return Utterance(self._color(string.waveform), string.digits, string.spans)

    def draw_digit(self, strength: float = 1.0) -> Utterance:
        """A single digit, augmented as strings are, with up to 0.2 s of silence before and after."""
        rng, self._strength = self._rng, strength
        digit = int(rng.integers(0, 10))
        clip = _scaled(resample(self._draw_clip(self._draw_voice(), digit), self._draw_speed()))
        pauses = (rng.uniform(0.0, 0.2, 2) * self._chance(0.7)).tolist()
        string = join([clip], pauses, (digit,))
        return Utterance(self._color(string.waveform), string.digits, string.spans)

    def _chance(self, probability: float) -> bool:
        return bool(self._rng.random() < probability * self._strength)

    def _draw_phrase(self) -> Utterance:
        clip, digits = self._phrases[self._rng.integers(len(self._phrases))]
        waveform = resample(clip, self._draw_speed())
        pauses = self._rng.uniform(0.0, 0.5, 2).tolist()
        return Utterance(join([_scaled(waveform)], pauses, digits).waveform, digits, None)

    def _draw_joined(self) -> Utterance:
        rng = self._rng
        voice = self._draw_voice()
        length = int(rng.integers(1, 9)) if rng.random() < 0.92 else int(rng.integers(9, 13))
        digits = tuple(int(d) for d in rng.integers(0, 10, length))
        if length > 1 and rng.random() < 0.1:  # decoders lose count of repeated digits
            repeated = int(rng.integers(1, length))
            digits = (*digits[:repeated], digits[repeated - 1], *digits[repeated + 1 :])
        speed, wobble = self._draw_speed(), 0.04 * self._strength
        clips = []
        for d in digits:
            clip = resample(self._draw_clip(voice, d), speed * math.exp(rng.uniform(-wobble, wobble)))
            clips.append(clip * np.float32(10 ** (rng.uniform(-4, 4) / 20)))
        tight = self._chance(0.25)
        pauses = (
            rng.uniform(-0.06, 0.05, length + 1)
            if tight
            else rng.uniform(0.0, rng.choice((0.3, 0.7)), length + 1)
        )
        pauses[[0, -1]] = rng.uniform(0.0, 0.6, 2)
        fade = rng.random() < 0.5
        string = join([_faded(clip) for clip in clips] if fade else clips, pauses.tolist(), digits)
        return Utterance(_scaled(string.waveform), digits, string.spans)

    def _draw_voice(self) -> Voice:
        pool = self._synthetic if self._synthetic and self._rng.random() < 0.25 else self._speakers
        return pool[self._rng.integers(len(pool))]

    def _draw_clip(self, voice: Voice, digit: int) -> Clip:
        return voice[digit][self._rng.integers(len(voice[digit]))]

    def _draw_speed(self) -> float:
        """The resampling factor, 1 in every fourth string so that unaltered recordings are seen too."""
        return math.exp(self._rng.uniform(-0.22, 0.22)) if self._chance(0.75) else 1.0

    def _color(self, waveform: np.ndarray) -> np.ndarray:
        """Effects of room, line and microphone: mirrored upper band, echo, low-pass, noise, level."""
        rng = self._rng
        if self._chance(0.15):
            # An 8 kHz recording has an empty upper band; its mirror image stands in for one.
            mirrored = waveform.copy()
            mirrored[1::2] *= -1
            waveform = waveform + mirrored * np.float32(10 ** (rng.uniform(-40, -10) / 20))
        echo, low_pass = self._chance(0.3), self._chance(0.5)
        if echo or low_pass:
            waveform = self._filtered(waveform, echo, low_pass)
        if self._chance(0.8):
            noise = self._noises[rng.integers(len(self._noises))]
            start = rng.integers(len(noise) - len(waveform))
            level = 0.1 * 10 ** (-rng.uniform(6, 50) / 20)  # speech was scaled to an RMS of about 0.1
            waveform = waveform + noise[start : start + len(waveform)] * np.float32(level)
        waveform = waveform * np.float32(10 ** (rng.uniform(-30, 6) / 20))
        if rng.random() < 0.5:
            waveform = np.round(waveform * 32768) / np.float32(32768)  # as a 16-bit file
        return np.clip(waveform, -1, 1).astype(np.float32)

    def _filtered(self, waveform: np.ndarray, echo: bool, low_pass: bool) -> np.ndarray:
        rng, total = self._rng, len(waveform)
        size = 1 << (total + SAMPLING_RATE // 2).bit_length()
        response = np.ones(size // 2 + 1, dtype=np.complex64)
        if echo:
            tail = np.arange(int(SAMPLING_RATE * rng.uniform(0.05, 0.4)))
            impulse = rng.standard_normal(len(tail)) * np.exp(-6.9 * tail / len(tail))
            impulse *= rng.uniform(0.1, 0.8) / math.sqrt(float((impulse**2).sum()))
            impulse[0] = 1.0
            response *= np.fft.rfft(impulse, size)
        if low_pass:
            frequencies = np.linspace(0, SAMPLING_RATE / 2, size // 2 + 1)
            cut, width = rng.uniform(3_000, 7_500), rng.uniform(50, 500)
            response *= np.clip((cut + width - frequencies) / width, 0, 1)
        return np.fft.irfft(np.fft.rfft(waveform, size) * response, size)[:total].astype(np.float32)


def _scaled(waveform: np.ndarray) -> np.ndarray:
    """Speech at an RMS of 0.1 over its louder half, so that noise levels mean the same for quiet speakers."""
    power = np.sort(waveform**2)[len(waveform) // 2 :]
    return waveform * np.float32(0.1 / math.sqrt(float(power.mean()) + 1e-12))


def _faded(clip: np.ndarray) -> np.ndarray:
    ramp = np.ones(len(clip), dtype=np.float32)
    size = min(160, len(clip) // 4)
    ramp[:size] = np.linspace(0, 1, size)
    ramp[-size:] = ramp[:size][::-1]
    return clip * ramp


def _colored_noise(rng: np.random.Generator, slope: float, seconds: int = 40) -> np.ndarray:
    """Noise of RMS 1 whose power falls with frequency to the power of `slope` (0 white, 1 pink)."""
    spectrum = np.fft.rfft(rng.standard_normal(seconds * SAMPLING_RATE))
    spectrum *= np.maximum(np.arange(len(spectrum)), 20 * seconds) ** (-slope / 2)
    noise = np.fft.irfft(spectrum).astype(np.float32)
    return noise / noise.std()
