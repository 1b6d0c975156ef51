"""Mean pooling: the masked mean of a padded batch, in torch and by the kernels."""

import pytest
import torch
from kernel_checks import check_bits_in_any_batch, drawn, near, refused
from torch import Tensor

from tritone.kernels.pooling.mean_pool import (
    mean_pool,
    mean_pool_kernel,
    mean_pool_pieces_kernel,
    mean_pool_reference,
)
from tritone.kernels.runtime.launch import recorded
from tritone.kernels.runtime.packing import cumulative

# Lengths and width: no rows and one; primes. A piece has 64 rows, a mean takes 16 pieces at a time, a block
# has 128 columns.
SHAPES = [
    ([1], 1),
    ([0], 3),
    ([2, 0, 17], 5),
    ([63, 64, 65], 16),
    ([64, 63, 65], 24),
    ([0, 129, 0], 96),
    ([127, 128, 129, 1], 23),
    ([0, 0, 300, 0], 128),
    ([70, 3], 127),
    ([5, 190], 144),
    ([1023, 1], 7),
    ([1024, 1025], 16),
    ([521, 1, 1031], 33),
    ([61, 2179], 3),
]
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float64: 1e-14}


def rows_of(
    lengths: list[int], width: int, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0
) -> Tensor:
    (rows,) = drawn((sum(lengths), width), seed=seed)
    return (rows * 3 + 1).to(device, dtype)


def check(out: Tensor, hidden: Tensor, lengths: list[int]) -> None:
    """The output is the mean over a padded batch with a mask, in float64."""
    padded = torch.nn.utils.rnn.pad_sequence(list(hidden.double().split(lengths)), batch_first=True)
    mask = torch.arange(padded.shape[1])[None] < torch.tensor(lengths)[:, None]
    mask = mask.to(hidden.device)
    near(out, (padded * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True), hidden.dtype, TOLERANCE)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_masked_mean_of_the_padded_batch(shape, dtype, device):
    lengths, width = shape
    for hidden in (rows_of(lengths, width, dtype, device), rows_of(lengths, width, torch.float64)):
        check(mean_pool(hidden, cumulative(lengths, hidden.device)), hidden, lengths)


def test_a_mean_takes_two_launches(kernels_on):
    hidden, cu_seqlens = rows_of([2, 0, 17], 5, device=kernels_on), cumulative([2, 0, 17], kernels_on)
    with recorded() as cases:
        mean_pool(hidden, cu_seqlens)
    assert [case.kernel.name for case in cases] == ["mean_pool_pieces_kernel", "mean_pool_kernel"]


