"""Attention with relative positions on the CPU: definition, tuned path, gradients, refusals."""

from itertools import pairwise

import pytest
import torch

from tritone.kernels.attention import diagonals
from tritone.kernels.attention.disentangled import (
    disentangled_attention,
    disentangled_attention_cpu,
    disentangled_attention_reference,
    disentangled_weights,
)
from tritone.kernels.attention.flash import flash_attention_reference
from tritone.kernels.attention.relative_positions import relative_rows
from tritone.kernels.runtime.packing import cumulative

CPU = torch.device("cpu")
SPANS = [(4, 9), (5, 12), (32, 100), (0, 7), (0, 300)]
SCALE = 0.2


def operands(lengths, heads=2, width=12, span=(4, 9), dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(lengths) + width)
    counts = [sum(lengths)] * 3 + [2 * (span[0] or span[1])] * 2
    drawn = [torch.randn(count, heads, width, generator=generator).to(dtype) for count in counts]
    return [*drawn[:3], cumulative(lengths), *drawn[3:], relative_rows(*span, CPU)]


def by_loops(query, key, value, cu_tokens, position_query, position_key, rows):
    """The definition, score by score, in float64."""
    query, key, value = query.double(), key.double(), value.double()
    out = torch.zeros_like(query)
    limit, offsets = len(rows) // 2, cu_tokens.tolist()
    for start, end in pairwise(offsets):
        for head in range(query.shape[1]):
            for i in range(start, end):
                scores = []
                for j in range(start, end):
                    row = int(rows[limit + max(-limit, min(limit, i - j))])
                    score = query[i, head] @ key[j, head]
                    if position_key is not None:
                        score = score + query[i, head] @ position_key[row, head].double()
                    if position_query is not None:
                        score = score + position_query[row, head].double() @ key[j, head]
                    scores.append(score * SCALE)
                out[i, head] = torch.stack(scores).softmax(0) @ value[start:end, head]
    return out


