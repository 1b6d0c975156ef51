"""Values derived from weights, made once."""

import gc
import weakref

import pytest
import torch

from tritone.kernels.conv.subsample import conv_subsample_cpu
from tritone.kernels.linear.gemm import linear_cpu
from tritone.kernels.runtime import weight_cache
from tritone.kernels.runtime.packing import cumulative
from tritone.kernels.runtime.weight_cache import cached


def doubled(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach() * 2


def scaled_sum(*weights: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
    return sum(weights) * factor


@torch.no_grad()
def test_a_value_is_made_once_and_anew_when_the_weight_changes():
    weight = torch.nn.Parameter(torch.ones(3))
    first = cached(doubled, weight)
    assert cached(doubled, weight) is first
    weight.add_(1.0)
    assert cached(doubled, weight).tolist() == [4.0, 4.0, 4.0]
    weight.data = torch.zeros(3)  # as `module.to` does
    assert cached(doubled, weight).tolist() == [0.0, 0.0, 0.0]


@torch.no_grad()
def test_a_value_of_several_weights_follows_each_of_them_and_the_options():
    one, other = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    first = cached(scaled_sum, one, other, factor=2.0)
    assert cached(scaled_sum, one, other, factor=2.0) is first
    assert cached(scaled_sum, other, one, factor=2.0) is not first
    assert cached(scaled_sum, one, factor=2.0).tolist() == [2.0, 2.0]
    assert cached(scaled_sum, one, other, factor=3.0).tolist() == [6.0, 6.0]
    assert cached(scaled_sum, one, other, factor=2.0) is first
    other.add_(1.0)
    assert cached(scaled_sum, one, other, factor=2.0).tolist() == [6.0, 6.0]
    assert cached(scaled_sum, one, torch.zeros(2), factor=2.0).tolist() == [2.0, 2.0]


def test_a_value_has_gradients_where_they_are_wanted():
    weight = torch.nn.Parameter(torch.ones(2))
    with torch.inference_mode():
        value = cached(scaled_sum, weight)
    assert not value.requires_grad
    assert cached(scaled_sum, weight).requires_grad
    with torch.no_grad():
        assert cached(scaled_sum, weight) is value
    (value * torch.nn.Parameter(torch.ones(2))).sum().backward()  # made in inference mode it could not


def test_no_entry_outlives_its_weights():
    weights = [torch.ones(2), torch.ones(2)]
    gc.collect()
    before = len(weight_cache._entries)
    value = weakref.ref(cached(scaled_sum, *weights))
    assert len(weight_cache._entries) == before + 1
    del weights[1]
    gc.collect()
    assert value() is None
    del weights[0]
    gc.collect()
    assert len(weight_cache._entries) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("taps", [1, 3])
def test_a_weight_that_operations_have_used_is_freed(taps, dtype):
    with torch.inference_mode():
        weights = [torch.randn(32, 16, taps).to(dtype), torch.randn(32, 16).to(dtype)]
        conv_subsample_cpu(torch.randn(9, 16).to(dtype), cumulative([4, 5]), weights[0], None)
        linear_cpu(torch.randn(9, 16).to(dtype), weights[1])
        seen = [weakref.ref(weight) for weight in weights]
    del weights
    gc.collect()
    assert [weight() for weight in seen] == [None, None]
