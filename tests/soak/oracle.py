"""Requests of the soak, and the result that each gives alone on an engine without faults."""

import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import factories
import numpy as np
import soundfile

import tritone

SAMPLES = Path(__file__).parents[2] / "samples" / "digits"
TEXTS = [
    "the quick brown fox",
    "seven lazy dogs and cats jumps over the five",
    "one two three",
    ("one two", "three four"),
    "x",
]
DECODING: list[dict[str, Any]] = [
    {},
    {"num_beams": 3},
    {"num_beams": 5, "length_penalty": 0.5},
    {"do_sample": True, "seed": 7, "temperature": 1.5},
    {"do_sample": True, "seed": 8, "top_k": 5, "repetition_penalty": 1.2},
    {"max_new_tokens": 3},
    {"no_repeat_ngram_size": 2, "min_length": 4},
]


@dataclass(frozen=True)
class Request:
    """A source with its options and the result that it gives alone.

    Args:
        make: makes the source anew, since a file object is read once.
        options: generation options.
        seconds: seconds of audio.
        expected: result; None where the source is bad and must give an AudioError or TextError.
    """

    make: Callable[[], Any]
    options: dict[str, Any]
    expected: Any = None

    @property
    def seconds(self) -> float:
        return float(self.expected.duration) if self.expected is not None else 0.0


@dataclass
class Subject:
    """A model with its requests; `open` makes an engine of it."""

    name: str
    open: Callable[[], tritone.Engine]
    requests: list[Request] = field(default_factory=list)

    def add(self, sources: list[Callable[[], Any]], several: list[dict[str, Any]], good: bool = True) -> None:
        """Add requests for all sources with all options, one at a time on an engine of their own."""
        with self.open() as engine:
            for make in sources:
                for options in several:
                    expected = engine.submit(make(), **options).result(60) if good else None
                    self.requests.append(Request(make, options, expected))


def bad_files(folder: Path) -> list[Path]:
    """Recordings that cannot be read."""
    whole = (SAMPLES / "six_digits_16k.flac").read_bytes()
    files = {
        "text.wav": b"not a recording\n" * 99,
        "cut.flac": whole[: len(whole) // 2],
        "empty.mp3": b"",
        "zeros.ogg": bytes(3000),
        "header.wav": (SAMPLES / "two_digits_16k.wav").read_bytes()[:44],
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [*(folder / name for name in files), folder / "missing.wav"]


def _constant(source: Any) -> Callable[[], Any]:
    return lambda: source


def subjects(folder: Path) -> list[Subject]:
    """The digits model, a CTC model and a classifier of texts, with what their requests give."""
    recordings = sorted(path for path in SAMPLES.iterdir() if path.suffix in (".wav", ".flac"))
    forms: list[Callable[[], Any]] = [_constant(path) for path in recordings]
    for path in recordings[:3]:
        content = path.read_bytes()
        forms += [_constant(content), lambda content=content: io.BytesIO(content)]
    samples, rate = soundfile.read(recordings[0], dtype="float32")
    if rate == 16_000 and samples.ndim == 1:
        forms.append(_constant(samples))
    bad: list[Callable[[], Any]] = [_constant(path) for path in bad_files(folder)]
    bad += [_constant(np.full(16_000, np.nan, np.float32)), _constant(np.zeros(3, np.float32)), _constant(7)]

    ctc, texts = folder / "ctc", folder / "texts"
    for checkpoint in (ctc, texts):
        checkpoint.mkdir()
    factories.write_ctc_checkpoint(ctc)
    factories.write_text_classifier(texts)
    made = [
        Subject("digits", lambda: tritone.Engine("digits", device="cpu")),
        Subject("ctc", lambda: tritone.Engine(ctc, device="cpu")),
        Subject("texts", lambda: tritone.Engine(texts, device="cpu")),
    ]
    made[0].add(forms, DECODING)
    made[0].add(bad, [{}, {"num_beams": 3}], good=False)
    waveforms: list[Callable[[], Any]] = [_constant(factories.waveform(seed)) for seed in range(12)]
    made[1].add([*waveforms, *forms], [{}])
    made[1].add(bad, [{}], good=False)
    made[2].add([_constant(text) for text in TEXTS], [{}, {"top_k": 1}])
    made[2].add([_constant("one " * 99), _constant("\ud800"), _constant(7)], [{}], good=False)
    return made


def pick(subject: Subject, draw: random.Random) -> Request:
    return draw.choice(subject.requests)
