"""Sentences whose words have known times, and long recordings of them with pauses in between."""

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import soxr

ROOT = Path(__file__).parents[2]
FSDD = ROOT / "../shared/data/fsdd"  # CC BY-SA 4.0; not part of the repository
RATE = 16_000  # Hz
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MARGIN = 0.1  # seconds around a sentence alone: half of the shortest pause
PAUSES = 0.2, 3.0  # seconds between sentences
HISS = 2e-4  # amplitude of pauses: no microphone gives zeros
_LEVEL = 0.1  # RMS of speech
_SCHEME = """(voice_cmu_us_slt_arctic_hts)
(define (times item) (format t "%s %f %f\\n" (item.name item) (item.feat item 'word_start)
 (item.feat item 'word_end)))
(define (speak text file) (set! said (utt.synth (eval (list 'Utterance 'Text text))))
 (utt.save.wave said file) (mapcar times (utt.relation.items said 'Word)) (format t "\\n"))
"""


@dataclass(frozen=True, slots=True)
class Word:
    """Word with its start and end in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Sentence:
    """Sentence, float32 [samples] at 16 kHz, and its words."""

    waveform: np.ndarray
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        """Words with spaces between them."""
        return " ".join(word.text for word in self.words)


def digit_strings(seconds: float, seed: int) -> list[Sentence]:
    """Strings of 1 to 8 digits of one speaker each, from recordings of FSDD's `test/`, `seconds` in all.

    Raises:
        FileNotFoundError: there are no such recordings.
    """
    rng = np.random.default_rng(seed)
    voices: dict[str, dict[int, list[np.ndarray]]] = {}
    for path in sorted((FSDD / "test").glob("*_*_*.wav")):
        digit, speaker, _ = path.stem.split("_")
        samples, rate = soundfile.read(path, dtype="float32")
        clip = soxr.resample(samples, rate, RATE)
        voices.setdefault(speaker, {}).setdefault(int(digit), []).append(clip)
    if not voices:
        raise FileNotFoundError(f"no recordings named digit_speaker_index.wav in {FSDD / 'test'}")
    names, sentences, total = list(voices), list[Sentence](), 0.0
    while total < seconds:
        voice = voices[names[rng.integers(len(names))]]
        parts, words, position = list[np.ndarray](), list[Word](), 0
        for digit in rng.integers(0, 10, rng.integers(1, 9)).tolist():
            if parts:
                pause = _hiss(round(rng.uniform(0.05, 0.6) * RATE), rng)
                parts.append(pause)
                position += len(pause)
            clip = voice[digit][rng.integers(len(voice[digit]))]
            words.append(Word(DIGITS[digit], position / RATE, (position + len(clip)) / RATE))
            parts.append(_scaled(clip))
            position += len(clip)
        sentences.append(Sentence(np.concatenate(parts), tuple(words)))
        total += position / RATE + sum(PAUSES) / 2
    return sentences


def english_sentences(seconds: float, seed: int) -> list[Sentence]:
    """Sentences of `samples/english`, spoken by festival at several speeds, `seconds` in all.

    Raises:
        FileNotFoundError: festival is not installed.
    """
    rng = np.random.default_rng(seed)
    texts = json.loads((ROOT / "samples/english/transcripts.json").read_text()).values()
    spoken = _festival([one for text in texts for one in re.split(r"(?<=[.!?])\s+", text)])
    sentences, total = list[Sentence](), 0.0
    while total < seconds:
        for index in rng.permutation(len(spoken)).tolist():
            speed = rng.uniform(0.9, 1.1)
            one = spoken[index]
            waveform = soxr.resample(one.waveform, RATE * speed, RATE)
            words = tuple(Word(word.text, word.start / speed, word.end / speed) for word in one.words)
            sentences.append(Sentence(waveform, words))
            total += len(waveform) / RATE + sum(PAUSES) / 2
            if total >= seconds:
                break
    return sentences


def alone(sentence: Sentence, seed: int) -> np.ndarray:
    """Recording of a sentence alone, float32 [samples], with a short pause on either side."""
    rng = np.random.default_rng(seed)
    return np.concatenate([_margin(rng), sentence.waveform, _margin(rng)])


def write_joined(sentences: Sequence[Sentence], path: Path, seed: int) -> tuple[list[Word], float]:
    """Write all sentences to one file with pauses of random lengths between them.

    Returns:
        Words with times in the file, and its duration in seconds.
    """
    rng = np.random.default_rng(seed)
    words, position = list[Word](), 0
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for sentence in sentences:
            pause = _hiss(round(rng.uniform(*PAUSES) * RATE), rng)
            file.write(np.concatenate([pause, sentence.waveform]).clip(-1, 1))
            position += len(pause)
            begin = position / RATE
            words += [Word(one.text, begin + one.start, begin + one.end) for one in sentence.words]
            position += len(sentence.waveform)
        file.write(_margin(rng))
    return words, position / RATE + MARGIN


def _festival(texts: Sequence[str]) -> list[Sentence]:
    """Speak texts in one run of festival, which prints the times of their words."""
    with TemporaryDirectory() as folder:
        calls = [f'(speak {json.dumps(text)} "{folder}/{number}.wav")' for number, text in enumerate(texts)]
        script = Path(folder, "script.scm")
        script.write_text(_SCHEME + "\n".join(calls))
        said = subprocess.run(["festival", "-b", str(script)], check=True, capture_output=True, text=True)
        sentences = list[Sentence]()
        for number, lines in enumerate(said.stdout.strip().split("\n\n")):
            samples, rate = soundfile.read(f"{folder}/{number}.wav", dtype="float32")
            words = [line.split() for line in lines.splitlines()]
            spoken = tuple(Word(text, float(start), float(end)) for text, start, end in words)
            sentences.append(_trimmed(Sentence(_scaled(soxr.resample(samples, rate, RATE)), spoken)))
    return sentences


def _trimmed(sentence: Sentence) -> Sentence:
    """Sentence without the synthesizer's silence before and after its words."""
    begin = sentence.words[0].start
    span = slice(round(begin * RATE), round(sentence.words[-1].end * RATE))
    words = tuple(Word(one.text, one.start - begin, one.end - begin) for one in sentence.words)
    return Sentence(sentence.waveform[span], words)


def _scaled(waveform: np.ndarray) -> np.ndarray:
    """Speech at the same level, whoever speaks."""
    return waveform * np.float32(_LEVEL / max(float(np.sqrt(np.mean(np.square(waveform)))), 1e-6))


def _margin(rng: np.random.Generator) -> np.ndarray:
    return _hiss(round(MARGIN * RATE), rng)


def _hiss(count: int, rng: np.random.Generator) -> np.ndarray:
    return HISS * rng.standard_normal(count, dtype=np.float32)
