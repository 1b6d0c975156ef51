"""The engine on a CUDA device; skipped where there is none."""

import json
from pathlib import Path

import pytest
import torch

import tritone

SAMPLES = Path(__file__).parents[1] / "samples"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("num_beams", [1, 4])
def test_the_digits_model_reads_the_samples_on_the_gpu(dtype: str, num_beams: int) -> None:
    wanted = json.loads((SAMPLES / "transcripts.json").read_text())
    with tritone.Engine(device="cuda", dtype=dtype) as engine:
        results = engine.transcribe([SAMPLES / name for name in wanted], num_beams=num_beams)
        texts = [result.text for result in results]
    assert texts == list(wanted.values())


def test_the_gpu_and_the_cpu_decode_the_same_tokens() -> None:
    files = sorted(SAMPLES.glob("*.wav"))
    tokens = []
    for device in ("cpu", "cuda"):
        with tritone.Engine(device=device) as engine:
            tokens.append([result.token_ids for result in engine.transcribe(files, num_beams=3)])
    assert tokens[0] == tokens[1]
