"""An engine with Whisper on a GPU that takes no time: its start compiles and records all that it needs.

The script runs in a process of its own, because a stand-in for CUDA stays.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from whisper_checkpoints import write_whisper_checkpoint

import tritone
from tritone.engine.config import EngineConfig
from tritone.engine.gpu import memory
from tritone.engine.gpu.memory import encode_size
from tritone.engine.gpu.warm_up import warm_up_options
from tritone.kernels.attention.kv_cache import PAGE_SIZE
from tritone.scheduler.request import GenerationOptions

ROOT = Path(__file__).parents[3]
SCRIPT = """
import json, sys
import numpy as np
import torch

sys.path.insert(0, sys.argv[1])
from bench import fake_gpu
fake_gpu.install()
torch.set_num_threads(1)

import tritone
from bench.common.whisper_models import build_whisper, whisper_processor
from bench.engine import endings

endings.install()
name = "whisper-tiny"
model = build_whisper(name, torch.device("cuda"), torch.float16)
noise = 0.1 * np.random.default_rng(0).standard_normal(70 * 16_000).astype(np.float32)
short, long = [noise[: 16_000 * seconds] for seconds in (1, 9, 29, 30)], [noise] * 2
calls = [
    ({}, short), ({"language": "de"}, short), ({"return_timestamps": True}, short), ({}, long),
    ({"windows": "pauses", "condition_on_prev_tokens": True}, long),
    ({"prompt_ids": [50361, *range(5, 105)], "condition_on_prev_tokens": True}, [*short, *long]),
    ({"num_beams": 3, "return_timestamps": True}, short),
    ({"temperature": (0.0, 0.5), "logprob_threshold": -0.5, "no_speech_threshold": 0.6}, [*short, *long]),
]
config = tritone.EngineConfig(num_rows=16)
with tritone.Engine(model, processor=whisper_processor(name), config=config) as engine:
    found, before = [], fake_gpu.counts().blocking
    start = engine.stats().graphs
    for options, sources in calls:
        results = [handle.result(60) for handle in [engine.submit(one, **options) for one in sources]]
        stats = engine.stats()
        found.append([stats.compiled, stats.graphs - start, fake_gpu.counts().blocking - before])
print(json.dumps(found))
"""


@pytest.mark.skipif(torch.version.cuda is not None, reason="stands in for CUDA in a CPU build of torch")
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_nothing_is_compiled_and_no_usual_step_recorded_once_the_engine_is_ready(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(script), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    compiled, recorded, blocking = zip(*found, strict=True)
    assert not any(compiled)
    assert not any(recorded[:6]), "a user's own rules are recorded when they come up"
    assert recorded[6] > 0
    assert not any(blocking)


def test_options_of_the_warm_up_keep_the_prompt_and_go_beyond_it() -> None:
    options = GenerationOptions(
        max_length=60, prompt_tokens=(1, 2, 3, 4, 5, 6, 7, 8), choices=(2, 3), no_speech_token=9
    )
    for one in warm_up_options(options, 8):
        assert one.prompt == options.prompt
        assert (one.choices, one.no_speech_token) == (options.choices, options.no_speech_token)
        assert len(one.prompt) + 3 <= one.max_length < 60
        assert one.min_length in (0, len(one.prompt) + 2)


@pytest.mark.parametrize("heads", [None, [[1, 0]]])
def test_the_cache_leaves_memory_for_encoder_outputs_that_are_kept_for_times_of_words(
    heads: list[list[int]] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def pages_in(free: int, fraction: float, page_bytes: int, **bytes_of: int) -> int:
        given.append(page_bytes)
        return 10

    monkeypatch.setattr(memory, "pages_in", pages_in)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 1 << 30))
    folder = write_whisper_checkpoint(tmp_path, **({} if heads is None else {"alignment_heads": heads}))
    with tritone.Engine(folder, device="cpu") as engine:
        task, width = engine._task, engine.model.config.d_model
        memory.fitting_pages(engine.model, 8, 0, EngineConfig(), task._kept_width())
    keys_and_values = 2 * engine.model.config.decoder_layers * width
    assert given == [(keys_and_values + (0 if heads is None else width)) * PAGE_SIZE * 4]


class Model:
    """Model whose every input has 1,500 positions."""

    device = torch.device("cpu")

    @staticmethod
    def encoder_length(frames: int) -> int:
        assert frames == 3_000
        return 1_500


class FrontEnd:
    sampling_rate = 16_000

    @staticmethod
    def frame_count(samples: int) -> int:
        assert 0 < samples <= 480_000
        return 3_000


@pytest.mark.parametrize(
    ("budget", "recordings"), [(1_500, 1), (33_792, 23), (100, 1), (1_000, 1), (3_000, 2)]
)
def test_memory_is_measured_on_whole_recordings_where_each_has_the_same_positions(
    budget: int, recordings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    def peak(model: Any, front_end: Any, lengths: list[int]) -> int:
        asked.append(lengths)
        return 1_000 * len(lengths)

    monkeypatch.setattr(memory, "_peak_of_encoding", peak)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 1 << 30))
    size = encode_size(Model(), FrontEnd(), 30.0, budget, EngineConfig())
    assert [len(lengths) for lengths in asked] == [recordings]
    assert size.peak == 1_000 * recordings
    assert size.budget == budget
