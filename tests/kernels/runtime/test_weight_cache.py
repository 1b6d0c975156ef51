"""What is made of weights once and kept."""

import gc
import weakref

import pytest
import torch

from tritone.kernels.conv.subsample import conv_subsample_cpu
from tritone.kernels.linear.gemm import linear_cpu
from tritone.kernels.runtime.packing import cumulative
from tritone.kernels.runtime.weight_cache import kept


def doubled(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach() * 2


def test_it_is_made_once_and_anew_when_the_weight_changes():
    weight = torch.nn.Parameter(torch.ones(3))
    first = kept(weight, doubled)
    assert kept(weight, doubled) is first
    with torch.no_grad():
        weight.add_(1.0)
    assert kept(weight, doubled).tolist() == [4.0, 4.0, 4.0]
    weight.data = torch.zeros(3)  # as `module.to` does
    assert kept(weight, doubled).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("taps", [1, 3])
def test_a_weight_that_operations_have_used_is_not_kept_alive(taps, dtype):
    with torch.inference_mode():
        weights = [torch.randn(32, 16, taps).to(dtype), torch.randn(32, 16).to(dtype)]
        conv_subsample_cpu(torch.randn(9, 16).to(dtype), cumulative([4, 5]), weights[0], None)
        linear_cpu(torch.randn(9, 16).to(dtype), weights[1])
        seen = [weakref.ref(weight) for weight in weights]
    del weights
    gc.collect()
    assert [weight() for weight in seen] == [None, None]
