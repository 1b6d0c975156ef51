"""The engine on a CUDA device; skipped where there is none."""

import json
from pathlib import Path

import pytest
import torch
from tritone.kernels.packing import cumulative, spans

import tritone

SAMPLES = Path(__file__).parents[1] / "samples"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def _files() -> None:
    """A machine with a GPU may be without the libraries that read audio files."""
    pytest.importorskip("soundfile")
    pytest.importorskip("soxr")


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("num_beams", [1, 4])
def test_the_digits_model_reads_the_samples_on_the_gpu(dtype: str, num_beams: int) -> None:
    wanted = json.loads((SAMPLES / "transcripts.json").read_text())
    with tritone.Engine(device="cuda", dtype=dtype) as engine:
        results = engine.transcribe([SAMPLES / name for name in wanted], num_beams=num_beams)
        texts = [result.text for result in results]
    assert texts == list(wanted.values())


@pytest.mark.usefixtures("_files")
def test_the_gpu_and_the_cpu_decode_the_same_tokens() -> None:
    files = sorted(SAMPLES.glob("*.wav"))
    tokens = []
    for device in ("cpu", "cuda"):
        with tritone.Engine(device=device) as engine:
            tokens.append([result.token_ids for result in engine.transcribe(files, num_beams=3)])
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_hidden_states_are_the_same_to_the_bit_in_any_batch(dtype: str) -> None:
    generator = torch.Generator().manual_seed(0)
    model = tritone.Speech2TextForConditionalGeneration(tritone.Speech2TextConfig(encoder_layers=3))
    model = model.to(device="cuda", dtype=getattr(torch, dtype)).eval()
    recordings = [
        torch.randn(frames, 80, generator=generator) for frames in (1, 30, 333, 1600, 47, 3000, 128)
    ]
    recordings = [recording.to("cuda") for recording in recordings]

    @torch.inference_mode()
    def encoded(order: list[int]) -> list[torch.Tensor]:
        features = torch.cat([recordings[index] for index in order])
        hidden, cu_tokens = model.encode(features, cumulative([len(recordings[i]) for i in order], "cuda"))
        return [hidden[start:end] for start, end in spans(cu_tokens)]

    alone = [encoded([index])[0] for index in range(len(recordings))]
    for order in ([0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [3, 0, 5], [2, 2, 2]):
        for index, hidden in zip(order, encoded(order), strict=True):
            assert torch.equal(hidden, alone[index])
