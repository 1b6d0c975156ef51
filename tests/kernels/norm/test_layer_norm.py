"""Layer normalization, row by row."""

import pytest
import torch

from tritone.kernels.linear.activation import ACTIVATIONS
from tritone.kernels.norm.layer_norm import layer_norm, layer_norm_reference

SHAPES = [(1, 1), (1, 144), (2, 7), (13, 17), (16, 64), (31, 1023)]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}


def operands(rows: int, width: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows * 1009 + width)
    hidden = torch.randn(rows, width, generator=generator) * 3 + 1
    weight, bias = torch.randn(width, generator=generator), torch.randn(width, generator=generator)
    return hidden.to(dtype), weight.to(dtype), bias.to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_row_has_its_own_mean_and_population_variance_taken_out(shape, dtype):
    hidden, weight, bias = operands(*shape, dtype)
    exact = hidden.double()
    centered = exact - exact.mean(-1, keepdim=True)
    wanted = (
        centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double() + bias.double()
    )
    for run in (layer_norm, layer_norm_reference):
        out = run(hidden, weight, bias)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_a_constant_row_becomes_the_bias_and_eps_is_the_callers():
    _, weight, bias = operands(1, 9)
    assert torch.equal(layer_norm(torch.full((2, 9), 3.0), weight, bias), bias.expand(2, 9))
    hidden = torch.tensor([[1.0, -1.0]])
    assert torch.allclose(layer_norm(hidden, torch.ones(2), torch.zeros(2), eps=3.0), hidden / 2)


@pytest.mark.parametrize("width", [1, 7, 144, 256, 1023])
def test_a_row_has_the_same_bits_alone_first_in_the_middle_and_last(width):
    hidden, weight, bias = operands(67, width)
    whole = layer_norm(hidden, weight, bias)
    for rows in (1, 2, 3, 16, 33):
        for start in (0, 29, 67 - rows):
            part = hidden[start : start + rows].clone()  # a copy lies at another address
            assert torch.equal(layer_norm(part, weight, bias), whole[start : start + rows])


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_a_row_has_the_same_bits_anywhere_after_an_activation(activation):
    hidden, weight, bias = operands(67, 37)
    whole = layer_norm(hidden, weight, bias, activation=activation)
    wanted = layer_norm_reference(hidden.double(), weight.double(), bias.double(), activation=activation)
    torch.testing.assert_close(whole.double(), wanted, rtol=1e-5, atol=1e-5)
    for start, end in [(0, 1), (29, 33), (3, 67)]:
        assert torch.equal(
            layer_norm(hidden[start:end], weight, bias, activation=activation), whole[start:end]
        )


def test_a_gradient_is_that_of_the_specification():
    given = tuple(tensor.double().requires_grad_() for tensor in operands(3, 5))
    assert torch.autograd.gradcheck(layer_norm, given)


def test_a_width_that_does_not_fit_is_refused_with_both():
    with pytest.raises(ValueError, match="layer_norm of width 4 got rows of 5"):
        layer_norm(torch.ones(2, 5), torch.ones(4), torch.ones(4))
