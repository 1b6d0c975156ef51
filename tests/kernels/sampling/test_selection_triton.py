"""Several steps of token selection, on kernels and on the CPU."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tritone.kernels.sampling.beams_triton import UNREACHABLE
from tritone.scheduler.request import GenerationOptions
from tritone.scheduler.sampling.select import SamplingGroup, select
from tritone.scheduler.state import DecodeState

VOCABULARY, STEPS, MAX_TOKENS = 14, 5, 9
PLAIN = GenerationOptions(max_length=0, top_k=0, eos_token_ids=(2,))
RULES = {
    "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 2,
    "bad_words_ids": ((3,), (4, 5)),
    "min_length": 3,
    "suppress_tokens": (0,),
    "begin_suppress_tokens": (6,),
}
OPTIONS = {
    "greedy": {},
    "greedy with rules": RULES,
    "sampling": {"do_sample": True, "num_return_sequences": 2},
    "sampling, warped": {"do_sample": True, "temperature": 0.8, "top_k": 6, "top_p": 0.9},
    "beams": {"num_beams": 3, "eos_token_ids": (2, 5)},
    "beams with rules": {"num_beams": 2, "early_stopping": True, "forced_bos_token_id": 7, **RULES},
    "beams, renormalized": {"num_beams": 2, "renormalize_logits": True, "length_penalty": 0.5},
    "sampled beams": {"num_beams": 3, "do_sample": True, "top_k": 8, "temperature": 1.2},
}


class NoWaiting(TorchDispatchMode):
    """Refuses operations that wait for the GPU: reading a number, counting true elements."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function.overloadpacket.__name__
        indices = arguments[1] if name in ("index", "index_put", "index_put_") else ()
        masks = [index for index in indices if index is not None and index.dtype == torch.bool]
        if masks or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal"):
            raise AssertionError(f"{name} waits for the device")
        return function(*arguments, **(keywords or {}))


def begun(options: GenerationOptions, device: str) -> tuple[DecodeState, SamplingGroup]:
    """Three requests before their first step, their slots in no order."""
    each = options.hypotheses
    state = DecodeState(3 * each + 1, MAX_TOKENS, torch.device(device))
    slots = torch.randperm(3 * each + 1, generator=torch.Generator().manual_seed(0))[: 3 * each]
    scores = torch.zeros(3, each)
    if options.num_beams > 1:
        scores[:, 1:] = UNREACHABLE
    tables = state.current
    tables.tokens[slots, 0] = options.decoder_start_token_id
    tables.length[slots] = 1
    tables.score[slots] = scores.flatten().to(device)
    tables.final_score[slots] = UNREACHABLE
    forced = options.forced_bos_token_id or 0
    max_lengths = torch.tensor([MAX_TOKENS, 4, MAX_TOKENS], dtype=torch.int32)
    group = SamplingGroup(
        options=options,
        rows=slice(0, 3 * each),
        slots=slots.to(device),
        max_lengths=max_lengths.repeat_interleave(each).to(device),
        min_lengths=torch.full((3 * each,), options.min_length, dtype=torch.int32, device=device),
        forced_first=torch.full((3 * each,), forced, dtype=torch.int32, device=device),
        prompt_lengths=torch.ones(3 * each, dtype=torch.int32, device=device),
        seeds=torch.tensor([5, 2**40, 5]).repeat_interleave(each).to(device),
        sequence_index=torch.arange(each).repeat(3).to(device),
    )
    return state, group


def logits_of(step: int, rows: int) -> Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(step)) * 2


def run(options: GenerationOptions, device: str, *, waiting: bool) -> tuple[list[Tensor], DecodeState]:
    """Some steps, without a model: every row's logits are random."""
    state, group = begun(options, device)
    choices = []
    for step in range(STEPS):
        logits = logits_of(step, group.rows.stop).to(device)
        if waiting or step == 0:  # the tables that kernels read are made in a first step
            choice = select(group, logits, state, step + 1)
        else:
            with NoWaiting():
                choice = select(group, logits, state, step + 1)
        choices.append(choice.final())
        state.swap()
    return choices, state


@pytest.mark.parametrize("name", OPTIONS)
def test_steps_on_kernels_choose_what_the_cpu_chooses_and_wait_for_nothing(name, kernels_on, monkeypatch):
    options = replace(PLAIN, **OPTIONS[name])
    found, state = run(options, kernels_on, waiting=False)
    with monkeypatch.context() as patch:
        patch.delenv("TRITON_INTERPRET", raising=False)
        wanted, wanted_state = run(options, "cpu", waiting=True)
    for scores, wanted_scores in zip(found, wanted, strict=True):
        torch.testing.assert_close(scores.cpu(), wanted_scores, rtol=2e-5, atol=2e-5)
    tables, wanted_tables = state.current, wanted_state.current
    for table in ("tokens", "length", "done", "final_tokens", "final_length", "final_done", "request_done"):
        assert torch.equal(getattr(tables, table).cpu(), getattr(wanted_tables, table)), table
    for table in ("score", "final_score"):
        torch.testing.assert_close(
            getattr(tables, table).cpu(), getattr(wanted_tables, table), rtol=2e-5, atol=2e-5
        )
    assert bool(state.current.request_done.any()), "at least the request of four tokens has ended"


@pytest.mark.parametrize("name", ["greedy", "sampling, warped", "beams", "beams with rules"])
def test_logits_of_half_precision_are_read_as_they_are(name, dtype, kernels_on):
    options = replace(PLAIN, **OPTIONS[name])
    chosen = []
    for widened in (False, True):
        state, group = begun(options, kernels_on)
        logits = logits_of(0, group.rows.stop).to(kernels_on, dtype)
        choice = select(group, logits.float() if widened else logits, state, 1)
        assert choice.final().dtype == torch.float32
        chosen.append(state.following.tokens)
    assert torch.equal(*chosen)
