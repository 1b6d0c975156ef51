"""Attention with relative positions: definition, CPU version, kernel, gradients, refusals."""

from typing import Any

import pytest
import torch
from attention_operands import disentangled_operands as operands
from kernel_checks import close, near
from torch import Tensor

from tritone.kernels.attention import diagonals
from tritone.kernels.attention.disentangled import (
    disentangled_attention,
    disentangled_attention_cpu,
    disentangled_attention_reference,
)
from tritone.kernels.attention.flash import flash_attention_reference
from tritone.kernels.attention.relative_positions import relative_rows
from tritone.kernels.runtime.packing import cumulative, spans

CPU = torch.device("cpu")
# buckets, farthest: log buckets that are reached and passed, odd ones, and a row for each distance
SPANS = [(4, 9), (5, 12), (32, 100), (0, 7), (0, 300)]
SCALE = 0.2
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
# Blocks are of 16 or 32 queries and as many keys.
LENGTHS = [[1], [2, 1], [13, 0, 5], [0, 7], [16, 15, 17], [32, 31, 33], [65, 3]]
RUNS = [disentangled_attention_reference, disentangled_attention_cpu]
every_term = pytest.mark.parametrize("missing", [None, 4, 5], ids=["both", "c2p", "p2c"])


def without(given: list[Any], missing: int | None) -> list[Any]:
    return [None if place == missing else one for place, one in enumerate(given)]


def exact(query, key, value, cu_tokens, position_query, position_key, rows, *, scale) -> Tensor:
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


def check(given: list[Any], scale: float = SCALE) -> None:
    near(disentangled_attention(*given, scale=scale), exact(*given, scale=scale), given[0].dtype, TOLERANCE)


@pytest.mark.parametrize("run", RUNS)
@every_term
@pytest.mark.parametrize("span", SPANS[:4], ids=str)
def test_a_score_has_the_terms_that_there_are_tables_for(span, missing, run):
    given = operands([14, 0, 3], span=span)
    given = without(given, missing)
    close(run(*given, scale=SCALE), exact(*given, scale=SCALE), 2e-6)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("limit", [0, 3, 20])
def test_rows_may_be_any_and_the_ends_stand_for_all_beyond(limit, run):
    given = operands([14, 2], span=(0, 25))
    given[6] = torch.randperm(50, generator=torch.Generator().manual_seed(limit))[: 2 * limit + 1].int()
    close(run(*given, scale=SCALE), exact(*given, scale=SCALE), 2e-6)


@every_term
@pytest.mark.parametrize("span", SPANS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_the_tuned_path_is_the_definition_also_where_blocks_end(dtype, span, missing):
    given = operands([127, 1, 128, 129, 0, 300], dtype=dtype, span=span)
    given = without(given, missing)
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
    for run in RUNS:
        out = run(query, key, value, cu_tokens, None, None, rows, scale=SCALE)
        torch.testing.assert_close(out, plain, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("size", [(2, 16), (3, 20)], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_every_sequence_attends_to_itself_alone(lengths, size, dtype, kernels_on):
    check(operands(lengths, *size, dtype, kernels_on))


@every_term
@pytest.mark.parametrize("span", [(4, 9), (5, 12), (16, 40), (0, 7), (0, 100)], ids=str)
def test_on_kernels_a_score_has_the_terms_of_every_kind(span, missing, dtype, kernels_on):
    check(without(operands([45, 6], 2, 16, dtype, kernels_on, span=span), missing))


@pytest.mark.parametrize("limit", [0, 3, 40])
def test_on_kernels_rows_may_be_any_too(limit, kernels_on):
    given = operands([36], 2, 16, device=kernels_on, span=(0, 50))
    given[6] = torch.randperm(100, generator=torch.Generator().manual_seed(limit))[: 2 * limit + 1].int()
    given[6] = given[6].to(kernels_on)
    check(given)


@pytest.mark.parametrize("width", [1, 5, 17, 32, 36, 48, 64, 80, 127, 128])
def test_heads_of_every_width(width, dtype, kernels_on):
    check(operands([35, 0, 4], 2, width, dtype, kernels_on, span=(6, 20)), scale=(3 * width) ** -0.5)


def test_weights_that_are_all_of_one_key_neither_overflow_nor_vanish(dtype, kernels_on):
    query, key, value, cu_tokens, position_query, position_key, rows = operands(
        [40], 1, 16, dtype, kernels_on
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


def test_gradients_reach_tokens_and_tables():
    query, key, value, cu_tokens, position_query, position_key, rows = operands([5, 2], 2, 3, torch.float64)
    inputs = [tensor.requires_grad_() for tensor in (query, key, value, position_query, position_key)]

    def run(query, key, value, position_query, position_key):
        return disentangled_attention(
            query, key, value, cu_tokens, position_query, position_key, rows, scale=SCALE
        )

    assert torch.autograd.gradcheck(run, inputs)


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
