"""Triton kernel of the GEMM against its reference."""

import pytest
import torch

from tritone.kernels.linear.gemm import ACTIVATIONS, linear, linear_reference

# rows, K, N; the last two in the block sizes of an encoder's products, beyond one tile each way.
SHAPES = [(1, 1, 1), (2, 7, 5), (7, 17, 3), (33, 144, 36), (17, 80, 96), (129, 64, 131), (65, 96, 144)]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def operands(rows: int, width: int, outputs: int, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(rows * 10_007 + width * 101 + outputs)
    shapes = [(rows, width), (outputs, width), (outputs,), (rows, outputs)]
    given = [torch.randn(shape, generator=generator) for shape in shapes]
    given[1] /= width**0.5
    return [tensor.to(device=device, dtype=dtype) for tensor in given]


def exact(hidden, weight, bias=None, residual=None, **options):
    """The reference in float64."""
    wide = [None if tensor is None else tensor.double() for tensor in (hidden, weight, bias, residual)]
    return linear_reference(*wide[:3], residual=wide[3], **options)


@pytest.mark.parametrize("phase", ["encode", "decode"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_equals_the_reference(shape, phase, dtype, kernels_on):
    hidden, weight, bias, residual = operands(*shape, dtype, kernels_on)
    for given_bias in (None, bias):
        for given_residual in (None, residual):
            out = linear(hidden, weight, given_bias, residual=given_residual, phase=phase)
            assert out.dtype == dtype
            wanted = exact(hidden, weight, given_bias, given_residual)
            torch.testing.assert_close(out.double(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("name", [*sorted(ACTIVATIONS), "glu"])
def test_activation_residual_and_limit_in_their_order(name, dtype, kernels_on):
    hidden, weight, bias, residual = operands(19, 48, 38, dtype, kernels_on)
    residual = residual[:, :19].contiguous() if name == "glu" else residual
    options = {"activation": name, "limit": 1.25}
    out = linear(hidden, weight, bias, residual=residual, **options)
    wanted = exact(hidden, weight, bias, residual, **options)
    torch.testing.assert_close(out.double(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert float(out.abs().max()) == 1.25


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_an_activation_holds_far_out_too(name, kernels_on):
    hidden = torch.tensor([[-200.0, -90.0, -20.0, -3.0, -1e-4, 0.0, 1e-4, 3.0, 20.0, 90.0, 200.0, 1.0]])
    eye = torch.eye(12)
    out = linear(hidden.to(kernels_on), eye.to(kernels_on), activation=name).cpu()
    torch.testing.assert_close(out, linear_reference(hidden, eye, activation=name), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("phase", ["encode", "decode"])
@pytest.mark.parametrize(("width", "outputs"), [(80, 48), (37, 11)])
@pytest.mark.parametrize("activation", ["gelu", "glu"])
def test_a_row_has_the_same_bits_alone_and_anywhere(activation, width, outputs, phase, dtype, kernels_on):
    outputs += outputs % 2
    hidden, weight, bias, _ = operands(140, width, outputs, dtype, kernels_on)
    options = {"activation": activation, "phase": phase}
    whole = linear(hidden, weight, bias, **options)
    for start, end in [(0, 1), (70, 71), (139, 140), (3, 36), (50, 140)]:
        # From an address of its own: a slice of few columns does not begin at a multiple of 16 bytes.
        assert torch.equal(linear(hidden[start:end], weight, bias, **options), whole[start:end])


def test_rows_of_no_number_stay_so_and_reach_no_others(kernels_on):
    hidden, weight, bias, residual = operands(5, 20, 6, torch.float32, kernels_on)
    clean = linear(hidden, weight, bias, residual=residual, limit=3.0)
    hidden[2] = float("nan")
    out = linear(hidden, weight, bias, residual=residual, limit=3.0)
    assert bool(out[2].isnan().all())
    others = [0, 1, 3, 4]
    assert torch.equal(out[others], clean[others])


def test_no_rows_give_no_rows(kernels_on):
    _, weight, bias, _ = operands(1, 6, 4, torch.float32, kernels_on)
    assert linear(torch.empty(0, 6, device=kernels_on), weight, bias).shape == (0, 4)
