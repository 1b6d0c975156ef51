"""The kernel of attention with relative positions, against its definition in float64."""

import pytest
import torch

from tritone.kernels.attention.disentangled import disentangled_attention
from tritone.kernels.attention.relative_positions import relative_rows
from tritone.kernels.runtime.packing import cumulative, spans

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}

# Blocks are of 16 or 32 queries and as many keys.
LENGTHS = [[1], [2, 1], [13, 0, 5], [0, 7], [16, 15, 17], [32, 31, 33], [65, 3]]
TERMS = ["both", "p2c", "c2p"]
# buckets, farthest: log buckets that are reached and passed, odd ones, and a row for each distance
SPANS = [(4, 9), (5, 12), (16, 40), (0, 7), (0, 100)]


def operands(
    lengths: list[int], heads: int, width: int, span: tuple[int, int], dtype: torch.dtype, device: str
) -> list[torch.Tensor | None]:
    generator = torch.Generator().manual_seed(sum(lengths) * 1009 + len(lengths) * 31 + width)
    rows = relative_rows(*span, torch.device("cpu"))
    counts = [sum(lengths)] * 3 + [2 * (span[0] or span[1])] * 2
    drawn = [torch.randn(count, heads, width, generator=generator).to(device, dtype) for count in counts]
    return [*drawn[:3], cumulative(lengths, device), *drawn[3:], rows.to(device)]


def chosen(given: list[torch.Tensor | None], terms: str) -> list[torch.Tensor | None]:
    return [
        None if (place == 4 and terms == "c2p") or (place == 5 and terms == "p2c") else tensor
        for place, tensor in enumerate(given)
    ]


def exact(query, key, value, cu_tokens, position_query, position_key, rows, *, scale) -> torch.Tensor:
    """The definition, in float64, with the table's row of every query and key written out."""
    out = torch.zeros(query.shape, dtype=torch.float64, device=query.device)
    limit = len(rows) // 2
    for start, end in spans(cu_tokens):
        q, k = query[start:end].double(), key[start:end].double()
        place = torch.arange(end - start, device=query.device)
        row = rows[limit + (place[:, None] - place[None, :]).clamp(-limit, limit)].long()
        scores = torch.einsum("ihd,jhd->hij", q, k)
        if position_key is not None:
            scores = scores + torch.einsum("ihd,ijhd->hij", q, position_key.double()[row])
        if position_query is not None:
            scores = scores + torch.einsum("ijhd,jhd->hij", position_query.double()[row], k)
        weights = (scores * scale).softmax(-1)
        out[start:end] = torch.einsum("hij,jhd->ihd", weights, value[start:end].double())
    return out