@pytest.mark.parametrize("run", [disentangled_attention_reference, disentangled_attention_cpu])
@pytest.mark.parametrize("missing", [None, 4, 5], ids=["both", "c2p", "p2c"])
@pytest.mark.parametrize("span", SPANS[:4], ids=str)
def test_a_score_has_the_terms_that_there_are_tables_for(span, missing, run):
    given = operands([14, 0, 3], span=span)
    given = [None if place == missing else tensor for place, tensor in enumerate(given)]
    torch.testing.assert_close(run(*given, scale=SCALE).double(), by_loops(*given), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("run", [disentangled_attention_reference, disentangled_attention_cpu])
@pytest.mark.parametrize("limit", [0, 3, 20])
def test_rows_may_be_any_and_the_ends_stand_for_all_beyond(limit, run):
    given = operands([14, 2], span=(0, 25))
    given[6] = torch.randperm(50, generator=torch.Generator().manual_seed(limit))[: 2 * limit + 1].int()
    torch.testing.assert_close(run(*given, scale=SCALE).double(), by_loops(*given), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("missing", [None, 4, 5], ids=["both", "c2p", "p2c"])
@pytest.mark.parametrize("span", SPANS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_the_tuned_path_is_the_definition_also_where_blocks_end(dtype, span, missing):
    given = operands([127, 1, 128, 129, 0, 300], span=span, dtype=dtype)
    given = [None if place == missing else tensor for place, tensor in enumerate(given)]
    tolerance = {torch.float32: 5e-6, torch.float64: 1e-12, torch.float16: 2e-3}[dtype]
    expected = disentangled_attention_reference(*given, scale=SCALE)
    out = disentangled_attention(*given, scale=SCALE)
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected, atol=tolerance, rtol=tolerance)


def test_few_heads_at_a_time_give_what_all_of_them_do(monkeypatch):
    given = operands([50, 9], heads=5)
    together = disentangled_attention(*given, scale=SCALE)
    monkeypatch.setattr(diagonals, "_MAX_SCORES", 5000)
    torch.testing.assert_close(disentangled_attention(*given, scale=SCALE), together, atol=1e-6, rtol=1e-6)


def test_without_tables_it_is_plain_attention():
    query, key, value, cu_tokens, _, _, rows = operands([9, 30])
    plain = flash_attention_reference(query, key, value, cu_tokens, cu_tokens, scale=SCALE)
    for run in (disentangled_attention_reference, disentangled_attention_cpu):
        out = run(query, key, value, cu_tokens, None, None, rows, scale=SCALE)
        torch.testing.assert_close(out, plain, atol=1e-6, rtol=1e-6)


def test_a_sequence_has_the_same_bits_alone_first_in_the_middle_and_last():
    lengths = [1, 37, 200, 16, 131, 5, 0, 128]
    query, key, value, _, *positions = operands(lengths, heads=3, width=20, span=(16, 60))
    pieces = list(zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True))

    def run(order: list[int]) -> list[torch.Tensor]:
        packed = [torch.cat(tensors) for tensors in zip(*(pieces[index] for index in order), strict=True)]
        counts = [lengths[index] for index in order]
        return list(
            disentangled_attention(*packed, cumulative(counts), *positions, scale=SCALE).split(counts)
        )

    alone = [run([index])[0] for index in range(8)]
    for order in ([7, 6, 5, 4, 3, 2, 1, 0], [2, 4, 0, 5, 7, 1, 3, 6], [3, 1]):
        for index, out in zip(order, run(order), strict=True):
            assert torch.equal(out, alone[index])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_stays_in_its_sequence(bad):
    query, key, value, cu_tokens, *positions = operands([3, 140, 20])
    clean = disentangled_attention(query, key, value, cu_tokens, *positions, scale=SCALE)
    for tensor in (query, key, value):
        tensor[:3], tensor[143:] = bad, bad
    out = disentangled_attention(query, key, value, cu_tokens, *positions, scale=SCALE)
    assert torch.equal(out[3:143], clean[3:143])


def test_gradients_reach_tokens_and_tables():
    query, key, value, cu_tokens, position_query, position_key, rows = operands(
        [5, 2], width=3, dtype=torch.float64
    )
    inputs = [tensor.requires_grad_() for tensor in (query, key, value, position_query, position_key)]

    def run(query, key, value, position_query, position_key):
        return disentangled_attention(
            query, key, value, cu_tokens, position_query, position_key, rows, scale=SCALE
        )

    assert torch.autograd.gradcheck(run, inputs)


def test_dropout_drops_weights_and_scales_the_others():
    given = operands([40], heads=1)
    plain = disentangled_weights(*given[:2], *given[3:], scale=SCALE)[0]
    torch.manual_seed(0)
    (dropped,) = disentangled_weights(*given[:2], *given[3:], scale=SCALE, dropout=0.25)
    kept = dropped != 0
    assert 0.65 < kept.float().mean() < 0.85
    torch.testing.assert_close(dropped[kept], plain[kept] / 0.75)
    torch.manual_seed(0)
    out = disentangled_attention(*given, scale=SCALE, dropout=0.25)
    torch.testing.assert_close(out, torch.einsum("hqk,khd->qhd", dropped, given[2]))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({0: torch.zeros(5, 2, 12)}, "must all be \\[tokens, heads, head_dim\\]"),
        ({3: cumulative([6])}, "cu_tokens must rise from 0 to the 7"),
        ({4: torch.zeros(8, 1, 12)}, "position_query must be \\[positions, 2, 12\\], got \\[8, 1, 12\\]"),
        ({5: torch.zeros(7, 2, 12)}, "rows are from 0 to 7, and position_key has 7"),
        ({6: torch.zeros(4, dtype=torch.int32)}, "an odd number"),
        ({6: torch.zeros(3)}, "rows must be int32"),
        ({6: torch.full((3,), -1, dtype=torch.int32)}, "rows are from -1 to -1"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(change, problem):
    given = [change.get(place, tensor) for place, tensor in enumerate(operands([5, 2]))]
    if 0 in change:
        given[3] = cumulative([5])
    with pytest.raises(ValueError, match=problem):
        disentangled_attention(*given, scale=SCALE)


def test_near_distances_have_a_row_each_and_far_ones_share_the_last():
    rows = relative_rows(0, 3, CPU)
    assert rows.dtype == torch.int32
    assert rows.tolist() == [0, 1, 2, 3, 4, 5, 5]  # -3 to 3; the last table row stands for 2 and beyond
    rows = relative_rows(8, 40, CPU)
    limit = len(rows) // 2
    assert [int(rows[limit + distance]) for distance in range(-4, 5)] == [4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert bool((rows.diff() >= 0).all())
    assert (int(rows[0]), int(rows[-1])) == (0, 15)


def test_the_ends_of_the_rows_stand_for_all_that_is_farther():
    """With an odd number of buckets the last one begins far beyond the farthest relative position."""
    rows = relative_rows(5, 64, CPU)
    assert (int(rows[0]), int(rows[-1])) == (0, 9)
    assert len(rows) // 2 > 1900


@pytest.mark.parametrize(
    ("buckets", "farthest", "problem"),
    [
        (0, 0, "at least 1, got 0"),
        (1, 9, "1 position buckets cannot be divided"),
        (8, 5, "above 5"),
        (2, 2, "above 2"),
    ],
)
def test_buckets_that_cannot_be_divided_are_refused(buckets, farthest, problem):
    with pytest.raises(ValueError, match=problem):
        relative_rows(buckets, farthest, CPU)
