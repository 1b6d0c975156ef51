"""Attention relative to distances and segments: definition, tuned path, bits, gradients, refusals."""

import pytest
import torch

from tritone.kernels.attention import diagonals
from tritone.kernels.attention.flash import flash_attention_reference
from tritone.kernels.attention.relative import (
    relative_attention,
    relative_attention_cpu,
    relative_attention_reference,
    relative_weights,
)
from tritone.kernels.runtime.packing import cumulative, spans

SCALE = 0.3
# What a query sees: causal, window.
SIGHTS = [(False, None), (True, None), (True, 1), (True, 9)]
RUNS = [relative_attention_reference, relative_attention_cpu]


def operands(
    lengths: list[int],
    heads: int = 2,
    width: int = 12,
    limit: int = 400,
    dtype: torch.dtype = torch.float32,
    segmented: bool = True,
) -> list[torch.Tensor | None]:
    generator = torch.Generator().manual_seed(sum(lengths) * 1009 + width * 31 + limit)
    tokens = sum(lengths)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, heads, width, generator=generator).to(dtype)

    given = [drawn(tokens) for _ in range(3)] + [cumulative(lengths), drawn(2 * limit + 1), drawn(), drawn()]
    if not segmented:
        return [*given, None, None, None]
    segments = torch.randint(-1, 3, (tokens,), generator=generator, dtype=torch.int32)
    return [*given, segments, drawn(), drawn(2)]


def by_loops(given, *, scale, causal=False, window=None):
    """The definition, pair by pair, in float64."""
    query, key, value, cu_tokens, position_key, content_bias, position_bias, segments, *rest = given
    segment_bias, segment_key = rest
    out = torch.zeros(query.shape, dtype=torch.float64)
    limit = len(position_key) // 2
    for start, end in spans(cu_tokens):
        for head in range(query.shape[1]):
            for i in range(start, end):
                seen, scores = [], []
                for j in range(start, end):
                    if causal and (j > i or (window is not None and i - j >= window)):
                        continue
                    one = query[i, head].double()
                    row = position_key[max(-limit, min(limit, i - j)) + limit, head].double()
                    score = (one + content_bias[head].double()) @ key[j, head].double()
                    score = score + (one + position_bias[head].double()) @ row
                    if segments is not None:
                        which = int(segments[i] != segments[j])
                        score = (
                            score + (one + segment_bias[head].double()) @ segment_key[which, head].double()
                        )
                    seen.append(j)
                    scores.append(score * scale)
                weights = torch.stack(scores).softmax(0)
                out[i, head] = weights @ value[seen, head].double()
    return out


@pytest.mark.parametrize("segmented", [True, False], ids=["segments", "none"])
@pytest.mark.parametrize("sight", SIGHTS, ids=str)
@pytest.mark.parametrize("limit", [0, 3, 20])
@pytest.mark.parametrize("run", RUNS)
def test_it_is_the_definition_pair_by_pair(run, limit, sight, segmented):
    given = operands([14, 0, 1, 5], limit=limit, segmented=segmented)
    options = {"scale": SCALE, "causal": sight[0], "window": sight[1]}
    torch.testing.assert_close(
        run(*given, **options).double(), by_loops(given, **options), atol=2e-6, rtol=2e-6
    )


