"""The Triton kernels of mean pooling against their reference."""

import pytest
import torch
from torch import Tensor

from tritone.kernels.pooling.mean_pool import (
    mean_pool,
    mean_pool_kernel,
    mean_pool_pieces_kernel,
    mean_pool_reference,
)
from tritone.kernels.runtime.launch import recorded
from tritone.kernels.runtime.packing import cumulative

# Lengths and width. A piece has 64 rows, a mean takes 16 pieces at a time, a block has 128 columns.
SHAPES = [
    ([1], 1),
    ([0], 3),
    ([2, 0, 17], 5),
    ([63, 64, 65], 16),
    ([127, 128, 129, 1], 23),
    ([0, 0, 300, 0], 128),
    ([70, 3], 127),
    ([5, 190], 144),
    ([1023, 1], 7),
    ([1024, 1025], 16),
    ([61, 2179], 3),
]
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def rows_of(lengths: list[int], width: int, dtype: torch.dtype, device: str, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(sum(lengths), width, generator=generator) * 3 + 1).to(device, dtype)


def close(out: Tensor, hidden: Tensor, cu_seqlens: Tensor) -> None:
    assert out.dtype == hidden.dtype
    wanted, tolerance = mean_pool_reference(hidden.double(), cu_seqlens), TOLERANCE[hidden.dtype]
    torch.testing.assert_close(out.double(), wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernels_equal_the_reference(shape, dtype, kernels_on):
    hidden, cu_seqlens = rows_of(*shape, dtype, kernels_on), cumulative(shape[0], kernels_on)
    with recorded() as cases:
        out = mean_pool(hidden, cu_seqlens)
    assert [case.kernel.name for case in cases] == ["mean_pool_pieces_kernel", "mean_pool_kernel"]
    close(out, hidden, cu_seqlens)


@pytest.mark.parametrize("count", [2, 3, 32, 33, 65])
def test_each_of_many_sequences_finds_its_own_rows(count, kernels_on):
    """Any number of sequences, with empty ones inside and at both ends, and one of many pieces."""
    lengths = [(index * 37) % 71 * (index % 3 > 0) for index in range(count)]
    lengths[count // 2] = 200
    hidden = rows_of(lengths, 2, torch.float32, kernels_on)
    cu_seqlens = cumulative(lengths, kernels_on)
    out = mean_pool(hidden, cu_seqlens)
    close(out, hidden, cu_seqlens)
    assert out.isnan().all(1).tolist() == [length == 0 for length in lengths]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's, of infinities
@pytest.mark.parametrize("width", [7, 144])
def test_a_sequence_has_the_same_bits_alone_first_in_the_middle_and_last(width, dtype, kernels_on):
    lengths = [1, 37, 150, 0, 64]
    one = rows_of([283], width, dtype, kernels_on, seed=1)
    expected = mean_pool(one, cumulative([283], kernels_on))[0]
    others = [rows_of([length], width, dtype, kernels_on, seed=length) for length in lengths]
    others[1].fill_(float("nan"))
    others[2][7] = float("inf")
    for at in range(len(lengths) + 1):
        pieces = [*others[:at], one, *others[at:]]
        out = mean_pool(torch.cat(pieces), cumulative([len(piece) for piece in pieces], kernels_on))
        assert torch.equal(out[at], expected)


@pytest.mark.parametrize("width", [5, 130])
def test_only_sums_and_means_are_written(width, kernels_on):
    """Unused pieces, here two of four, stay unwritten."""
    hidden, cu_seqlens = rows_of([64, 64], width, torch.float32, kernels_on), cumulative([64, 64], kernels_on)
    sums, means = (torch.full((count * width + 256,), -7.0, device=kernels_on) for count in (4, 2))
    blocks = (width + 127) // 128
    for kernel, count, arguments in (
        (mean_pool_pieces_kernel, 4, (hidden, cu_seqlens, sums, 2, 1, width)),
        (mean_pool_kernel, 2, (sums, cu_seqlens, means, width)),
    ):
        case = kernel.case(hidden.device, torch.float32, "any")
        assert case.constant("BLOCK") == 128
        case.launch((count * blocks,), *arguments)
    close(means[: 2 * width].view(2, width), hidden, cu_seqlens)
    assert bool((means[2 * width :] == -7).all())
    assert (sums[: 4 * width].view(4, width) == -7).all(1).tolist() == [False, True, False, True]
    assert (sums[: 4 * width].view(4, width) == -7).any(1).tolist() == [False, True, False, True]
    assert bool((sums[4 * width :] == -7).all())


def test_half_numbers_are_summed_in_single_ones(kernels_on):
    rows = torch.full((3000, 2), 0.1, dtype=torch.float16, device=kernels_on)
    assert torch.equal(mean_pool(rows, cumulative([3000], kernels_on)), rows[:1])
    huge = torch.full((100, 2), 60_000.0, dtype=torch.float16, device=kernels_on)
    assert torch.equal(mean_pool(huge, cumulative([100], kernels_on)), huge[:1])


def test_rows_may_lie_apart_or_at_any_address(kernels_on):
    hidden = rows_of([19, 70], 7, torch.float32, kernels_on)
    cu_seqlens = cumulative([19, 70], kernels_on)
    expected = mean_pool(hidden, cu_seqlens)
    assert torch.equal(mean_pool(hidden.t().contiguous().t(), cu_seqlens), expected)
    shifted = torch.cat([hidden[:1], hidden])[1:]
    assert torch.equal(mean_pool(shifted, cu_seqlens), expected)


def test_what_needs_a_gradient_goes_to_the_reference(kernels_on):
    hidden = rows_of([4, 6], 3, torch.float32, kernels_on).requires_grad_()
    with recorded() as cases:
        mean_pool(hidden, cumulative([4, 6], kernels_on)).sum().backward()
    assert cases == []
    wanted = torch.tensor([1 / 4] * 4 + [1 / 6] * 6, device=kernels_on)[:, None].expand(10, 3)
    torch.testing.assert_close(hidden.grad, wanted)


def test_no_sequences_give_no_rows(kernels_on):
    out = mean_pool(torch.zeros(0, 80, device=kernels_on), cumulative([], kernels_on))
    assert out.shape == (0, 80)
