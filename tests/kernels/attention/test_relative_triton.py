"""The kernel of attention relative to distances and segments, against its definition in float64."""

import pytest
import torch

from tritone.kernels.attention.relative import relative_attention, relative_attention_reference
from tritone.kernels.runtime.packing import cumulative

TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 3e-2}

# Blocks are of 16 or 32 queries and as many keys.
LENGTHS = [[1], [2, 1], [13, 0, 5], [0, 7], [16, 15, 17], [32, 31, 33], [65, 3]]
# What a query sees: causal, window.
SIGHTS = [(False, None), (True, None), (True, 1), (True, 7), (True, 40)]


def operands(
    lengths: list[int],
    heads: int,
    width: int,
    limit: int,
    dtype: torch.dtype,
    device: str,
    segmented: bool = True,
) -> list[torch.Tensor | None]:
    generator = torch.Generator().manual_seed(sum(lengths) * 1009 + len(lengths) * 31 + width)
    tokens = sum(lengths)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, heads, width, generator=generator).to(device, dtype)

    given = [drawn(tokens) for _ in range(3)]
    given += [cumulative(lengths, device), drawn(2 * limit + 1), drawn(), drawn()]
    if not segmented:
        return [*given, None, None, None]
    segments = torch.randint(-1, 3, (tokens,), generator=generator, dtype=torch.int32).to(device)
    return [*given, segments, drawn(), drawn(2)]


def exact(given: list[torch.Tensor | None], **options) -> torch.Tensor:
    """The reference in float64, which tests of its own compare with loops."""
    wide = [
        tensor.double() if tensor is not None and tensor.is_floating_point() else tensor for tensor in given
    ]
    return relative_attention_reference(*wide, **options)


