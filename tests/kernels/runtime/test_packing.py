"""Offsets of packed batches, and the way from padded tensors and back."""

import pytest
import torch

from tritone.kernels.runtime.packing import (
    check_cu_seqlens,
    cumulative,
    pack,
    positions_within,
    spans,
    unpack,
)

LENGTHS = [[], [0], [1], [5], [0, 0], [3, 0, 7], [16], [15, 16, 17], [1] * 37, [0, 4, 0]]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_offsets_begin_at_zero_and_rise_by_each_length(lengths):
    offsets = cumulative(lengths)
    assert offsets.dtype == torch.int32
    assert offsets.tolist() == [sum(lengths[:index]) for index in range(len(lengths) + 1)]
    assert torch.equal(offsets, cumulative(torch.tensor(lengths, dtype=torch.int64)))
    check_cu_seqlens(offsets, sum(lengths), "offsets")


@pytest.mark.parametrize("lengths", LENGTHS)
def test_spans_are_where_each_sequence_lies(lengths):
    found = spans(cumulative(lengths))
    assert [end - start for start, end in found] == lengths
    assert [token for start, end in found for token in range(start, end)] == list(range(sum(lengths)))


def test_offsets_made_of_numbers_are_not_read_back_from_another_device():
    elsewhere = cumulative([3, 0, 7], "meta")  # whose values nobody can read
    assert elsewhere.device.type == "meta"
    assert spans(elsewhere) == [(0, 3), (3, 3), (3, 10)]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_positions_count_from_zero_in_every_sequence(lengths):
    positions = positions_within(cumulative(lengths), sum(lengths))
    assert positions.tolist() == [place for length in lengths for place in range(length)]


def test_a_packed_tensor_holds_the_real_rows_in_order_and_unpacks_to_zeros_elsewhere():
    torch.manual_seed(0)
    padded = torch.randn(3, 4, 2)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    packed = pack(padded, mask)
    assert torch.equal(packed, torch.cat([padded[0, :2], padded[1]]))
    assert torch.equal(unpack(packed, mask), padded * mask[:, :, None])


def test_packing_lets_gradients_through_to_the_real_rows_alone():
    padded = torch.ones(2, 3, requires_grad=True)
    mask = torch.tensor([[True, False, False], [True, True, False]])
    unpack(pack(padded, mask), mask).sum().backward()
    assert torch.equal(padded.grad, mask.float())


@pytest.mark.parametrize(
    ("offsets", "problem"),
    [
        (torch.tensor([0, 3]), "must be an int32 tensor of length n \\+ 1, got torch.int64"),
        (torch.tensor([[0, 3]], dtype=torch.int32), "of shape \\(1, 2\\)"),
        (torch.tensor([], dtype=torch.int32), "of shape \\(0,\\)"),
        (torch.tensor([1, 3], dtype=torch.int32), "must rise from 0 to the 3 packed rows"),
        (torch.tensor([0, 2], dtype=torch.int32), "must rise from 0 to the 3 packed rows"),
        (torch.tensor([0, 2, 1, 3], dtype=torch.int32), "must rise from 0 to the 3 packed rows"),
    ],
)
def test_offsets_that_do_not_describe_the_rows_are_refused_by_name(offsets, problem):
    with pytest.raises(ValueError, match=f"cu_frames.*{problem}"):
        check_cu_seqlens(offsets, 3, "cu_frames")
