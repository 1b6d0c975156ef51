"""Linear layers behind a norm, in one launch and in two, against the norm and then the layer."""

import pytest
import torch
from kernel_checks import by_device, check_bits_of_rows, drawn, near, refused, wide
from torch import Tensor

from tritone.kernels.norm.normalized_linear import WIDEST_NORM, normalized_linear, normalized_linear_reference

# rows, K, N: ones, primes, both sides of a tile and of a norm's block, and rows too wide for one launch.
SHAPES = [(1, 1, 1), (2, 7, 5), (33, 144, 36), (31, 64, 64), (17, 80, 96), (5, 1040, 16)]
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def operands(rows: int, width: int, outputs: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """hidden with means far from 0, norm weight and bias, weight and bias."""
    shapes = (rows, width), (width,), (width,), (outputs, width), (outputs,)
    given = drawn(*shapes, seed=rows * 10_007 + width * 101 + outputs)
    given[0] = given[0] * 2 + 5
    given[3] /= width**0.5
    return [tensor.to(device=device, dtype=dtype) for tensor in given]


@pytest.mark.parametrize("centered", [True, False], ids=["layer norm", "RMS norm"])
@pytest.mark.parametrize("phase", ["encode", "decode"])
@by_device("shape", SHAPES, SHAPES)
def test_the_norm_comes_first(shape, phase, centered, dtype, device):
    hidden, gain, shift, weight, bias = operands(*shape, dtype, device)
    for activation in (None, "relu", "gelu"):
        for given_bias in (None, bias):
            norm = gain, shift if centered else None, 1e-5
            found = normalized_linear(hidden, *norm, weight, given_bias, activation=activation, phase=phase)
            exact = wide(hidden, gain, shift if centered else None, weight, given_bias)
            wanted = normalized_linear_reference(*exact[:3], 1e-5, *exact[3:], activation=activation)
            near(found, wanted, dtype, TOLERANCE)


def test_a_row_has_the_same_bits_in_a_call_of_any_number_of_rows(device):
    for width, outputs in ((144, 80), (37, 21)):
        hidden, gain, shift, weight, bias = operands(70, width, outputs, torch.float32, device)
        norm = gain, shift, 1e-5

        def run(rows: slice, given: tuple = (hidden, norm, weight, bias)) -> list[Tensor]:
            hidden, norm, weight, bias = given
            return [normalized_linear(hidden[rows].clone(), *norm, weight, bias, phase="decode")]

        check_bits_of_rows(70, run, counts=(1, 2, 17, 33))


def test_a_row_of_one_value_has_a_variance_of_0(kernels_on):
    hidden, gain, shift, weight, bias = operands(3, 64, 16, torch.float32, kernels_on)
    hidden[1] = 300.0
    out = normalized_linear(hidden, gain, shift, 1e-5, weight, bias, phase="decode")
    torch.testing.assert_close(out[1], shift @ weight.T + bias, rtol=1e-4, atol=1e-4)


def test_wide_rows_are_normalized_in_a_launch_of_their_own(kernels_on):
    assert max(width for _, width, _ in SHAPES) > WIDEST_NORM > 144


def test_what_does_not_fit_is_refused():
    hidden, gain, shift, weight, _ = operands(3, 8, 6, torch.float32, "cpu")
    refused("a norm of width 7 got", normalized_linear, hidden, gain[:7], shift[:7], 1e-5, weight)
    refused("linear takes", normalized_linear, hidden, gain, shift, 1e-5, weight[:, :7])
