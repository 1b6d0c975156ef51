"""Kernels on the CPU at Speech2Text small's shapes: 32 recordings of 1.5 to 20 s, one thread."""

import pytest
import torch

from tritone.kernels.attention.flash import flash_attention
from tritone.kernels.features.fbank import fbank
from tritone.kernels.linear.gemm import linear
from tritone.kernels.norm.layer_norm import layer_norm

D_MODEL, HEADS, FFN, VOCABULARY = 256, 4, 2048, 10_000


@pytest.fixture(scope="module")
def cu_seqlens() -> torch.Tensor:
    """Offsets of 32 packed sequences of 38 to 503 tokens."""
    lengths = torch.linspace(38, 503, 32).int()
    return torch.cat([torch.zeros(1, dtype=torch.int32), lengths.cumsum(0, dtype=torch.int32)])


@pytest.fixture(scope="module")
def hidden(cu_seqlens: torch.Tensor) -> torch.Tensor:
    return torch.randn(int(cu_seqlens[-1]), D_MODEL, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("rows", "outputs"), [(8656, FFN), (32, FFN), (32, VOCABULARY)])
def test_linear(benchmark, rows: int, outputs: int) -> None:
    """Encoder rows, and a decode step's rows, through a feed-forward layer and the map to the vocabulary."""
    hidden, weight, bias = torch.randn(rows, D_MODEL), torch.randn(outputs, D_MODEL), torch.randn(outputs)
    assert benchmark(linear, hidden, weight, bias).shape == (rows, outputs)


def test_layer_norm(benchmark, hidden: torch.Tensor) -> None:
    weight, bias = torch.ones(D_MODEL), torch.zeros(D_MODEL)
    assert benchmark(layer_norm, hidden, weight, bias).shape == hidden.shape


def test_flash_attention(benchmark, hidden: torch.Tensor, cu_seqlens: torch.Tensor) -> None:
    heads = hidden.view(-1, HEADS, D_MODEL // HEADS)
    assert benchmark(flash_attention, heads, heads, heads, cu_seqlens, cu_seqlens).shape == heads.shape


def test_fbank(benchmark) -> None:
    """80 mel bins of 10 s."""
    waveform = torch.randn(160_000, generator=torch.Generator().manual_seed(0))
    features, _ = benchmark(fbank, waveform, torch.tensor([0, 160_000], dtype=torch.int32))
    assert features.shape == (998, 80)
