"""Layer norm and RMS norm: reference, CPU version and kernel."""

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import check_bits_of_rows, close, drawn, near, refused, wide
from torch import Tensor

from tritone.kernels.linear.activation import ACTIVATIONS
from tritone.kernels.norm.layer_norm import layer_norm, layer_norm_reference, rms_norm, rms_norm_reference

# One number; primes; both sides of a block's edge; rows wider than a program holds, in whole blocks and not.
SHAPES = [(1, 1), (1, 144), (2, 7), (9, 144), (13, 17), (16, 64), (17, 256), (3, 257), (31, 1023)]
SHAPES += [(2, 4096), (2, 4099), (1, 8192)]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}


def operands(rows: int, width: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[Tensor]:
    """hidden, weight, bias, residual."""
    shapes = (rows, width), (width,), (width,), (rows, width)
    hidden, *others = drawn(*shapes, seed=rows * 1009 + width)
    return [tensor.to(device, dtype) for tensor in (hidden * 3 + 1, *others)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_row_has_its_own_mean_and_population_variance_taken_out(shape, dtype, device):
    hidden, weight, bias, _ = operands(*shape, dtype, device)
    exact = hidden.double()
    centered = exact - exact.mean(-1, keepdim=True)
    wanted = centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    wanted = wanted * weight.double() + bias.double()
    for run in (layer_norm, layer_norm_reference):
        near(run(hidden, weight, bias), wanted, dtype, TOLERANCE)
    near(rms_norm(hidden, weight), rms_norm_reference(exact, weight.double()), dtype, TOLERANCE)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_residual_is_added_first_and_the_sum_handed_on(shape, dtype, device):
    hidden, weight, bias, residual = operands(*shape, dtype, device)
    total = hidden + residual
    for run, reference, given in (
        (layer_norm, layer_norm_reference, [weight, bias]),
        (rms_norm, rms_norm_reference, [weight]),
    ):
        out, handed_on = run(hidden, *given, residual=residual)
        assert torch.equal(handed_on, total)
        near(out, reference(*wide(total, *given)), dtype, TOLERANCE)


@pytest.mark.parametrize("activation", ["gelu", "relu", "sigmoid"])
@pytest.mark.parametrize("width", [40, 5000])
def test_an_activation_comes_after_the_norm(width, activation, dtype, device):
    hidden, weight, bias, residual = operands(3, width, dtype, device)
    out = layer_norm(hidden, weight, bias, activation=activation)
    near(out, layer_norm_reference(*wide(hidden, weight, bias), activation=activation), dtype, TOLERANCE)
    out, total = layer_norm(hidden, weight, bias, residual=residual, activation=activation)
    near(out, layer_norm_reference(*wide(total, weight, bias), activation=activation), dtype, TOLERANCE)
    assert torch.equal(total, hidden + residual)


@pytest.mark.parametrize("width", [5, 32, 300])
def test_rms_norm_is_torchs_and_its_residual_that_of_the_specification(width):
    hidden, weight, _, residual = operands(4, width, torch.float64)
    wanted = F.rms_norm(hidden + residual, (width,), weight, 1e-3)
    out, total = rms_norm(hidden, weight, 1e-3, residual=residual)
    torch.testing.assert_close(out, wanted)
    assert torch.equal(total, hidden + residual)
    torch.testing.assert_close(rms_norm(hidden + residual, weight, 1e-3), wanted)


@pytest.mark.parametrize("width", [1, 7, 144, 256, 1000, 1023, 4100])
def test_a_row_has_the_same_bits_alone_and_anywhere(width, dtype, device):
    rows, counts = (67, (1, 2, 3, 16, 33)) if width < 2000 else (19, (1, 9))
    hidden, weight, bias, residual = operands(rows, width, dtype, device)

    def run(part: slice) -> list[Tensor]:
        # From an address of its own: a slice of few columns does not begin at a multiple of 16 bytes.
        out, total = layer_norm(hidden[part].clone(), weight, bias, residual=residual[part])
        assert torch.equal(layer_norm(total, weight, bias), out), "fused or not"
        return [out, total, rms_norm(total, weight)]

    check_bits_of_rows(rows, run, counts)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_a_row_has_the_same_bits_anywhere_after_an_activation(activation):
    hidden, weight, bias, _ = operands(67, 37)

    def run(part: slice) -> list[Tensor]:
        return [layer_norm(hidden[part], weight, bias, activation=activation)]

    close(
        run(slice(0, 67))[0], layer_norm_reference(*wide(hidden, weight, bias), activation=activation), 1e-5
    )
    check_bits_of_rows(67, run, (1, 4, 64))


@pytest.mark.parametrize("width", [40, 4100])
def test_rows_of_no_number_stay_so_and_reach_no_others(width, device):
    hidden, weight, bias, _ = operands(5, width, device=device)
    clean = layer_norm(hidden, weight, bias)
    hidden[1, 3], hidden[2, 0] = float("inf"), float("nan")
    out = layer_norm(hidden, weight, bias)
    assert bool(out[1:3].isnan().all())
    assert torch.equal(out[[0, 3, 4]], clean[[0, 3, 4]])


@pytest.mark.parametrize("width", [144, 5000])
def test_the_variance_holds_far_from_zero(width, device):
    """The mean of squares less the square of the mean would have no correct digit here."""
    hidden, weight, bias, _ = operands(3, width, device=device)
    hidden += 10_000
    close(layer_norm(hidden, weight, bias), layer_norm_reference(*wide(hidden, weight, bias)), 5e-3)


def test_a_constant_row_becomes_the_bias_and_eps_is_the_callers(device):
    _, weight, bias, _ = operands(1, 9, device=device)
    constant = torch.full((2, 9), 3.0, device=device)
    assert torch.equal(layer_norm(constant, weight, bias), bias.expand(2, 9))
    hidden = torch.tensor([[1.0, -1.0]], device=device)
    one, zero = torch.ones(2, device=device), torch.zeros(2, device=device)
    torch.testing.assert_close(layer_norm(hidden, one, zero, eps=3.0), hidden / 2)
    torch.testing.assert_close(rms_norm(hidden, one, eps=3.0), hidden / 2)


def test_columns_of_a_wider_tensor_and_leading_dimensions_are_taken(device):
    hidden, weight, bias, _ = operands(6, 40, device=device)
    want = layer_norm(hidden[:, 3:35].contiguous(), weight[:32], bias[:32])
    assert torch.equal(layer_norm(hidden[:, 3:35], weight[:32], bias[:32]), want)
    threefold = hidden[:, 3:35].reshape(2, 3, 32)
    assert torch.equal(layer_norm(threefold, weight[:32], bias[:32]), want.view(2, 3, 32))


def test_no_rows_give_no_rows(device):
    _, weight, bias, _ = operands(1, 6, device=device)
    assert layer_norm(torch.empty(0, 6, device=device), weight, bias).shape == (0, 6)


def test_a_gradient_is_that_of_the_specification():
    given = tuple(tensor.double().requires_grad_() for tensor in operands(3, 5)[:3])
    assert torch.autograd.gradcheck(layer_norm, given)


def test_shapes_that_do_not_fit_are_refused_with_both():
    hidden, ones = torch.ones(2, 5), torch.ones(5)
    refused("layer_norm of width 4 got rows of 5", layer_norm, hidden, ones[:4], ones[:4])
    refused("rms_norm of width 4 got rows of 5", rms_norm, hidden, ones[:4])
    problem = r"hidden's shape \[2, 5\], got \[1, 5\]"
    refused(problem, layer_norm, hidden, ones, ones, residual=hidden[:1])
    problem = "unknown activation 'golu'; one of gelu"
    refused(problem, layer_norm, hidden, ones, ones, activation="golu")
