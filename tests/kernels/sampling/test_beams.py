"""End of a beam step, on kernels and on the CPU, against the reference."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tritone.kernels.sampling.beams import BeamRules, advance_beams, advance_beams_reference
from tritone.kernels.sampling.beams_triton import UNREACHABLE

MAX_TOKENS, VOCABULARY, STALE = 70, 9, -7
INF = float("inf")
RULES = {
    "two": BeamRules(2, (2,)),
    "five, early": BeamRules(5, (2, 4), length_penalty=0.6, early_stopping=True),
    "three, never": BeamRules(3, (2,), length_penalty=1.7, early_stopping="never"),
    "three, never, short": BeamRules(3, (2,), length_penalty=-0.5, early_stopping="never"),
    "two, patient": BeamRules(2, (2,), patience=2.0),
    "three, impatient": BeamRules(3, (2, 4), length_penalty=0.6, patience=0.5),
    "eight, no end": BeamRules(8, length_penalty=0.0),
    "nine": BeamRules(9, (2, 3, 4)),  # more candidates than the smaller block
    "more ends than arguments": BeamRules(2, (2, 3, 4, 5, 6)),
    "more candidates than a block": BeamRules(30, (2, 3)),
}


def tables(slots: int, generator: torch.Generator) -> tuple[SimpleNamespace, SimpleNamespace]:
    """Tables of a state in both buffers, of which nothing in the other is of use."""

    def tokens() -> Tensor:
        return torch.randint(3, 9, (slots, MAX_TOKENS), generator=generator, dtype=torch.int32)

    ended = torch.rand(slots, generator=generator) < 0.5
    current = SimpleNamespace(
        tokens=tokens(),
        origin=torch.randint(0, 3, (slots, MAX_TOKENS), generator=generator, dtype=torch.int32),
        length=torch.ones(slots, dtype=torch.int32),
        score=-torch.rand(slots, generator=generator),
        final_tokens=tokens(),
        final_length=torch.randint(0, 3, (slots,), generator=generator, dtype=torch.int32),
        final_score=torch.where(ended, -torch.rand(slots, generator=generator), UNREACHABLE),
        final_done=ended,
        ended_count=torch.randint(0, 4, (slots,), generator=generator, dtype=torch.int32),
        request_done=torch.zeros(slots, dtype=torch.bool),
    )
    following = SimpleNamespace(
        **{
            name: torch.full_like(table, bool(STALE) if table.dtype == torch.bool else STALE)
            for name, table in vars(current).items()
        }
    )
    return current, following


def candidates(kind: str, requests: int, rules: BeamRules, generator: torch.Generator) -> tuple[Tensor, ...]:
    count = rules.candidates
    values = -3 * torch.rand(requests, count, generator=generator)
    if kind == "tied":
        values = values.round()
    elif kind == "minus infinity":
        values[:, 1::2] = -INF
    elif kind == "both zeros":
        values = values.round().clamp(min=0) * values.sign()
    else:
        values = values.sort(dim=1, descending=True).values
    order = torch.rand(requests, rules.beams * VOCABULARY, generator=generator).argsort(1)
    return values, order[:, :count]


@pytest.mark.parametrize("kind", ["descending", "tied", "minus infinity", "both zeros"])
@pytest.mark.parametrize("name", RULES)
def test_hypotheses_go_on_and_end_as_those_of_the_reference(name, kind, kernels_on):
    rules, requests = RULES[name], 7
    generator = torch.Generator().manual_seed(len(name))
    rows, beams = requests * rules.beams, rules.beams
    slots = torch.randperm(rows + 2, generator=generator)[:rows]
    by_request = slots.view(-1, beams)
    current, following = tables(rows + 2, generator)
    # One at its start, on both sides of a block, at its end, and two that have ended, one of full length.
    lengths = torch.tensor([1, 63, 64, 40, MAX_TOKENS - 1, 20, MAX_TOKENS], dtype=torch.int32)
    max_lengths = torch.tensor([9, 99, 66, 42, MAX_TOKENS, 30, MAX_TOKENS], dtype=torch.int32)
    max_lengths = max_lengths.clamp(max=MAX_TOKENS).repeat_interleave(beams)
    prompts = torch.tensor([1, 1, 30, 40, 2, 7, 1], dtype=torch.int32).repeat_interleave(beams)
    current.length[by_request] = lengths[:, None].expand(-1, beams)
    current.final_done[by_request[0]] = False
    current.final_score[by_request[0]] = UNREACHABLE
    current.request_done[by_request[5:, 0]] = True
    given = slots, *candidates(kind, requests, rules, generator), max_lengths, prompts
    options = {"vocabulary": VOCABULARY, "longest": MAX_TOKENS}
    found = deepcopy((current, following))
    advance_beams_reference(current, following, *given, rules, **options)
    for group in found:
        vars(group).update({table: one.to(kernels_on) for table, one in vars(group).items()})
    for _ in range(2):  # a step that failed is repeated
        advance_beams(*found, *(tensor.to(kernels_on) for tensor in given), rules, **options)
    for table, wanted in vars(current).items():
        assert torch.equal(getattr(found[0], table).cpu(), wanted), table

    for table, wanted in vars(following).items():
        own = getattr(found[1], table).cpu()
        if wanted.dim() == 1:
            assert torch.equal(own, wanted), table
            continue
        read = following.final_length if table == "final_tokens" else following.length
        if table == "origin":  # the newest position's is written by the next step
            read = current.length
        used = torch.arange(MAX_TOKENS) < read[:, None]
        used[by_request[5:]] &= table == "final_tokens"  # open histories of ended requests are of no use
        used[torch.ones(rows + 2, dtype=torch.bool).index_fill(0, slots, False)] = True
        assert torch.equal(own[used], wanted[used]), table
    assert bool(following.request_done[by_request[4:, 0]].all()), "those at their end are over"


def test_a_request_has_the_same_bits_alone_and_in_a_batch(kernels_on):
    rules, requests = RULES["five, early"], 3
    generator = torch.Generator().manual_seed(5)
    slots = torch.arange(requests * rules.beams)
    current, following = tables(len(slots), generator)
    current.length[:] = torch.tensor([3, 20, 41], dtype=torch.int32).repeat_interleave(rules.beams)
    values, indices = candidates("descending", requests, rules, generator)
    max_lengths = torch.full((len(slots),), MAX_TOKENS, dtype=torch.int32)
    prompts = torch.tensor([1, 20, 3], dtype=torch.int32).repeat_interleave(rules.beams)
    for group in (current, following):
        vars(group).update({table: one.to(kernels_on) for table, one in vars(group).items()})
    alone = deepcopy(following)
    options = {"vocabulary": VOCABULARY, "longest": 41}
    given = [tensor.to(kernels_on) for tensor in (slots, values, indices, max_lengths, prompts)]
    advance_beams(current, following, *given, rules, **options)
    for request in range(requests):
        own = slice(request * rules.beams, (request + 1) * rules.beams)
        one = slice(request, request + 1)
        part = (given[0][own], given[1][one], given[2][one], given[3][own], given[4][own])
        advance_beams(current, alone, *(tensor.clone() for tensor in part), rules, **options)
    for table, wanted in vars(following).items():
        assert torch.equal(getattr(alone, table), wanted), table


@pytest.mark.parametrize(
    ("beams", "patience", "enough"),
    [(5, None, 0), (5, 1.0, 5), (5, 2.0, 10), (5, 0.5, 3), (5, 0.7, 4), (3, 1.5, 5), (2, 0.1, 1)],
)
def test_patience_rounds_halves_up_and_takes_one_hypothesis_at_least(beams, patience, enough):
    assert BeamRules(beams, patience=patience).enough == enough


def test_patience_counts_ended_hypotheses_that_are_no_longer_among_the_best(kernels_on):
    rules = BeamRules(2, (2,), patience=1.5)
    current, following = tables(2, torch.Generator().manual_seed(1))
    current.length[:], current.final_score[:] = 3, torch.tensor([-0.1, -0.2])
    current.final_done[:], current.ended_count[:] = True, 2
    slots, prompts = torch.arange(2), torch.ones(2, dtype=torch.int32)
    # An end at beam 0 whose score of -90 is none of the two best.
    values, indices = torch.tensor([[-90.0, -91.0, -92.0, -93.0]]), torch.tensor([[2, 3, 4, 5]])
    max_lengths = torch.full((2,), MAX_TOKENS, dtype=torch.int32)
    for group in (current, following):
        vars(group).update({table: one.to(kernels_on) for table, one in vars(group).items()})
    given = [one.to(kernels_on) for one in (slots, values, indices, max_lengths, prompts)]
    advance_beams(current, following, *given, rules, vocabulary=VOCABULARY, longest=3)
    assert int(following.ended_count[0]) == 3
    assert bool(following.request_done[0])
    assert following.final_score.tolist() == current.final_score.tolist()


def test_penalties_are_powers_of_the_length():
    rules = BeamRules(2, length_penalty=0.7)
    table = rules.penalties(12, torch.device("cpu"))
    assert table is rules.penalties(12, torch.device("cpu"))
    assert table.tolist() == [float(torch.tensor(length**0.7)) for length in range(13)]
    assert BeamRules(2).penalties(5, torch.device("cpu")).tolist() == [0, 1, 2, 3, 4, 5]
