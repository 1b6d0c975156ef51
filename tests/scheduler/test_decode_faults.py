"""Faults in decode steps: the culprit fails alone, and all others get the bits that they get undisturbed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import loops
import pytest
import torch
from loops import finish, same, take_step, tiny_model
from torch import Tensor

from tritone.kernels.slots.admit import COLUMNS
from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration
from tritone.scheduler import decode_step, runner, slot_tables
from tritone.scheduler.batch import Batch
from tritone.scheduler.cache.attention_metadata import AttentionMetadata
from tritone.scheduler.decoder import Decoder
from tritone.scheduler.device.cpu_pool import CpuWorkerPool
from tritone.scheduler.device.cuda_graphs import DecodeGraphs, StaticBatch
from tritone.scheduler.encoder import Encoder
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.prefill import Prefill
from tritone.scheduler.request import FinishReason, GenerationOptions, Request, RequestOutput
from tritone.scheduler.sampling import select
from tritone.scheduler.step_output import HostCopy

FEATURES = 5
# No token twice, or a model this small would say one until its limit: so ends come at all lengths.
GREEDY = GenerationOptions(max_length=12, eos_token_ids=(2, 5, 7), no_repeat_ngram_size=1)
BEAMS = replace(GREEDY, num_beams=5)
SAMPLED = replace(GREEDY, do_sample=True, num_return_sequences=2, seed=8)
PROMPTED = replace(GREEDY, prompt_tokens=(2, 9, 4), no_speech_token=3)
TWO_BEAMS = replace(BEAMS, num_beams=2, early_stopping=True, prompt_tokens=(2, 0, 3), choices=(8, 9, 10))
KINDS = [GREEDY, BEAMS, PROMPTED, SAMPLED, GREEDY, TWO_BEAMS, BEAMS]
VICTIM = 2


class PanicException(BaseException):
    """As pyo3 raises it for a panic in Rust."""


ERRORS = [ValueError, MemoryError, torch.OutOfMemoryError, PanicException]


@pytest.fixture(scope="module")
def model() -> Speech2TextForConditionalGeneration:
    return tiny_model(decoder_layers=2)


def request(index: int, options: GenerationOptions | None = None) -> Request:
    features = loops.recording(index, 1 + 13 * index % 90, FEATURES)
    options = replace(options or KINDS[index % len(KINDS)], token_log_probs=index % 3 == 0)
    return Request(index, features, options, stream=index % 2 == 0, keep_scores=index % 3 == 0)


def alone_of(model: Any, given: list[Request]) -> dict[int, RequestOutput]:
    outputs: dict[int, RequestOutput] = {}
    for one in given:
        loop = model.generation_loop(num_pages=40, num_rows=5)
        loop.submit(one)
        finish(loop, outputs)
    return outputs


@pytest.fixture(scope="module")
def alone(model) -> dict[int, RequestOutput]:
    """Output of each request by itself, undisturbed."""
    outputs = alone_of(model, [request(index) for index in range(len(KINDS))])
    lengths = {len(output.hypotheses[0].token_ids) for output in outputs.values()}
    assert len(lengths) > 2, "some end at their limit, some before"
    return outputs


def plain_request(index: int) -> Request:
    """A request whose steps can be recorded with those of all others."""
    return replace(request(index, GREEDY), keep_scores=False)


@pytest.fixture(scope="module")
def plain(model) -> dict[int, RequestOutput]:
    return alone_of(model, [plain_request(index) for index in range(len(KINDS))])


@dataclass
class Site:
    """Call of a decode step at which a fault is raised, once the call has done its work."""

    owner: Any
    name: str
    touches: Callable[..., bool]  # whether the victim takes part, by its admission and the call's arguments


def in_pages(admission: Any, attention: AttentionMetadata, *_: Any) -> bool:
    return admission.cross_pages[0] in attention.cross.tables[:, 0].tolist()


def slots_of(admitted: Tensor, rows: int) -> list[int]:
    return admitted[: rows * COLUMNS].view(rows, COLUMNS)[:, 0].tolist()


def among(admission: Any, requests: Any) -> bool:
    return any(one.admission is admission for one in requests)


SITES = {
    "encode": Site(Encoder, "_store", lambda own, _, chunk: among(own, chunk)),
    "admit": Site(
        slot_tables, "admit", lambda own, admitted, rows, *_: own.slots[0] in slots_of(admitted, rows)
    ),
    "prefill": Site(Prefill, "_prefill", lambda own, _, chunk: among(own, chunk)),
    "batch": Site(Batch, "of", lambda own, groups: any(among(own, group.requests) for group in groups)),
    "self-attention": Site(AttentionMetadata, "stored_attention", in_pages),
    "cross-attention": Site(AttentionMetadata, "cross_attention", in_pages),
    "decode": Site(None, "decode", lambda own, tokens, positions, attention: in_pages(own, attention)),
    "select": Site(decode_step, "select", lambda own, group, *_: own.slots[0] in group.slots.tolist()),
    "append": Site(
        select, "append", lambda own, _, __, slots, *rest, **named: own.slots[0] in slots.tolist()
    ),
    "results": Site(Decoder, "_results", lambda own, _, batch, *rest: among(own, batch.requests)),
    "read": Site(runner, "read_hypotheses", lambda own, ended, *_: among(own, ended)),
}
TRANSIENT = {
    "values": Site(HostCopy, "values", lambda own, *_: True),
    "load": Site(StaticBatch, "load", lambda own, *_: True),
    "graphs": Site(DecodeGraphs, "decode", lambda own, *_: True),
    **SITES,
}
LOOPS = {
    "waiting": {"ahead": 0},
    "ahead": {"ahead": 2},
    "graphs": {"ahead": 2, "graphs": True, "overlap": True},
    "pool": {"ahead": 0},
}


def make_loop(model: Any, kind: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> GenerationLoop:
    if kind == "pool":
        monkeypatch.setattr(runner.CpuWorkerPool, "for_device", lambda *_: CpuWorkerPool(2))
    return model.generation_loop(num_pages=120, num_rows=30, **{**LOOPS[kind], **changes})


@contextmanager
def faults(
    site: Site,
    loop: GenerationLoop,
    model: Any,
    error: type[BaseException],
    times: int = 10**6,
    skip: int = 0,
) -> Iterator[list[int]]:
    """Raise `error` at a site where the victim takes part, from the `skip`-th call on, `times` times."""
    owner = site.owner or model
    original, raised, seen = getattr(owner, site.name), [0], [0]
    # A batch's class method is bound already; a function of a module or of the model takes no self.
    static = owner in (Batch, decode_step, runner, model)

    def call(*arguments: Any, **keywords: Any) -> Any:
        result = original(*arguments, **keywords)
        running = loop._runner._requests.get(VICTIM)
        if running is not None and site.touches(running.admission, *arguments, **keywords):
            seen[0] += 1
            if seen[0] > skip and raised[0] < times:
                raised[0] += 1
                raise error("injected out of memory" if error is torch.OutOfMemoryError else "injected")
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, site.name, staticmethod(call) if static and owner is Batch else call)
        yield raised


def run(loop: GenerationLoop, given: list[Request]) -> dict[int, RequestOutput]:
    """Outputs of requests; tokens that were streamed must be those of the output."""
    outputs: dict[int, RequestOutput] = {}
    tokens: dict[int, list[int]] = {}
    for one in given:
        loop.submit(one)
    for _ in range(300):
        if not loop.has_work:
            break
        for piece in take_step(loop, outputs):
            tokens.setdefault(piece.request_id, []).extend(piece.token_ids)
    loops.assert_empty(loop)
    assert loop._scheduler.slots_used == 0
    for one in given:
        if one.stream and one.options.hypotheses == 1 and (found := outputs[one.request_id].hypotheses):
            prompt = len(one.options.prompt)
            assert tuple(tokens[one.request_id]) == found[0].token_ids[prompt:]
    assert outputs.keys() == {one.request_id for one in given}
    return outputs


def check(loop: GenerationLoop, outputs: dict, alone: dict, failed: set[int] = frozenset()) -> None:
    """All but `failed` are as alone, and so is everything that the loop serves afterwards."""
    for index, output in outputs.items():
        if index in failed:
            assert (output.finish_reason, output.hypotheses) == (FinishReason.ERROR, ())
            assert isinstance(output.error, Exception)
            assert "injected" in str(output.error)
        else:
            assert same(output, alone[index]), index
    for index, output in run(loop, [request(index) for index in outputs]).items():
        assert same(output, alone[index]), f"{index} after the fault"


def errors_for(name: str, kind: str) -> list[type[BaseException]]:
    """All errors in the plainest loop, one in each of the others."""
    if kind == "waiting":
        return ERRORS
    return [ERRORS[(list(TRANSIENT).index(name) + list(LOOPS).index(kind)) % len(ERRORS)]]


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("name", SITES)
def test_a_request_that_fails_wherever_it_is_computed_fails_alone(name, kind, model, alone, monkeypatch):
    for skip, error in enumerate(errors_for(name, kind)):
        skip = 0 if name in ("encode", "admit", "prefill", "batch", "read") else skip  # those are called once
        loop = make_loop(model, kind, monkeypatch)
        with faults(SITES[name], loop, model, error, skip=skip) as raised:
            outputs = run(loop, [request(index) for index in range(len(KINDS))])
        assert raised[0] >= 2, "it fails in company or alone, and alone again"
        check(loop, outputs, alone, {VICTIM})
        assert type(outputs[VICTIM].error) in (error, RuntimeError)


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("name", TRANSIENT)
def test_an_error_that_passes_fails_no_request(name, kind, model, alone, plain, monkeypatch):
    recorded = name in ("load", "graphs")
    for skip, error in enumerate(errors_for(name, kind)):
        loop = make_loop(model, kind, monkeypatch)
        with faults(TRANSIENT[name], loop, model, error, times=1, skip=skip):
            outputs = run(loop, [plain_request(index) if recorded else request(index) for index in alone])
        for index, output in outputs.items():
            assert same(output, (plain if recorded else alone)[index])
        check(loop, dict(alone), alone)