@pytest.mark.parametrize("limit", [5, 299, 400])
@pytest.mark.parametrize("sight", SIGHTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_the_tuned_path_is_the_definition_also_where_blocks_end(dtype, sight, limit):
    given = operands([127, 1, 128, 129, 0, 300], limit=limit, dtype=dtype)
    tolerance = {torch.float32: 5e-6, torch.float64: 1e-12, torch.float16: 2e-3}[dtype]
    options = {"scale": SCALE, "causal": sight[0], "window": sight[1]}
    out = relative_attention_cpu(*given, **options)
    assert out.dtype == dtype
    expected = relative_attention_reference(*given, **options)
    torch.testing.assert_close(out, expected, atol=tolerance, rtol=tolerance)


def test_few_heads_at_a_time_give_what_all_of_them_do(monkeypatch):
    given = operands([50, 9], heads=5)
    together = relative_attention(*given, scale=SCALE)
    monkeypatch.setattr(diagonals, "_MAX_SCORES", 5000)
    torch.testing.assert_close(relative_attention(*given, scale=SCALE), together, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("run", RUNS)
def test_with_terms_of_zero_it_is_plain_attention(run, causal):
    query, key, value, cu_tokens, *terms = operands([9, 30], segmented=False)
    terms = [None if term is None else torch.zeros_like(term) for term in terms]
    plain = flash_attention_reference(query, key, value, cu_tokens, cu_tokens, scale=SCALE, causal=causal)
    out = run(query, key, value, cu_tokens, *terms, scale=SCALE, causal=causal)
    torch.testing.assert_close(out, plain, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("run", RUNS)
def test_segments_matter_by_equality_alone(run):
    given = operands([20, 7])
    renamed = [*given[:7], given[7] * 1000 - 5, *given[8:]]
    assert torch.equal(run(*given, scale=SCALE), run(*renamed, scale=SCALE))
    moved = [*given[:7], given[7].clone().fill_(1), *given[8:]]
    assert not torch.allclose(run(*given, scale=SCALE), run(*moved, scale=SCALE))


@pytest.mark.parametrize("run", [relative_attention, relative_attention_reference])
@pytest.mark.parametrize("sight", SIGHTS, ids=str)
def test_a_sequence_has_the_same_bits_alone_first_in_the_middle_and_last(sight, run):
    """Also where the table has more rows than the sequence reads, as beside a longer sequence."""
    lengths = [1, 37, 200, 16, 131, 5, 0, 128]
    query, key, value, _, table, *biases, segments, segment_bias, segment_key = operands(lengths, 3, 20, 199)
    pieces = list(zip(*(tensor.split(lengths) for tensor in (query, key, value, segments)), strict=True))
    options = {"scale": SCALE, "causal": sight[0], "window": sight[1]}

    def answers(order: list[int], limit: int) -> list[torch.Tensor]:
        one, other, mixed, types = (
            torch.cat(parts) for parts in zip(*(pieces[i] for i in order), strict=True)
        )
        counts = [lengths[index] for index in order]
        rows = table[199 - limit : 200 + limit]
        out = run(
            one, other, mixed, cumulative(counts), rows, *biases, types, segment_bias, segment_key, **options
        )
        return list(out.split(counts))

    alone = [answers([index], max(lengths[index] - 1, 0))[0] for index in range(8)]
    for order in ([7, 6, 5, 4, 3, 2, 1, 0], [2, 4, 0, 5, 7, 1, 3, 6], [3, 1]):
        for index, out in zip(order, answers(order, 199), strict=True):
            assert torch.equal(out, alone[index])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("causal", [False, True])
def test_nan_stays_in_its_sequence(causal, bad):
    given = operands([3, 140, 20])
    clean = relative_attention(*given, scale=SCALE, causal=causal)
    for tensor in given[:3]:
        tensor[:3], tensor[143:] = bad, bad
    out = relative_attention(*given, scale=SCALE, causal=causal)
    assert torch.equal(out[3:143], clean[3:143])


@pytest.mark.parametrize("sight", SIGHTS, ids=str)
def test_gradients_reach_tokens_positions_biases_and_segments(sight):
    given = operands([5, 2], width=3, limit=3, dtype=torch.float64)
    places = [0, 1, 2, 4, 5, 6, 8, 9]
    inputs = [given[place].requires_grad_() for place in places]

    def run(*tensors):
        filled = list(given)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        return relative_attention(*filled, scale=SCALE, causal=sight[0], window=sight[1])

    assert torch.autograd.gradcheck(run, inputs)


def test_dropout_drops_weights_and_scales_the_others():
    given = operands([40], heads=1)
    rest = given[:2] + given[3:]
    (plain,) = relative_weights(*rest, scale=SCALE)
    torch.manual_seed(0)
    (dropped,) = relative_weights(*rest, scale=SCALE, dropout=0.25)
    kept = dropped != 0
    assert 0.65 < kept.float().mean() < 0.85
    torch.testing.assert_close(dropped[kept], plain[kept] / 0.75)
    torch.manual_seed(0)
    out = relative_attention(*given, scale=SCALE, dropout=0.25)
    torch.testing.assert_close(out, torch.einsum("hqk,khd->qhd", dropped, given[2]))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({0: torch.zeros(7, 3, 12)}, "must all be \\[tokens, heads, head_dim\\]"),
        ({3: cumulative([6])}, "cu_tokens must rise from 0 to the 7"),
        ({4: torch.zeros(8, 2, 12)}, "an odd number of rows, got \\[8, 2, 12\\]"),
        ({4: torch.zeros(9, 1, 12)}, "position_key must be \\[2 \\* limit \\+ 1, 2, 12\\]"),
        ({5: torch.zeros(12)}, "content_bias must be \\[2, 12\\], got \\[12\\]"),
        ({6: torch.zeros(1, 12)}, "position_bias must be \\[2, 12\\], got \\[1, 12\\]"),
        ({7: torch.zeros(7)}, "segments must be int32 \\[7\\], got torch.float32"),
        ({7: torch.zeros(6, dtype=torch.int32)}, "segments must be int32 \\[7\\]"),
        ({7: None}, "give all three or none"),
        ({8: None}, "give all three or none"),
        ({8: torch.zeros(3, 12)}, "segment_bias must be \\[2, 12\\]"),
        ({9: torch.zeros(3, 2, 12)}, "segment_key must be \\[2, 2, 12\\], got \\[3, 2, 12\\]"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(change, problem):
    given = [change.get(place, tensor) for place, tensor in enumerate(operands([5, 2]))]
    with pytest.raises(ValueError, match=problem):
        relative_attention(*given, scale=SCALE)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"scale": 0.0}, "scale must be positive, got 0.0"),
        ({"scale": 1.0, "window": 3}, "got 3 with causal=False"),
        ({"scale": 1.0, "causal": True, "window": 0}, "at least 1, that a causal query sees; got 0"),
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        relative_attention(*operands([5, 2]), **options)
