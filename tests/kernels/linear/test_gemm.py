"""GEMM with bias, activation, residual and limit: reference, CPU version and kernel."""

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import by_device, check_bits_of_rows, close, drawn, near, refused, wide
from torch import Tensor

from tritone.kernels.linear.gemm import ACTIVATIONS, linear, linear_cpu, linear_reference
from tritone.kernels.runtime.launch import recorded

# rows, K, N; the last two in the block sizes of an encoder's products, beyond one tile each way.
SHAPES = [(1, 1, 1), (2, 7, 5), (7, 17, 3), (33, 144, 36), (17, 80, 96), (129, 64, 131), (65, 96, 144)]
CPU_SHAPES = [
    (1, 1, 1),
    (1, 144, 36),
    (2, 7, 5),
    (7, 17, 3),
    (15, 80, 31),
    (16, 33, 16),
    (17, 130, 67),
    (97, 64, 128),
]
RUNS = [linear, linear_cpu, linear_reference]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def operands(
    rows: int, width: int, outputs: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> list[Tensor]:
    """hidden, weight, bias, residual."""
    shapes = (rows, width), (outputs, width), (outputs,), (rows, outputs)
    given = drawn(*shapes, seed=rows * 10_007 + width * 101 + outputs)
    given[1] /= width**0.5
    return [tensor.to(device=device, dtype=dtype) for tensor in given]


def exact(hidden, weight, bias=None, residual=None, **options) -> Tensor:
    """The reference in float64."""
    *given, residual = wide(hidden, weight, bias, residual)
    return linear_reference(*given, residual=residual, **options)


@pytest.mark.parametrize("phase", ["encode", "decode"])
@by_device("shape", CPU_SHAPES, SHAPES)
def test_a_product_gets_its_bias_and_its_residual(shape, phase, dtype, device):
    hidden, weight, bias, residual = operands(*shape, dtype, device)
    product = hidden.double() @ weight.double().T
    for given_bias in (None, bias):
        for given_residual in (None, residual):
            wanted = product if given_bias is None else product + bias.double()
            wanted = wanted if given_residual is None else wanted + residual.double()
            for run in RUNS if device == "cpu" else [linear, linear_reference]:
                out = run(hidden, weight, given_bias, residual=given_residual, phase=phase)
                assert out.shape == wanted.shape
                near(out, wanted, dtype, TOLERANCE)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_the_activation_comes_after_the_bias_and_before_the_residual(name):
    hidden, weight, bias, residual = operands(5, 9, 4)
    activation = {"gelu_new": lambda x: F.gelu(x, approximate="tanh"), "swish": F.silu}.get(
        name, ACTIVATIONS[name]
    )
    wanted = activation(F.linear(hidden, weight, bias)) + residual
    for run in RUNS:
        torch.testing.assert_close(run(hidden, weight, bias, activation=name, residual=residual), wanted)


@pytest.mark.parametrize("name", [*sorted(ACTIVATIONS), "glu"])
def test_activation_residual_and_limit_in_their_order(name, dtype, device):
    hidden, weight, bias, residual = operands(19, 48, 38, dtype, device)
    residual = residual[:, :19].contiguous() if name == "glu" else residual
    options = {"activation": name, "limit": 1.25}
    out = linear(hidden, weight, bias, residual=residual, **options)
    wanted = exact(hidden, weight, bias, residual, **options)
    close(out, wanted, TOLERANCE[dtype])
    assert float(out.abs().max()) == 1.25


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_an_activation_holds_far_out_too(name, device):
    far = [-200.0, -90.0, -20.0, -3.0, -1e-4, 0.0, 1e-4, 3.0, 20.0, 90.0, 200.0, -1.0, 1.0]
    hidden, eye = torch.tensor([far], device=device), torch.eye(13, device=device)
    wanted = linear_reference(hidden, eye, activation=name)
    torch.testing.assert_close(linear(hidden, eye, activation=name), wanted, rtol=1e-5, atol=2e-6)


def test_exact_gelu_errs_by_a_few_units_in_the_last_place(kernels_on):
    far = torch.linspace(-12, 12, 4096, device=kernels_on).view(-1, 16)
    out = linear(far, torch.eye(16, device=kernels_on), activation="gelu")
    wanted = F.gelu(far.double())
    torch.testing.assert_close(out.double(), wanted, rtol=3e-7, atol=6e-8)
    ends = torch.full((1, 1), float("inf"), device=kernels_on)
    assert float(linear(ends, ends.new_ones(1, 1), activation="gelu")) == float("inf")


@pytest.mark.parametrize(
    ("activation", "form"), [("gelu", "gelu"), ("gelu_new", "tanh_gelu"), ("tanh", "curved")]
)
def test_large_tiles_have_gelu_as_a_constant(activation, form, kernels_on):
    hidden, weight, bias, residual = operands(5, 16, 32, torch.float16, kernels_on)
    for others in ({}, {"residual": residual}):
        with recorded() as cases:
            out = linear(hidden, weight, bias, activation=activation, **others)
        assert [case.key[:2] for case in cases] == [("encode", form)]
        close(out, exact(hidden, weight, bias, *others.values(), activation=activation), 2e-3)


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


@pytest.mark.parametrize("phase", ["encode", "decode"])
@pytest.mark.parametrize(("width", "outputs"), [(80, 48), (37, 12)])
@pytest.mark.parametrize("activation", ["gelu", "glu"])
def test_on_kernels_a_row_has_the_same_bits_alone_and_anywhere(
    activation, width, outputs, phase, dtype, kernels_on
):
    hidden, weight, bias, _ = operands(140, width, outputs, dtype, kernels_on)

    def run(rows: slice) -> list[Tensor]:
        # From an address of its own: a slice of few columns does not begin at a multiple of 16 bytes.
        return [linear(hidden[rows], weight, bias, activation=activation, phase=phase)]

    check_bits_of_rows(140, run, (1, 33, 90))


def test_rows_of_no_number_stay_so_and_reach_no_others(device):
    hidden, weight, bias, residual = operands(5, 20, 6, device=device)
    clean = linear(hidden, weight, bias, residual=residual, limit=3.0)
    hidden[2] = float("nan")
    out = linear(hidden, weight, bias, residual=residual, limit=3.0)
    assert bool(out[2].isnan().all())
    others = [0, 1, 3, 4]
    assert torch.equal(out[others], clean[others])


def test_glu_multiplies_the_first_half_by_the_sigmoid_of_the_second():
    hidden, weight, bias, residual = operands(19, 9, 8)
    values, gate = F.linear(hidden, weight, bias).chunk(2, dim=-1)
    wanted = values * gate.sigmoid() + residual[:, :4]
    for run in RUNS:
        out = run(hidden, weight, bias, activation="glu", residual=residual[:, :4])
        torch.testing.assert_close(out, wanted)
        alone = run(hidden[7:8], weight, bias, activation="glu", residual=residual[7:8, :4])
        torch.testing.assert_close(alone, wanted[7:8])
    with pytest.raises(ValueError, match="glu halves the outputs; 7 cannot be halved"):
        linear(hidden, weight[:7], activation="glu")


def test_a_limit_clamps_what_the_residual_made():
    hidden, weight, bias, residual = operands(19, 9, 8)
    wanted = (F.linear(hidden, weight, bias) + residual).clamp(-0.5, 0.5)
    for run in RUNS:
        torch.testing.assert_close(run(hidden, weight, bias, residual=residual, limit=0.5), wanted)


def test_no_rows_give_no_rows(device):
    _, weight, bias, _ = operands(1, 6, 4, device=device)
    assert linear(torch.empty(0, 6, device=device), weight, bias).shape == (0, 4)


def test_a_gradient_is_that_of_the_reference():
    hidden, weight, bias, residual = (tensor.double().requires_grad_() for tensor in operands(3, 5, 4))

    def run(*given):
        return linear(*given[:3], activation="tanh", residual=given[3])

    assert torch.autograd.gradcheck(run, (hidden, weight, bias, residual))


def test_what_does_not_fit_is_refused_with_what_does():
    hidden, weight = torch.ones(2, 6), torch.ones(3, 6)
    refused("unknown phase 'prefill'; one of encode, decode", linear, hidden, weight, phase="prefill")
    refused(r"linear takes \[rows, 6\], got \[2, 5\]", linear, hidden[:, :5], weight)
    refused(r"linear takes \[rows, 6\], got \[1, 2, 6\]", linear, hidden[None], weight)
    refused(r"unknown activation 'mish'; one of gelu, .*relu", linear, hidden, weight, activation="mish")