def check(given: list[torch.Tensor | None], scale: float = 0.2, causal=False, window=None) -> None:
    options = {"scale": scale, "causal": causal, "window": window}
    out = relative_attention(*given, **options)
    assert out.dtype == given[0].dtype
    tolerance = TOLERANCE[out.dtype]
    torch.testing.assert_close(out.double(), exact(given, **options), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [(2, 16), (3, 20)], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_every_sequence_attends_to_itself_alone(lengths, size, dtype, kernels_on):
    check(operands(lengths, *size, 80, dtype, kernels_on))


@pytest.mark.parametrize("segmented", [True, False], ids=["segments", "none"])
@pytest.mark.parametrize("sight", SIGHTS, ids=str)
@pytest.mark.parametrize("limit", [0, 9, 45])
def test_distances_sights_and_segments_of_every_kind(limit, sight, segmented, dtype, kernels_on):
    given = operands([45, 6], 2, 16, limit, dtype, kernels_on, segmented)
    check(given, causal=sight[0], window=sight[1])


@pytest.mark.parametrize("width", [1, 5, 17, 32, 36, 48, 64, 80, 127, 128])
def test_heads_of_every_width(width, dtype, kernels_on):
    check(operands([35, 0, 4], 2, width, 34, dtype, kernels_on), scale=(3 * width) ** -0.5)


def test_weights_that_are_all_of_one_key_neither_overflow_nor_vanish(dtype, kernels_on):
    given = operands([40], 1, 16, 39, dtype, kernels_on)
    query, key, value, cu_tokens, position_key, *biases, segments, segment_bias, segment_key = given
    zeros = [torch.zeros_like(bias) for bias in biases]
    position_key = torch.zeros_like(position_key)
    position_key[39] = 100.0  # distance 0
    out = relative_attention(
        torch.full_like(query, 100.0),
        torch.zeros_like(key),
        value,
        cu_tokens,
        position_key,
        *zeros,
        segments,
        torch.zeros_like(segment_bias),
        torch.zeros_like(segment_key),
        scale=1.0,
    )
    assert torch.equal(out, value)


@pytest.mark.parametrize("sight", [(False, None), (True, 20)], ids=str)
@pytest.mark.parametrize("size", [(2, 16), (1, 20)], ids=str)
def test_a_sequence_has_the_same_bits_alone_first_in_the_middle_and_last(size, sight, dtype, kernels_on):
    """Also where the table has more rows than the sequence reads, as beside a longer sequence."""
    lengths = [1, 37, 0, 16, 70, 5]
    given = operands(lengths, *size, 69, dtype, kernels_on)
    query, key, value, _, table, *biases, segments, segment_bias, segment_key = given
    pieces = list(zip(*(tensor.split(lengths) for tensor in (query, key, value, segments)), strict=True))
    options = {"scale": 0.2, "causal": sight[0], "window": sight[1]}

    def run(order: list[int], limit: int) -> list[torch.Tensor]:
        one, other, mixed, types = (
            torch.cat(parts) for parts in zip(*(pieces[i] for i in order), strict=True)
        )
        counts = [lengths[index] for index in order]
        terms = (table[69 - limit : 70 + limit], *biases, types, segment_bias, segment_key)
        out = relative_attention(one, other, mixed, cumulative(counts, kernels_on), *terms, **options)
        return list(out.split(counts))

    alone = [run([index], max(lengths[index] - 1, 0))[0] for index in range(6)]
    for order in ([5, 4, 3, 2, 1, 0], [2, 4, 0, 5, 1, 3], [3, 1]):
        for index, out in zip(order, run(order, 69), strict=True):
            assert torch.equal(out, alone[index])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("width", [16, 5])
def test_neighbors_and_stale_memory_never_leak_in(width, bad, causal, dtype, kernels_on):
    lengths = [3, 37, 20]
    *packed, cu_tokens, table, content, position, segments, segment_bias, segment_key = operands(
        lengths, 2, width, 40, dtype, kernels_on
    )
    rest = (cu_tokens, table, content, position, segments, segment_bias, segment_key)
    clean = relative_attention(*packed, *rest, scale=0.2, causal=causal)
    for tensor in packed:
        tensor[:3] = bad
        tensor[40:] = bad
    # In the middle of a larger piece of memory, as the rest of a pool would lie around it.
    around = [torch.full((tensor.shape[0] + 64, 2, width), bad).to(tensor) for tensor in packed]
    for place, tensor in zip(around, packed, strict=True):
        place[32:-32] = tensor
    # Rows of distances that the middle sequence does not read, and the segments of its neighbors.
    table = table.clone()
    table[:4], table[-4:] = bad, bad
    others = segments.clone()
    others[:3], others[40:] = 9, 9
    rest = (cu_tokens, table, content, position, others, segment_bias, segment_key)
    out = relative_attention(*(place[32:-32] for place in around), *rest, scale=0.2, causal=causal)
    assert torch.equal(out[3:40], clean[3:40])
    assert bool(out[:3].isnan().all())


def test_operands_may_be_views_of_a_larger_tensor(dtype, kernels_on):
    lengths = [5, 12]
    given = operands(lengths, 2, 16, 20, dtype, kernels_on)
    fused = torch.stack(given[:3], 1)
    table = torch.stack([given[4], given[4]], 1)
    out = relative_attention(*fused.unbind(1), given[3], table[:, 1], *given[5:], scale=0.2)
    assert torch.equal(out, relative_attention(*given, scale=0.2))
    check(given)


@pytest.mark.parametrize("segmented", [True, False])
@pytest.mark.parametrize("lengths", [[], [0], [0, 0]], ids=str)
def test_no_tokens_give_no_rows(lengths, segmented, kernels_on):
    given = operands(lengths, 2, 16, 4, torch.float32, kernels_on, segmented)
    assert relative_attention(*given, scale=1.0).shape == (0, 2, 16)


def test_heads_too_wide_are_refused_with_the_limit(kernels_on):
    with pytest.raises(ValueError, match="heads of at most 128, got 129"):
        relative_attention(*operands([2], 1, 129, 4, torch.float32, kernels_on), scale=1.0)
