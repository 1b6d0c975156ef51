"""Invariance of whole recordings: 40 files of 1 to 90 s with mixed options, alone and together in an engine.

Compared with `torch.equal` and `==`: the scores of every step of every window, texts, segments and words.
What peers change on such files: `python -m bench.cpu --model whisper --tasks batch`
"""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from whisper_checkpoints import recording, write_whisper_checkpoint

import tritone
from tritone.scheduler.request import Request, RequestOutput

COUNT = 40
DURATIONS = [1 + 89 * index / (COUNT - 1) for index in range(COUNT)]  # seconds
THRESHOLDS = {"logprob_threshold": -2.0, "compression_ratio_threshold": 1.8, "no_speech_threshold": 0.9}
# One after the other, so that neighbors differ; each recording keeps its own wherever it runs.
MODES: list[dict[str, Any]] = [
    {},  # the language is detected
    {"num_beams": 3, "language": "de", "word_timestamps": True},
    {"windows": "pauses", "return_timestamps": True},
    {"condition_on_prev_tokens": True, "word_timestamps": True},
    {"temperature": [0.0, 0.6, 0.9], "seed": 7, **THRESHOLDS},
    {"num_beams": 2, "patience": 2.0, "prompt": "once upon a time", "condition_on_prev_tokens": True},
    {"temperature": 0.8, "seed": 3, "windows": "pauses", "word_timestamps": True},
    {"hotwords": "two three", "language": "fr", "task": "translate", "return_timestamps": True},
    {"num_beams": 2, "temperature": [0.0, 0.9], "seed": 1, "patience": 0.5, **THRESHOLDS},
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    return write_whisper_checkpoint(folder, seconds=30, alignment_heads=[[0, 1], [1, 0]], max_length=16)


class Scores:
    """Scores of every step of an engine's requests, by recording, in the order in which these end."""

    def __init__(self, engine: tritone.Engine) -> None:
        worker = engine._worker
        self._worker, self._submit, self._handle = worker, worker._loop.submit, worker._handle
        self._found: dict[Any, dict[int, list[tuple[Tensor, ...]]]] = {}
        worker._loop.submit = self.submit  # type: ignore[method-assign]
        worker._handle = self.handle  # type: ignore[method-assign]

    def submit(self, request: Request) -> None:
        self._submit(replace(request, keep_scores=True))

    def handle(self, event: Any) -> None:
        if isinstance(event, RequestOutput):
            job = self._worker._in_loop[event.request_id]
            key = job.running[event.request_id]
            self._found.setdefault(job.handle, {}).setdefault(key, []).append(event.scores)
        self._handle(event)

    def of(self, handle: Any) -> dict[int, list[tuple[Tensor, ...]]]:
        """Scores of a recording's requests by its pieces; of each request those of every step."""
        return self._found[handle]


def same(given: dict[int, list[tuple[Tensor, ...]]], wanted: dict[int, list[tuple[Tensor, ...]]]) -> bool:
    if given.keys() != wanted.keys() or any(len(given[key]) != len(wanted[key]) for key in wanted):
        return False
    return all(
        len(mine) == len(other) and all(map(torch.equal, mine, other))
        for key in wanted
        for mine, other in zip(given[key], wanted[key], strict=True)
    )


@pytest.mark.slow
def test_recordings_of_1_to_90_s_give_alone_what_they_give_together(checkpoint: Path) -> None:
    files = [
        (recording(seconds, index), MODES[index % len(MODES)]) for index, seconds in enumerate(DURATIONS)
    ]
    order = random.Random(5).sample(range(COUNT), COUNT)
    with tritone.Engine(checkpoint, device="cpu") as engine:
        scores = Scores(engine)
        alone = []
        for sound, options in files:
            handle = engine.submit(sound, **options)
            alone.append((handle.result(), scores.of(handle)))
        handles = {index: engine.submit(files[index][0], **files[index][1]) for index in order}
        together = [(handles[index].result(), scores.of(handles[index])) for index in range(COUNT)]
    changed = [
        (index, MODES[index % len(MODES)])
        for index, ((mine, own), (other, wanted)) in enumerate(zip(together, alone, strict=True))
        if mine != other or not same(own, wanted)
    ]
    assert not changed
    windows = [sum(map(len, own.values())) for _, own in alone]
    assert sum(windows) > 2 * COUNT  # some decoded again at higher temperatures
    assert len({result.text for result, _ in alone}) > COUNT * 0.7
    assert len({result.language for result, _ in alone}) > 1
    assert sum(bool(result.words) for result, _ in alone) > COUNT / 5
    assert all(result.segments for result, _ in alone[-8:])