@pytest.mark.parametrize("count", [2, 3, 32, 33, 65])
def test_each_of_many_sequences_finds_its_own_rows(count, kernels_on):
    """Any number of sequences, with empty ones inside and at both ends, and one of many pieces."""
    lengths = [(index * 37) % 71 * (index % 3 > 0) for index in range(count)]
    lengths[count // 2] = 200
    hidden = rows_of(lengths, 2, device=kernels_on)
    out = mean_pool(hidden, cumulative(lengths, kernels_on))
    check(out, hidden, lengths)
    assert out.isnan().all(1).tolist() == [length == 0 for length in lengths]


def test_a_sequence_without_rows_has_no_mean_and_spoils_no_other(device):
    hidden = rows_of([3, 4], 5, device=device)
    out = mean_pool(hidden, cumulative([0, 3, 0, 4, 0], device))
    assert bool(out[::2].isnan().all())
    assert torch.equal(out[1::2], mean_pool(hidden, cumulative([3, 4], device)))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's, of infinities
@pytest.mark.parametrize("width", [1, 7, 24, 96, 144, 768])
def test_a_sequence_has_the_same_bits_alone_first_in_the_middle_and_last(width, dtype, device):
    lengths = [283, 333, 1, 37, 150, 0, 64, 1_501 if width < 100 else 401]
    pieces = [rows_of([length], width, dtype, device, length) for length in lengths]
    pieces[3].fill_(float("nan"))
    pieces[4][7] = float("inf")
    check_bits_in_any_batch(pieces, mean_pool)


@pytest.mark.parametrize("length", [1, 2, 15, 100, 1000])
@pytest.mark.parametrize("width", [1, 3, 16, 31, 100])
def test_the_bits_are_the_same_wherever_the_rows_begin_in_memory(width, length):
    """So pooling needs no copies to aligned memory, unlike products by MKL."""
    rows = rows_of([length], width)
    expected = mean_pool(rows, cumulative([length]))
    for past in range(16):
        moved = torch.empty(past + rows.numel())[past:].view(rows.shape).copy_(rows)
        assert torch.equal(mean_pool(moved, cumulative([length])), expected)


@pytest.mark.parametrize("width", [5, 130])
def test_only_sums_and_means_are_written(width, kernels_on):
    """Unused pieces, here two of four, stay unwritten."""
    hidden, cu_seqlens = rows_of([64, 64], width, device=kernels_on), cumulative([64, 64], kernels_on)
    sums, means = (torch.full((count * width + 256,), -7.0, device=kernels_on) for count in (4, 2))
    blocks = (width + 127) // 128
    for kernel, count, arguments in (
        (mean_pool_pieces_kernel, 4, (hidden, cu_seqlens, sums, 2, 1, width)),
        (mean_pool_kernel, 2, (sums, cu_seqlens, means, width)),
    ):
        case = kernel.case(hidden.device, torch.float32, "any")
        assert case.constant("BLOCK") == 128
        case.launch((count * blocks,), *arguments)
    check(means[: 2 * width].view(2, width), hidden, [64, 64])
    assert bool((means[2 * width :] == -7).all())
    assert (sums[: 4 * width].view(4, width) == -7).all(1).tolist() == [False, True, False, True]
    assert (sums[: 4 * width].view(4, width) == -7).any(1).tolist() == [False, True, False, True]
    assert bool((sums[4 * width :] == -7).all())


def test_half_numbers_are_summed_in_single_ones(device):
    for count, value in ((3000, 0.1), (5000, 0.1), (100, 60_000.0)):
        rows = torch.full((count, 2), value, dtype=torch.float16, device=device)
        assert torch.equal(mean_pool(rows, cumulative([count], device)), rows[:1])


def test_rows_may_lie_apart_or_at_any_address(kernels_on):
    hidden, cu_seqlens = rows_of([19, 70], 7, device=kernels_on), cumulative([19, 70], kernels_on)
    expected = mean_pool(hidden, cu_seqlens)
    assert torch.equal(mean_pool(hidden.t().contiguous().t(), cu_seqlens), expected)
    shifted = torch.cat([hidden[:1], hidden])[1:]
    assert torch.equal(mean_pool(shifted, cu_seqlens), expected)


def test_what_needs_a_gradient_goes_to_the_reference(kernels_on):
    hidden = rows_of([4, 6], 3, device=kernels_on).requires_grad_()
    with recorded() as cases:
        mean_pool(hidden, cumulative([4, 6], kernels_on)).sum().backward()
    assert cases == []
    wanted = torch.tensor([1 / 4] * 4 + [1 / 6] * 6, device=kernels_on)[:, None].expand(10, 3)
    torch.testing.assert_close(hidden.grad, wanted)


def test_gradients_are_those_of_finite_differences():
    hidden = rows_of([5, 1, 8], 3).double().requires_grad_()
    cu_seqlens = cumulative([5, 1, 8])
    assert torch.autograd.gradcheck(lambda rows: mean_pool(rows, cu_seqlens), hidden)
    (weights,) = drawn((3, 3), seed=2)
    single = hidden.detach().float().requires_grad_()
    (mean_pool(single, cu_seqlens) * weights).sum().backward()
    wanted = torch.repeat_interleave(
        weights / torch.tensor([[5.0], [1.0], [8.0]]), torch.tensor([5, 1, 8]), 0
    )
    torch.testing.assert_close(single.grad, wanted)


def test_gradients_stay_finite_beside_a_sequence_without_rows():
    hidden = rows_of([4], 3).requires_grad_()
    mean_pool_reference(hidden, cumulative([0, 4, 0]))[1].sum().backward()
    assert torch.equal(hidden.grad, torch.full((4, 3), 0.25))


def test_no_sequences_give_no_rows(device):
    assert mean_pool(torch.zeros(0, 80, device=device), cumulative([], device)).shape == (0, 80)


def test_a_bad_argument_is_named():
    hidden, cu_seqlens = torch.zeros(4, 2), cumulative([4])
    refused(r"\[tokens, width\], got torch.float32 of shape \[4\]", mean_pool, torch.zeros(4), cu_seqlens)
    refused(r"floating-point .* got torch.int64 of shape \[4, 2\]", mean_pool, hidden.long(), cu_seqlens)
    refused("cu_seqlens must rise from 0 to the 4 packed rows", mean_pool, hidden, cumulative([3]))
    refused("cu_seqlens must be an int32 tensor", mean_pool, hidden, torch.tensor([0, 4]))
