"""The kernel of layer norm and RMS norm against their references."""

import pytest
import torch
import torch.nn.functional as F

from tritone.kernels.norm.layer_norm import layer_norm, layer_norm_reference, rms_norm, rms_norm_reference

# One number; primes; both sides of a block's edge; rows wider than a program holds, in whole blocks and not.
SHAPES = [(1, 1), (2, 7), (9, 144), (17, 256), (3, 257), (5, 1023), (2, 4096), (2, 4099), (1, 8192)]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}


def operands(rows: int, width: int, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    """hidden, weight, bias, residual."""
    generator = torch.Generator().manual_seed(rows * 1009 + width)
    hidden = torch.randn(rows, width, generator=generator) * 3 + 1
    weight, bias = torch.randn(width, generator=generator), torch.randn(width, generator=generator)
    given = [hidden, weight, bias, torch.randn(rows, width, generator=generator)]
    return [tensor.to(device=device, dtype=dtype) for tensor in given]


def close(out: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> None:
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_equals_the_reference(shape, dtype, kernels_on):
    hidden, weight, bias, residual = operands(*shape, dtype, kernels_on)
    total = hidden + residual
    wide, exact = hidden.double(), total.double()
    close(layer_norm(hidden, weight, bias), layer_norm_reference(wide, weight.double(), bias.double()), dtype)
    close(rms_norm(hidden, weight), rms_norm_reference(wide, weight.double()), dtype)

    out, handed_on = layer_norm(hidden, weight, bias, residual=residual)
    assert torch.equal(handed_on, total)
    close(out, layer_norm_reference(exact, weight.double(), bias.double()), dtype)
    out, handed_on = rms_norm(hidden, weight, residual=residual)
    assert torch.equal(handed_on, total)
    close(out, rms_norm_reference(exact, weight.double()), dtype)


@pytest.mark.parametrize("activation", ["gelu", "relu", "sigmoid"])
@pytest.mark.parametrize("width", [40, 5000])
def test_an_activation_comes_after_the_norm(width, activation, dtype, kernels_on):
    hidden, weight, bias, residual = operands(3, width, dtype, kernels_on)
    total, wide = hidden + residual, (weight.double(), bias.double())
    out = layer_norm(hidden, weight, bias, activation=activation)
    close(out, layer_norm_reference(hidden.double(), *wide, activation=activation), dtype)
    out, handed_on = layer_norm(hidden, weight, bias, residual=residual, activation=activation)
    close(out, layer_norm_reference(total.double(), *wide, activation=activation), dtype)
    assert torch.equal(handed_on, total)


@pytest.mark.parametrize("width", [5, 32, 300])
def test_rms_norm_is_torchs_and_its_residual_that_of_the_specification(width):
    hidden, weight, _, residual = operands(4, width, torch.float64, "cpu")
    wanted = F.rms_norm(hidden + residual, (width,), weight, 1e-3)
    out, total = rms_norm(hidden, weight, 1e-3, residual=residual)
    torch.testing.assert_close(out, wanted)
    assert torch.equal(total, hidden + residual)
    torch.testing.assert_close(rms_norm(hidden + residual, weight, 1e-3), wanted)


@pytest.mark.parametrize("width", [7, 144, 1000, 4100])
def test_a_row_has_the_same_bits_alone_and_anywhere(width, dtype, kernels_on):
    hidden, weight, bias, residual = operands(19, width, dtype, kernels_on)
    whole, total = layer_norm(hidden, weight, bias, residual=residual)
    plain, root = layer_norm(total, weight, bias), rms_norm(total, weight)
    assert torch.equal(plain, whole)  # fused or not
    for start, end in [(0, 1), (9, 10), (18, 19), (3, 12)]:
        # From an address of its own: a slice of few columns does not begin at a multiple of 16 bytes.
        part = layer_norm(hidden[start:end], weight, bias, residual=residual[start:end])
        assert torch.equal(part[0], whole[start:end])
        assert torch.equal(part[1], total[start:end])
        assert torch.equal(rms_norm(total[start:end], weight), root[start:end])


@pytest.mark.parametrize("width", [40, 4100])
def test_rows_of_no_number_stay_so_and_reach_no_others(width, kernels_on):
    hidden, weight, bias, _ = operands(5, width, torch.float32, kernels_on)
    clean = layer_norm(hidden, weight, bias)
    hidden[1, 3], hidden[2, 0] = float("inf"), float("nan")
    out = layer_norm(hidden, weight, bias)
    assert bool(out[1:3].isnan().all())
    assert torch.equal(out[[0, 3, 4]], clean[[0, 3, 4]])


@pytest.mark.parametrize("width", [144, 5000])
def test_the_variance_holds_far_from_zero(width, kernels_on):
    """The mean of squares less the square of the mean would have no correct digit here."""
    hidden, weight, bias, _ = operands(3, width, torch.float32, kernels_on)
    hidden += 10_000
    wanted = layer_norm_reference(hidden.double(), weight.double(), bias.double())
    torch.testing.assert_close(layer_norm(hidden, weight, bias).double(), wanted, rtol=5e-3, atol=5e-3)


def test_a_constant_row_becomes_the_bias_and_eps_is_the_callers(kernels_on):
    _, weight, bias, _ = operands(1, 9, torch.float32, kernels_on)
    constant = torch.full((2, 9), 3.0, device=kernels_on)
    assert torch.equal(layer_norm(constant, weight, bias), bias.expand(2, 9))
    hidden = torch.tensor([[1.0, -1.0]], device=kernels_on)
    one, zero = torch.ones(2, device=kernels_on), torch.zeros(2, device=kernels_on)
    torch.testing.assert_close(layer_norm(hidden, one, zero, eps=3.0), hidden / 2)
    torch.testing.assert_close(rms_norm(hidden, one, eps=3.0), hidden / 2)


def test_columns_of_a_wider_tensor_and_leading_dimensions_are_taken(kernels_on):
    hidden, weight, bias, _ = operands(6, 40, torch.float32, kernels_on)
    want = layer_norm(hidden[:, 3:35].contiguous(), weight[:32], bias[:32])
    assert torch.equal(layer_norm(hidden[:, 3:35], weight[:32], bias[:32]), want)
    threefold = hidden[:, 3:35].reshape(2, 3, 32)
    assert torch.equal(layer_norm(threefold, weight[:32], bias[:32]), want.view(2, 3, 32))


def test_no_rows_give_no_rows(kernels_on):
    _, weight, bias, _ = operands(1, 6, torch.float32, kernels_on)
    assert layer_norm(torch.empty(0, 6, device=kernels_on), weight, bias).shape == (0, 6)


def test_shapes_that_do_not_fit_are_refused_with_both():
    with pytest.raises(ValueError, match="rms_norm of width 4 got rows of 5"):
        rms_norm(torch.ones(2, 5), torch.ones(4))
    with pytest.raises(ValueError, match=r"hidden's shape \[2, 5\], got \[1, 5\]"):
        layer_norm(torch.ones(2, 5), torch.ones(5), torch.ones(5), residual=torch.ones(1, 5))
    with pytest.raises(ValueError, match="unknown activation 'golu'; one of gelu"):
        layer_norm(torch.ones(2, 5), torch.ones(5), torch.ones(5), activation="golu")
