"""Promises of every attention over packed sequences: bits in any batch, no leaks, views, empty batches."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from attention_operands import biased_operands, disentangled_operands, flash_operands, relative_operands
from kernel_checks import by_device, check_bits, refused, surrounded
from torch import Tensor

from tritone.kernels.attention.biased import biased_attention, biased_weights
from tritone.kernels.attention.disentangled import disentangled_attention, disentangled_weights
from tritone.kernels.attention.flash import flash_attention
from tritone.kernels.attention.relative import (
    relative_attention,
    relative_attention_reference,
    relative_weights,
)
from tritone.kernels.runtime.packing import cumulative


class Operation(NamedTuple):
    """An attention, and the places of the packed tensors and of the offsets among its arguments."""

    run: Callable[..., Tensor]
    operands: Callable[..., list[Any]]
    packed: tuple[int, ...] = (0, 1, 2)
    offsets: tuple[int, ...] = (3,)
    options: Mapping[str, Any] = MappingProxyType({})

    def __call__(self, given: Sequence[Any]) -> Tensor:
        return self.run(*given, **self.options)


def relative(**options: Any) -> Operation:
    return Operation(relative_attention, relative_operands, (0, 1, 2, 7), options={"scale": 0.2, **options})


OPERATIONS = {
    "flash": Operation(flash_attention, flash_operands, offsets=(3, 4)),
    "flash, causal": Operation(flash_attention, flash_operands, offsets=(3, 4), options={"causal": True}),
    "flash, window": Operation(
        flash_attention, flash_operands, offsets=(3, 4), options={"causal": True, "window": 40}
    ),
    "biased": Operation(biased_attention, biased_operands, offsets=(3, 4), options={"scale": 0.2}),
    "biased, causal": Operation(
        biased_attention, biased_operands, offsets=(3, 4), options={"scale": 0.2, "causal": True}
    ),
    "disentangled": Operation(disentangled_attention, disentangled_operands, options={"scale": 0.2}),
    "relative": relative(),
    "relative, causal": relative(causal=True),
    "relative, window": relative(causal=True, window=20),
}
every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def check_attention_bits(operation: Operation, given: Sequence[Any], lengths: Sequence[list[int]]) -> None:
    """Check the bits of sequences in any batch.

    Args:
        lengths: of the sequences in each packed tensor.
    """
    pieces = [given[place].split(own) for place, own in zip(operation.packed, lengths, strict=True)]

    def run(order: Sequence[int]) -> Sequence[Tensor]:
        batch = list(given)
        counts = [[own[index] for index in order] for own in lengths]
        for place, parts in zip(operation.packed, pieces, strict=True):
            batch[place] = torch.cat([parts[index] for index in order])
        for place, own in zip(operation.offsets, counts, strict=False):
            batch[place] = cumulative(own, batch[0].device)
        if operation.operands is relative_operands:  # a table has more rows beside a longer sequence
            limit, reach = len(given[4]) // 2, max(*counts[0], 1) - 1
            batch[4] = given[4][limit - reach : limit + reach + 1]
        return operation(batch).split(counts[0])

    check_bits(len(lengths[0]), run)


CPU_LENGTHS = [1, 37, 200, 16, 131, 5, 0, 128, 2, 120, 64]


@every_operation
@by_device(
    "case",
    [(CPU_LENGTHS, size) for size in [(1, 1), (4, 36), (3, 5), (2, 64), (1, 17), (3, 20)]],
    [([1, 37, 0, 16, 70, 5], size) for size in [(2, 16), (1, 20)]],
)
def test_a_sequence_has_the_same_bits_alone_first_in_the_middle_and_last(operation, case, dtype, device):
    lengths, size = case
    given = operation.operands(lengths, *size, dtype, device)
    check_attention_bits(operation, given, [lengths] * len(operation.packed))


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name.startswith("relative")])
def test_the_reference_of_relative_attention_keeps_bits_too(name):
    operation = OPERATIONS[name]._replace(run=relative_attention_reference)
    check_attention_bits(operation, operation.operands(CPU_LENGTHS, 3, 20), [CPU_LENGTHS] * 4)


@pytest.mark.parametrize("name", ["flash", "flash, causal", "flash, window", "biased, causal"])
@pytest.mark.parametrize("size", [(2, 16), (1, 20)], ids=str)
def test_a_sequence_with_other_keys_has_the_same_bits_in_any_batch(name, size, dtype, device):
    queries, keys = [1, 37, 0, 16, 130, 5], [1, 65, 9, 0, 131, 64]
    given = OPERATIONS[name].operands(queries, *size, dtype, device, keys=keys)
    check_attention_bits(OPERATIONS[name], given, [queries, keys, keys])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("width", [16, 5])
@by_device("middle", [140], [37])
@every_operation
def test_neighbors_and_stale_memory_never_leak_in(operation, middle, width, bad, dtype, device):
    given = operation.operands([3, middle, 20], 2, width, dtype, device)
    first, last = 3, 3 + middle
    clean = operation(given)
    for tensor in given[:3]:
        tensor[:first], tensor[last:] = bad, bad
    given[:3] = (surrounded(tensor, bad) for tensor in given[:3])
    if operation.operands is relative_operands:  # distances and segments that the sequence does not have
        given[4][: 400 - middle], given[4][401 + middle :] = bad, bad
        given[7][:first], given[7][last:] = 9, 9
    out = operation(given)
    assert torch.equal(out[first:last], clean[first:last])
    assert bool(out[:first].isnan().all())


@every_operation
def test_operands_may_be_views_of_larger_tensors(operation, dtype, kernels_on):
    given = operation.operands([5, 12], 2, 16, dtype, kernels_on)
    views = [
        torch.stack([one, one], 1)[:, 1] if isinstance(one, Tensor) and one.dim() == 3 else one
        for one in given
    ]
    if operation.operands is biased_operands:
        views[5] = given[5].t().contiguous().t()
    assert torch.equal(operation(views), operation(given))


@every_operation
@pytest.mark.parametrize("lengths", [[], [0], [0, 0]], ids=str)
def test_no_tokens_give_no_rows(operation, lengths, device):
    assert operation(operation.operands(lengths, 2, 16, device=device)).shape == (0, 2, 16)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]], ids=str)
def test_no_tokens_give_no_rows_without_segments_either(lengths, device):
    given = relative_operands(lengths, 2, 16, device=device, segmented=False)
    assert relative_attention(*given, scale=1.0).shape == (0, 2, 16)


@pytest.mark.parametrize("name", ["flash", "biased", "disentangled", "relative"])
def test_heads_too_wide_are_refused_with_the_limit(name, kernels_on):
    given = OPERATIONS[name].operands([2], 1, 129, device=kernels_on)
    refused("heads of at most 128, got 129", OPERATIONS[name], given)


@pytest.mark.parametrize(
    ("name", "weights"),
    [("biased", biased_weights), ("disentangled", disentangled_weights), ("relative", relative_weights)],
)
def test_dropout_drops_weights_and_scales_the_others(name, weights):
    run, operands, _, _, options = OPERATIONS[name]
    given = operands([40], 1)
    without_value = given[:2] + given[3:]
    (plain,) = weights(*without_value, **options)
    torch.manual_seed(0)
    (dropped,) = weights(*without_value, **options, dropout=0.25)
    remaining = dropped != 0
    assert 0.65 < remaining.float().mean() < 0.85
    torch.testing.assert_close(dropped[remaining], plain[remaining] / 0.75)
    torch.manual_seed(0)
    out = run(*given, **options, dropout=0.25)
    torch.testing.assert_close(out, torch.einsum("hqk,khd->qhd", dropped, given[2]))
