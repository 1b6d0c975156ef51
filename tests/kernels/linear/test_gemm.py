"""GEMM with bias, activation, residual and limit: the reference and the CPU version."""

import pytest
import torch
import torch.nn.functional as F

from tritone.kernels.linear.gemm import ACTIVATIONS, linear, linear_cpu, linear_reference

SHAPES = [
    (1, 1, 1),
    (1, 144, 36),
    (2, 7, 5),
    (7, 17, 3),
    (15, 80, 31),
    (16, 33, 16),
    (17, 130, 67),
    (97, 64, 128),
]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def operands(
    rows: int, width: int, outputs: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows * 10_007 + width * 101 + outputs)
    hidden = torch.randn(rows, width, generator=generator)
    weight = torch.randn(outputs, width, generator=generator) / width**0.5
    bias = torch.randn(outputs, generator=generator)
    residual = torch.randn(rows, outputs, generator=generator)
    return hidden.to(dtype), weight.to(dtype), bias.to(dtype), residual.to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_cpu_path_equals_the_reference(shape, dtype):
    hidden, weight, bias, residual = operands(*shape, dtype)
    exact = hidden.double() @ weight.double().T
    for given_bias in (None, bias):
        for given_residual in (None, residual):
            wanted = exact if given_bias is None else exact + bias.double()
            wanted = wanted if given_residual is None else wanted + residual.double()
            for run in (linear, linear_cpu, linear_reference):
                out = run(hidden, weight, given_bias, residual=given_residual)
                assert out.dtype == dtype
                assert out.shape == wanted.shape
                torch.testing.assert_close(out.double(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_the_activation_comes_after_the_bias_and_before_the_residual(name):
    hidden, weight, bias, residual = operands(5, 9, 4)
    activation = {"gelu_new": lambda x: F.gelu(x, approximate="tanh"), "swish": F.silu}.get(
        name, ACTIVATIONS[name]
    )
    wanted = activation(F.linear(hidden, weight, bias)) + residual
    for run in (linear, linear_cpu, linear_reference):
        torch.testing.assert_close(run(hidden, weight, bias, activation=name, residual=residual), wanted)


def test_no_operand_is_written_to():
    given = operands(3, 5, 4)
    before = [tensor.clone() for tensor in given]
    linear(*given[:3], activation="relu", residual=given[3])
    assert all(torch.equal(tensor, old) for tensor, old in zip(given, before, strict=True))


WIDTHS = [(144, 144), (144, 576), (576, 144), (256, 2048), (37, 101), (144, 1000), (25, 6), (37, 1), (768, 2)]


@pytest.mark.parametrize("shape", WIDTHS, ids=str)
def test_a_row_has_the_same_bits_in_a_call_of_any_number_of_rows(shape):
    width, outputs = shape
    hidden, weight, bias, residual = operands(300, width, outputs)
    whole = linear(hidden, weight, bias, residual=residual)
    for rows in (*range(1, 41), 63, 64, 65, 100, 127, 255):
        for start in {0, 7, 300 - rows}:
            # A copy begins at another address than the rows had: narrow products may depend on that.
            part_of = slice(start, min(start + rows, 300))
            part = linear(hidden[part_of].clone(), weight, bias, residual=residual[part_of])
            assert torch.equal(part, whole[part_of]), f"{rows} rows from {start} on"


@pytest.mark.parametrize("threads", [3], indirect=True)  # they split whole vectors
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("outputs", [3, 37, 512])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_a_row_has_the_same_bits_after_any_activation(name, outputs, dtype, threads):
    hidden, weight, bias, _ = operands(600, 16, outputs, dtype)
    whole = linear(hidden, weight, bias, activation=name)
    for rows in (1, 2, 3, 15, 16, 17, 100, 401):
        for start in (0, 7, 600 - rows):
            part_of = slice(start, start + rows)
            part = linear(hidden[part_of], weight, bias, activation=name)
            assert torch.equal(part, whole[part_of]), f"{rows} rows from {start} on"


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_an_activation_of_the_cpu_path_is_that_of_the_reference_far_out_too(name):
    hidden = torch.tensor([[-200.0, -90.0, -20.0, -3.0, -1e-4, 0.0, 1e-4, 3.0, 20.0, 90.0, 200.0, -1.0, 1.0]])
    eye = torch.eye(13)
    wanted = linear_reference(hidden, eye, activation=name)
    torch.testing.assert_close(linear_cpu(hidden, eye, activation=name), wanted, rtol=1e-5, atol=2e-6)


def test_glu_multiplies_the_first_half_by_the_sigmoid_of_the_second():
    hidden, weight, bias, residual = operands(19, 9, 8)
    values, gate = F.linear(hidden, weight, bias).chunk(2, dim=-1)
    wanted = values * gate.sigmoid() + residual[:, :4]
    for run in (linear, linear_cpu, linear_reference):
        out = run(hidden, weight, bias, activation="glu", residual=residual[:, :4])
        torch.testing.assert_close(out, wanted)
        alone = run(hidden[7:8], weight, bias, activation="glu", residual=residual[7:8, :4])
        torch.testing.assert_close(alone, wanted[7:8])
    with pytest.raises(ValueError, match="glu halves the outputs; 7 cannot be halved"):
        linear(hidden, weight[:7], activation="glu")


def test_a_limit_clamps_what_the_residual_made():
    hidden, weight, bias, residual = operands(19, 9, 8)
    wanted = (F.linear(hidden, weight, bias) + residual).clamp(-0.5, 0.5)
    for run in (linear, linear_cpu, linear_reference):
        torch.testing.assert_close(run(hidden, weight, bias, residual=residual, limit=0.5), wanted)


def test_an_unknown_phase_is_refused():
    with pytest.raises(ValueError, match="unknown phase 'prefill'; one of encode, decode"):
        linear(torch.ones(2, 6), torch.ones(3, 6), phase="prefill")


def test_no_rows_give_no_rows():
    _, weight, bias, _ = operands(1, 6, 3)
    assert linear(torch.empty(0, 6), weight, bias).shape == (0, 3)


def test_a_gradient_is_that_of_the_reference():
    hidden, weight, bias, residual = (tensor.double().requires_grad_() for tensor in operands(3, 5, 4))

    def run(*given):
        return linear(*given[:3], activation="tanh", residual=given[3])

    assert torch.autograd.gradcheck(run, (hidden, weight, bias, residual))


def test_a_width_that_does_not_fit_is_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"linear takes \[rows, 6\], got \[2, 5\]"):
        linear(torch.ones(2, 5), torch.ones(3, 6))
    with pytest.raises(ValueError, match=r"linear takes \[rows, 6\], got \[1, 2, 6\]"):
        linear(torch.ones(1, 2, 6), torch.ones(3, 6))


def test_an_unknown_activation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown activation 'mish'; one of gelu, .*relu"):
        linear(torch.ones(2, 6), torch.ones(3, 6), activation="mish")