def check(given: list[torch.Tensor | None], scale: float = 0.2) -> None:
    out = disentangled_attention(*given, scale=scale)
    assert out.dtype == given[0].dtype
    tolerance = TOLERANCE[out.dtype]
    torch.testing.assert_close(out.double(), exact(*given, scale=scale), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [(2, 16), (3, 20)], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_every_sequence_attends_to_itself_alone(lengths, size, dtype, kernels_on):
    check(operands(lengths, *size, (4, 9), dtype, kernels_on))


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("span", SPANS, ids=str)
def test_terms_and_positions_of_every_kind(span, terms, dtype, kernels_on):
    check(chosen(operands([45, 6], 2, 16, span, dtype, kernels_on), terms))


@pytest.mark.parametrize("limit", [0, 3, 40])
def test_rows_may_be_any_and_the_ends_stand_for_all_beyond(limit, kernels_on):
    given = operands([36], 2, 16, (0, 50), torch.float32, kernels_on)
    generator = torch.Generator().manual_seed(limit)
    given[6] = torch.randperm(100, generator=generator)[: 2 * limit + 1].int().to(kernels_on)
    check(given)


@pytest.mark.parametrize("width", [1, 5, 17, 32, 36, 48, 64, 80, 127, 128])
def test_heads_of_every_width(width, dtype, kernels_on):
    check(operands([35, 0, 4], 2, width, (6, 20), dtype, kernels_on), scale=(3 * width) ** -0.5)


def test_weights_that_are_all_of_one_key_neither_overflow_nor_vanish(dtype, kernels_on):
    query, key, value, cu_tokens, position_query, position_key, rows = operands(
        [40], 1, 16, (4, 9), dtype, kernels_on
    )
    position_key = torch.zeros_like(position_key)
    position_key[rows[len(rows) // 2].item()] = 100.0  # distance 0
    out = disentangled_attention(
        torch.full_like(query, 100.0),
        torch.zeros_like(key),
        value,
        cu_tokens,
        position_query,
        position_key,
        rows,
        scale=1.0,
    )
    assert torch.equal(out, value)


@pytest.mark.parametrize("size", [(2, 16), (1, 20)], ids=str)
def test_a_sequence_has_the_same_bits_alone_first_in_the_middle_and_last(size, dtype, kernels_on):
    lengths = [1, 37, 0, 16, 70, 5]
    query, key, value, _, *positions = operands(lengths, *size, (6, 30), dtype, kernels_on)
    pieces = list(zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True))

    def run(order: list[int]) -> list[torch.Tensor]:
        packed = [torch.cat(tensors) for tensors in zip(*(pieces[index] for index in order), strict=True)]
        counts = [lengths[index] for index in order]
        out = disentangled_attention(*packed, cumulative(counts, kernels_on), *positions, scale=0.2)
        return list(out.split(counts))

    alone = [run([index])[0] for index in range(6)]
    for order in ([5, 4, 3, 2, 1, 0], [2, 4, 0, 5, 1, 3], [3, 1]):
        for index, out in zip(order, run(order), strict=True):
            assert torch.equal(out, alone[index])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("width", [16, 5])
def test_neighbors_and_stale_memory_never_leak_in(width, bad, dtype, kernels_on):
    lengths = [3, 37, 20]
    *packed, cu_tokens, position_query, position_key, rows = operands(
        lengths, 2, width, (4, 9), dtype, kernels_on
    )
    rest = cu_tokens, position_query, position_key, rows
    clean = disentangled_attention(*packed, *rest, scale=0.2)
    for tensor in packed:
        tensor[:3] = bad
        tensor[40:] = bad
    # In the middle of a larger piece of memory, as the rest of a pool would lie around it.
    around = [torch.full((tensor.shape[0] + 64, 2, width), bad).to(tensor) for tensor in packed]
    for place, tensor in zip(around, packed, strict=True):
        place[32:-32] = tensor
    out = disentangled_attention(*(place[32:-32] for place in around), *rest, scale=0.2)
    assert torch.equal(out[3:40], clean[3:40])
    assert bool(out[:3].isnan().all())


def test_operands_may_be_views_of_a_larger_tensor(dtype, kernels_on):
    lengths = [5, 12]
    generator = torch.Generator().manual_seed(0)
    fused = torch.randn(17, 3, 2, 16, generator=generator).to(kernels_on, dtype)
    tables = torch.randn(8, 2, 2, 16, generator=generator).to(kernels_on, dtype)
    rows = relative_rows(4, 9, torch.device("cpu")).to(kernels_on)
    cu_tokens = cumulative(lengths, kernels_on)
    out = disentangled_attention(*fused.unbind(1), cu_tokens, *tables.unbind(1), rows, scale=0.2)
    apart = [tensor.contiguous() for tensor in (*fused.unbind(1), *tables.unbind(1))]
    again = disentangled_attention(*apart[:3], cu_tokens, *apart[3:], rows, scale=0.2)
    assert torch.equal(out, again)
    check([*apart[:3], cu_tokens, *apart[3:], rows])


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]], ids=str)
def test_no_tokens_give_no_rows(lengths, kernels_on):
    given = operands(lengths, 2, 16, (4, 9), torch.float32, kernels_on)
    assert disentangled_attention(*given, scale=1.0).shape == (0, 2, 16)


def test_heads_too_wide_are_refused_with_the_limit(kernels_on):
    with pytest.raises(ValueError, match="heads of at most 128, got 129"):
        disentangled_attention(*operands([2], 1, 129, (4, 9), torch.float32, kernels_on), scale=1.0)
