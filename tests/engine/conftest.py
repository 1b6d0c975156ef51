"""Small checkpoints, engines on them, and recordings."""

from pathlib import Path

import numpy as np
import pytest
from factories import (
    waveform,
    write_audio_classifier,
    write_checkpoint,
    write_ctc_checkpoint,
    write_text_classifier,
)
from stand_in_loop import StandInLoop

import tritone
from tritone.engine.worker import Worker


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A monolingual Speech2Text checkpoint."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def multilingual(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("multilingual"), lang_codes="mustc")


@pytest.fixture(scope="session")
def ctc_checkpoint(tmp_path_factory) -> Path:
    return write_ctc_checkpoint(tmp_path_factory.mktemp("ctc"))


@pytest.fixture(scope="session")
def lower_case_ctc_checkpoint(tmp_path_factory) -> Path:
    return write_ctc_checkpoint(tmp_path_factory.mktemp("lower"), do_lower_case=True)


@pytest.fixture(scope="session")
def audio_classifier(tmp_path_factory) -> Path:
    return write_audio_classifier(tmp_path_factory.mktemp("audio-classifier"))


@pytest.fixture(scope="session")
def text_classifier(tmp_path_factory) -> Path:
    return write_text_classifier(tmp_path_factory.mktemp("text-classifier"))


@pytest.fixture
def engine(checkpoint):
    with tritone.Engine(checkpoint, device="cpu", num_rows=8) as engine:
        yield engine


@pytest.fixture
def audio(audio_classifier):
    """An engine on the classifier of recordings."""
    with tritone.Engine(audio_classifier, device="cpu") as engine:
        yield engine


@pytest.fixture
def texts(text_classifier):
    """An engine on the classifier of texts."""
    with tritone.Engine(text_classifier, device="cpu") as engine:
        yield engine


@pytest.fixture(scope="session")
def waveforms() -> list[np.ndarray]:
    """Twenty recordings of 0.3 to 2.5 s."""
    return [waveform(seed) for seed in range(20)]


@pytest.fixture
def loop() -> StandInLoop:
    return StandInLoop()


@pytest.fixture
def worker(loop):
    """A worker on the stand-in loop, with at most four requests in flight."""
    worker = Worker(loop, max_in_flight=4)
    yield worker
    loop.go.set()
    worker.close(cancel=True)
