"""The newest tokens of sequences, read for a decode step and written behind it, on kernels and on the CPU."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tritone.kernels.attention.kv_cache import PAGE_SIZE
from tritone.kernels.sampling.append import append, append_reference
from tritone.kernels.sampling.step_inputs import StepInputs, step_inputs, step_inputs_reference

PAD, MAX_TOKENS, STALE = 1, 40, -7


def tables(slots: int, length: list[int], done: Tensor) -> tuple[SimpleNamespace, SimpleNamespace]:
    """Tables of a state in both buffers, of which the other lacks each sequence's newest token."""
    generator = torch.Generator().manual_seed(len(length))
    current = SimpleNamespace(
        tokens=torch.randint(3, 9, (slots, MAX_TOKENS), generator=generator, dtype=torch.int32),
        origin=torch.randint(0, 3, (slots, MAX_TOKENS), generator=generator, dtype=torch.int32),
        log_probabilities=torch.randn(slots, MAX_TOKENS, generator=generator),
        length=torch.tensor(length, dtype=torch.int32),
        score=torch.randn(slots, generator=generator),
        done=done.clone(),
        final_length=torch.where(done, torch.tensor(length), 0).int(),
        final_done=done.clone(),
        request_done=torch.zeros(slots, dtype=torch.bool),
    )
    following = deepcopy(current)
    for name in ("length", "score", "final_length"):
        getattr(following, name).fill_(STALE)
    for slot, newest in enumerate(length):
        following.tokens[slot, newest - 1 :] = following.origin[slot, newest - 1 :] = STALE
    return current, following


@pytest.mark.parametrize("ends", [(), (2,), (2, 5, 7), (2, 3, 4, 5, 6)], ids="{0} ends".format)
@pytest.mark.parametrize("hypotheses", [1, 3])
@pytest.mark.parametrize("requests", [1, 11, 33])
def test_every_sequence_gets_its_token_and_ends_where_the_reference_ends_it(
    requests, hypotheses, ends, kernels_on
):
    rows = requests * hypotheses
    generator = torch.Generator().manual_seed(rows)
    lengths = torch.randint(1, MAX_TOKENS, (requests,), generator=generator).repeat_interleave(hypotheses)
    lengths[-hypotheses:] = MAX_TOKENS  # a request at its very end
    slots = torch.randperm(rows + 2, generator=generator)[:rows]
    length = torch.ones(rows + 2, dtype=torch.int64)
    length[slots] = lengths
    done = torch.zeros(rows + 2, dtype=torch.bool)
    done[slots[::2]] = True
    done[slots[-hypotheses:]] = True
    chosen = torch.randint(2, 9, (rows,), generator=generator)
    log_probabilities = torch.randn(rows, generator=generator)
    max_lengths = (lengths + torch.arange(requests).repeat_interleave(hypotheses) % 2 + 1).int()
    current, following = tables(rows + 2, length.tolist(), done)
    first = slots.view(-1, hypotheses)[:, 0]
    current.request_done[first] = current.done[slots].view(-1, hypotheses).all(-1)
    found = deepcopy((current, following))
    options = {"hypotheses": hypotheses, "end_tokens": ends, "pad_token": PAD}
    given = slots, chosen, log_probabilities, max_lengths
    append_reference(current, following, *given, **options)
    for group in found:
        vars(group).update({name: table.to(kernels_on) for name, table in vars(group).items()})
    for _ in range(2):  # a step that failed is repeated
        append(*found, *(tensor.to(kernels_on) for tensor in given), **options)
    for name, wanted in vars(following).items():
        assert torch.equal(getattr(found[1], name).cpu(), wanted), name
    for name, wanted in vars(current).items():
        assert torch.equal(getattr(found[0], name).cpu(), wanted), name
    ended = current.request_done[first].repeat_interleave(hypotheses)
    grown = following.length[slots] - current.length[slots]
    assert torch.equal(grown, (~ended).int())
    read = torch.arange(MAX_TOKENS) < current.length[slots][:, None]
    assert torch.equal(following.tokens[slots][read], current.tokens[slots][read]), "histories are whole"


@pytest.mark.parametrize("hypotheses", [0, 1, 3], ids=["no beams", "1 beam", "3 beams"])
@pytest.mark.parametrize("rows", [3, 33])
def test_a_step_reads_each_newest_token_and_where_its_keys_go(rows, hypotheses, kernels_on):
    generator = torch.Generator().manual_seed(rows)
    each = max(hypotheses, 1)
    lengths = torch.randint(1, MAX_TOKENS + 1, (rows // each + 1,), generator=generator)
    lengths = lengths.repeat_interleave(each)
    slots = torch.randperm(len(lengths), generator=generator)[:rows]
    of_slot = torch.ones(len(lengths), dtype=torch.int64).index_put((slots,), lengths[:rows])
    state = tables(len(lengths), of_slot.tolist(), torch.zeros(len(lengths), dtype=torch.bool))[0]
    capacity = torch.full((rows,), MAX_TOKENS - 2, dtype=torch.int32)
    index = (torch.arange(rows) % 3).int()
    blocks = -(-MAX_TOKENS // PAGE_SIZE)
    pages = torch.randperm(rows * blocks, generator=generator).int().view(rows, blocks)
    given = [state.tokens, state.length, state.origin, slots, capacity, index, pages]
    cu_rows = torch.arange(0, rows + 1, each, dtype=torch.int32)
    longest = MAX_TOKENS - 2 if hypotheses else 0
    beams = (cu_rows, longest) if hypotheses else (None, longest)
    copies = [tensor.clone().to(kernels_on) for tensor in given]
    wanted = StepInputs(*step_inputs_reference(*given, *beams))
    found = step_inputs(*copies, beams[0] if beams[0] is None else cu_rows.to(kernels_on), longest)
    for name in ("tokens", "positions", "cache_positions", "lengths"):
        assert torch.equal(getattr(found, name).cpu(), getattr(wanted, name)), name
    assert torch.equal(copies[2].cpu(), state.origin)
    assert int(wanted.lengths.max()) <= MAX_TOKENS - 2, "an ended row writes to no page that it does not have"
    if not hypotheses:
        assert found.request_lengths is None
        assert found.origins is None
        return
    assert torch.equal(found.request_lengths.cpu(), wanted.request_lengths)
    used = torch.arange(longest) < wanted.lengths[:, None]
    assert torch.equal(found.origins.cpu()[used], wanted.origins[used])
    newest = found.origins.cpu().gather(1, wanted.positions[:, None])[:, 0]
    assert torch.equal(newest, index)
