"""Engines that faults are tried on, with recordings and texts and the result that each gives alone."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import soundfile
import torch
from factories import write_ctc_checkpoint, write_text_classifier
from fault_sites import Culprit

import tritone
from tritone.scheduler.loop import GenerationLoop

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples" / "digits"
CULPRIT = "culprit"  # in the name of its file, and as a text
TEXTS = ["the quick brown fox", "seven lazy dogs and cats jumps over the five", "one two three"]


@dataclass
class Subject:
    """An engine's model with three sources, the second of which is the culprit."""

    open: Callable[[], tritone.Engine]
    sources: list[Any]
    arguments: list[str]  # of the command, before the sources
    options: dict[str, Any] = field(default_factory=dict)

    def results(self, engine: tritone.Engine) -> list[Any]:
        """Result of each source, from one call."""
        verb: Any = engine.classify if engine.sampling_rate is None else engine.transcribe
        return list(verb(self.sources, **self.options))

    @cached_property
    def alone(self) -> list[Any]:
        """Result of each source with no fault."""
        with self.open() as engine:
            return [engine.submit(source, **self.options).result(60) for source in self.sources]

    @cached_property
    def culprit(self) -> Culprit:
        names = frozenset({str(self.sources[1]), CULPRIT})
        submitted = []
        submit = GenerationLoop.submit

        def seen(loop: GenerationLoop, request: Any) -> None:
            submitted.append(len(request.inputs))
            submit(loop, request)

        with patch.object(GenerationLoop, "submit", seen), self.open() as engine:
            engine.submit(self.sources[1], **self.options).result(60)
        return Culprit(names, frozenset(submitted))


@pytest.fixture(scope="session")
def subjects(tmp_path_factory) -> dict[str, Subject]:
    """Subjects by their task: "greedy", "beams", "cores", "arrays" on the digits model, "ctc", "texts"."""
    folder = tmp_path_factory.mktemp("subjects")
    recordings, arrays = [], []
    for name, sample in [
        ("first", "two_digits_16k.wav"),
        (CULPRIT, "three_digits_22k.flac"),  # alone to be resampled
        ("last", "six_digits_16k.flac"),
    ]:
        samples, rate = soundfile.read(SAMPLES / sample)
        arrays.append(samples)
        recordings.append(folder / f"{name}.wav")
        soundfile.write(recordings[-1], samples, rate)
    ctc, texts = folder / "ctc", folder / "texts"
    for checkpoint in (ctc, texts):
        checkpoint.mkdir()
    write_ctc_checkpoint(ctc)
    write_text_classifier(texts)

    def opened(model: Path | str, threads: int = 1) -> Callable[[], tritone.Engine]:
        def open() -> tritone.Engine:
            torch.set_num_threads(threads)
            try:
                return tritone.Engine(model, device="cpu")
            finally:
                torch.set_num_threads(1)

        return open

    transcribe = ["transcribe", "--device", "cpu"]
    digits = [*transcribe, "--model", "digits"]
    return {
        "greedy": Subject(opened("digits"), recordings, digits),
        # Steps in parts, in a pool of two threads.
        "cores": Subject(opened("digits", 2), recordings, [*digits, "--threads", "2"]),
        "beams": Subject(opened("digits"), recordings, [*digits, "--num-beams", "3"], {"num_beams": 3}),
        "arrays": Subject(opened("digits"), arrays, []),
        "ctc": Subject(opened(ctc), recordings, [*transcribe, "--model", str(ctc)]),
        "texts": Subject(
            opened(texts),
            TEXTS,
            ["classify", "--text", "--device", "cpu", "--model", str(texts)],
        ),
    }
