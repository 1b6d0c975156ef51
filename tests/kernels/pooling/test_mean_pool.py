"""Mean pooling in torch: the masked mean of a padded batch, a sequence's bits, errors."""

import pytest
import torch
from torch import Tensor

from tritone.kernels.pooling.mean_pool import mean_pool, mean_pool_reference
from tritone.kernels.runtime.packing import cumulative

# One row and none; primes; both sides of 64 and of 128; wide and single columns.
SHAPES = [([1], 1), ([2, 0, 17], 5), ([64, 63, 65], 24), ([0, 129, 0], 96), ([521, 1, 1031], 33), ([0], 3)]
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float64: 1e-14}


def rows_of(lengths: list[int], width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(lengths), width, generator=generator) * 3 + 1


def masked_mean(hidden: Tensor, lengths: list[int]) -> Tensor:
    """Mean over a padded batch with a mask, in float64."""
    padded = torch.nn.utils.rnn.pad_sequence(list(hidden.double().split(lengths)), batch_first=True)
    mask = torch.arange(padded.shape[1])[None] < torch.tensor(lengths)[:, None]
    return (padded * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_masked_mean_of_the_padded_batch(shape, dtype):
    lengths, width = shape
    hidden = rows_of(lengths, width).to(dtype)
    out = mean_pool(hidden, cumulative(lengths))
    assert out.dtype == dtype
    torch.testing.assert_close(
        out.double(),
        masked_mean(hidden, lengths),
        rtol=TOLERANCE[dtype],
        atol=TOLERANCE[dtype],
        equal_nan=True,
    )


def test_a_sequence_without_rows_has_no_mean_and_spoils_no_other():
    hidden = rows_of([3, 4], 5)
    out = mean_pool(hidden, cumulative([0, 3, 0, 4, 0]))
    assert bool(out[::2].isnan().all())
    assert torch.equal(out[1::2], mean_pool(hidden, cumulative([3, 4])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [1, 7, 24, 96, 768])
def test_a_sequence_has_the_same_bits_alone_first_in_the_middle_and_last(width, dtype):
    lengths = [1, 37, 300, 0, 1_501]
    one = rows_of([333], width, seed=1).to(dtype)
    expected = mean_pool(one, cumulative([333]))[0]
    others = [rows_of([length], width, seed=length).to(dtype) for length in lengths]
    others[1].fill_(float("nan"))
    for at in range(len(lengths) + 1):
        pieces = [*others[:at], one, *others[at:]]
        out = mean_pool(torch.cat(pieces), cumulative([len(piece) for piece in pieces]))
        assert torch.equal(out[at], expected)


@pytest.mark.parametrize("length", [1, 2, 15, 100, 1000])
@pytest.mark.parametrize("width", [1, 3, 16, 31, 100])
def test_the_bits_are_the_same_wherever_the_rows_begin_in_memory(width, length):
    """So pooling needs no copies to aligned memory, unlike products by MKL."""
    rows = rows_of([length], width)
    expected = mean_pool(rows, cumulative([length]))
    for past in range(16):
        moved = torch.empty(past + rows.numel())[past:].view(rows.shape).copy_(rows)
        assert torch.equal(mean_pool(moved, cumulative([length])), expected)


def test_half_numbers_are_summed_in_single_ones():
    rows = torch.full((5000, 2), 0.1, dtype=torch.float16)
    assert torch.equal(mean_pool(rows, cumulative([5000])), rows[:1])
    huge = torch.full((100, 2), 60_000.0, dtype=torch.float16)
    assert torch.equal(mean_pool(huge, cumulative([100])), huge[:1])


def test_gradients_are_those_of_finite_differences():
    hidden = rows_of([5, 1, 8], 3).double().requires_grad_()
    cu_seqlens = cumulative([5, 1, 8])
    assert torch.autograd.gradcheck(lambda rows: mean_pool(rows, cu_seqlens), hidden)
    weights = torch.randn(3, 3, generator=torch.Generator().manual_seed(2))
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


def test_no_sequences_give_no_rows():
    assert mean_pool(torch.zeros(0, 24), cumulative([])).shape == (0, 24)


@pytest.mark.parametrize(
    ("message", "hidden", "cu_seqlens"),
    [
        (r"\[tokens, width\], got torch.float32 of shape \[4\]", torch.zeros(4), cumulative([4])),
        (r"floating-point .* got torch.int64 of shape \[4, 2\]", torch.zeros(4, 2).long(), cumulative([4])),
        ("cu_seqlens must rise from 0 to the 4 packed rows", torch.zeros(4, 2), cumulative([3])),
        ("cu_seqlens must be an int32 tensor", torch.zeros(4, 2), torch.tensor([0, 4])),
    ],
)
def test_a_bad_argument_is_named(message, hidden, cu_seqlens):
    with pytest.raises(ValueError, match=message):
        mean_pool(hidden, cu_seqlens)
