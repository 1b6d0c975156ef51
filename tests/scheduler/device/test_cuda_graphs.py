"""Decode steps on static tensors: bits equal to plain steps, and no work that a CUDA graph would not see.

Recording on a GPU is tested in tests/test_gpu.py; substitutes record here.
"""

import gc
import logging
import weakref
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import loops
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import finish, tiny_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tritone.kernels.runtime.launch import Case
from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration
from tritone.scheduler import runner
from tritone.scheduler.config import RunnerConfig
from tritone.scheduler.device import cuda_graphs as graphs
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.request import GenerationOptions, Request, RequestOutput
from tritone.scheduler.runner import ModelRunner

FEATURES, COUNT = 5, 12
# No token twice, or a model this small would say one until its limit: so ends come at all lengths.
GREEDY = GenerationOptions(max_length=14, eos_token_ids=(2, 5, 7), no_repeat_ngram_size=1)
BEAMS = replace(GREEDY, num_beams=3)


@pytest.fixture(scope="module")
def model() -> Speech2TextForConditionalGeneration:
    return tiny_model(decoder_layers=2, max_source_positions=60, max_target_positions=40)


def request(index: int, rules: GenerationOptions) -> Request:
    """A request of one of several lengths, limits and minima, which differ inside a group."""
    features = loops.recording(100 + index, 1 + 17 * (index % 5), FEATURES)
    options = replace(rules, max_length=(4, 14, 17, 18, 35)[index % 5], min_length=(1, 6, 3)[index % 3])
    return Request(index, features, options)


@pytest.fixture(scope="module")
def alone(model) -> dict[tuple[GenerationOptions, int], RequestOutput]:
    found = {}
    for rules in (GREEDY, BEAMS):
        for index in range(COUNT):
            loop = model.generation_loop(num_pages=40, num_rows=3)
            loop.submit(request(index, rules))
            found[rules, index] = finish(loop)[index]
    assert len({len(one.hypotheses[0].token_ids) for one in found.values()}) > 3
    return found


def recording(record: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let loops record by `record` on this device."""
    monkeypatch.setattr(runner, "record_on", lambda device: record)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    rules=st.sampled_from([GREEDY, BEAMS]),
    history=st.lists(st.sampled_from(["submit", "submit", "nothing", "cancel"]), min_size=20, max_size=40),
    ahead=st.integers(0, 3),
    rows=st.sampled_from([3, 9, 40]),
    recorded=st.booleans(),
    overlap=st.booleans(),
    order=st.permutations(range(COUNT)),
)
def test_batches_in_buckets_give_what_each_request_gives_alone(
    model, alone, rules, history, ahead, rows, recorded, overlap, order
):
    with pytest.MonkeyPatch.context() as patch:
        recording((lambda step: step) if recorded else None, patch)
        loop = model.generation_loop(
            num_pages=200, num_rows=rows, encode_budget=20, ahead=ahead, graphs=True, overlap=overlap
        )
    to_come, seen, cancelled = list(order), {}, set()
    for action in history:
        if action == "submit" and to_come:
            loop.submit(request(to_come.pop(), rules))
        elif action == "cancel" and to_come and loop.cancel(order[-1]):
            cancelled.add(order[-1])
        seen |= {event.request_id: event for event in loop.step()}
    seen |= finish(loop)
    assert loop._runner._decoder.graphs._static, "steps went through buckets"
    for index, output in seen.items():
        if index not in cancelled:
            assert output == alone[rules, index]


@pytest.mark.parametrize("rules", [GREEDY, BEAMS])
def test_every_table_has_the_bits_of_plain_steps_and_the_idle_slot_stays(model, rules):
    """The whole state and cache are compared, not only the results."""
    runners = []
    for bucketed in (False, True):
        loop = model.generation_loop(num_pages=60, num_rows=15, graphs=bucketed)
        for index in range(5):
            loop.submit(request(index, rules))
        for _ in range(9):
            loop.step()
        runners.append(loop._runner)
    plain, bucketed = runners
    found, wanted = bucketed._state.current, plain._state.current
    for name in ("length", "score", "done", "final_length", "final_score", "final_done", "request_done"):
        assert torch.equal(getattr(found, name)[:-1], getattr(wanted, name)), name
    for name in ("tokens", "origin"):
        for slot, length in enumerate(wanted.length.tolist()):
            one, other = (getattr(tables, name)[slot, :length] for tables in (found, wanted))
            assert torch.equal(one, other), name
    assert torch.equal(bucketed._cache.keys[:, :-1], plain._cache.keys)
    assert torch.equal(bucketed._cache.values[:, :-1], plain._cache.values)
    for tables in bucketed._state.buffers:
        assert (int(tables.length[-1]), float(tables.score[-1]), bool(tables.done[-1])) == (1, 0.0, True)
        assert not tables.tokens[-1].any()
        assert not tables.origin[-1].any()


@pytest.mark.parametrize(
    ("count", "rounded"), [(1, 1), (2, 2), (3, 4), (5, 6), (6, 6), (7, 8), (9, 12), (13, 16), (385, 512)]
)
def test_buckets_are_of_powers_of_two_and_three_quarters_of_them(count, rounded):
    assert graphs.rounded(count) == rounded


def test_widths_of_page_tables_are_few():
    assert [graphs.rounded_blocks(count) for count in (1, 16, 17, 64, 65, 300)] == [16, 16, 64, 64, 256, 1024]


SAMPLED = replace(GREEDY, do_sample=True, num_return_sequences=2, temperature=1.5)
KINDS = [
    GREEDY,
    BEAMS,
    replace(GREEDY, forced_bos_token_id=9),
    replace(GREEDY, forced_bos_token_id=10),
    SAMPLED,
    replace(BEAMS, do_sample=True, num_beams=2),
]


def kinds_request(index: int) -> Request:
    """A request of one of all kinds, some with scores to keep."""
    given = request(index, KINDS[index % len(KINDS)])
    return replace(given, options=replace(given.options, seed=index), keep_scores=index % 4 == 1)


@pytest.mark.parametrize("recorded", [False, True])
def test_steps_of_all_kinds_go_through_buckets_side_by_side(recorded, model, monkeypatch):
    recording((lambda step: step) if recorded else None, monkeypatch)
    loop = model.generation_loop(num_pages=200, num_rows=24, ahead=2, graphs=True, overlap=True)
    for index in range(COUNT):
        loop.submit(kinds_request(index))
    found = finish(loop)
    static = loop._runner._decoder.graphs._static
    assert len({bucket.rules for bucket in static}) >= len(KINDS) - 1, "two languages share a group"
    assert {bucket.keep_scores for bucket in static} == {False, True}
    for index, output in found.items():
        alone = model.generation_loop(num_pages=40, num_rows=3)
        alone.submit(kinds_request(index))
        assert loops.same(output, finish(alone)[index]), index
        assert bool(output.scores) == (index % 4 == 1)


def test_a_step_is_recorded_the_second_time_and_played_back_from_then_on(model, alone, monkeypatch):
    played = []

    def record(step: Callable[[], None]) -> Callable[[], None]:
        number = len(played)
        played.append(0)

        def play() -> None:
            played[number] += 1
            step()

        return play

    recording(record, monkeypatch)
    loop = model.generation_loop(num_pages=60, num_rows=3, graphs=True)
    loop.submit(request(4, GREEDY))
    output = finish(loop)[4]
    steps = len(output.hypotheses[0].token_ids) - 1
    assert output == alone[GREEDY, 4]
    assert steps > 4
    assert loop.stats().graphs == len(played) == 2, "one for each buffer of the state"
    assert sum(played) == steps - 2


def test_where_recording_fails_one_warning_is_given_and_results_are_the_same(
    model, alone, monkeypatch, caplog
):
    tried = []

    def record(step: Callable[[], None]) -> Callable[[], None]:
        tried.append(step)
        raise RuntimeError("operation not permitted when stream is capturing")

    recording(record, monkeypatch)
    loop = model.generation_loop(num_pages=200, num_rows=12, graphs=True)
    for index in range(COUNT):
        loop.submit(request(index, GREEDY))
    with caplog.at_level(logging.WARNING):
        found = finish(loop)
    assert found == {index: alone[GREEDY, index] for index in range(COUNT)}
    assert len(tried) == 1
    (record_,) = caplog.records
    assert "could not be recorded as a CUDA graph" in record_.message
    assert "not permitted when stream is capturing" in record_.message
    assert loop.stats().graphs == 0


def test_no_more_buckets_are_made_than_there_may_be(model, alone):
    config = RunnerConfig(max_recorded_steps=2)
    loop = GenerationLoop(ModelRunner(model, num_pages=200, num_slots=12, graphs=True, config=config))
    for index in range(COUNT):
        loop.submit(request(index, GREEDY))
    assert finish(loop) == {index: alone[GREEDY, index] for index in range(COUNT)}
    assert len(loop._runner._decoder.graphs._static) == 1


def test_a_bucket_keeps_no_inputs_alive(model):
    loop = model.generation_loop(num_pages=60, num_rows=3, graphs=True)
    given = request(1, GREEDY)
    inputs = weakref.ref(given.inputs)
    loop.submit(given)
    del given
    finish(loop)
    gc.collect()
    assert loop._runner._decoder.graphs._static
    assert inputs() is None


class Tape(TorchDispatchMode):
    """Substitute for a CUDA graph: every operation and launch of a step with its tensors and numbers.

    A replay writes results to the addresses of the first time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "pin_memory"):
            raise RuntimeError(f"{name}: not permitted when stream is capturing")
        out = function(*arguments, **(keywords or {}))
        if not name.startswith(("empty", "new_empty")):  # memory, in a graph, is just there
            self.entries.append((function, arguments, keywords or {}, out))
        return out

    def launched(self, case: Case, grid: tuple[int, ...], *arguments: Any) -> None:
        self.entries.append((case, grid, arguments))
        LAUNCH(case, grid, *arguments)

    def play(self) -> None:
        for first, *rest in self.entries:
            if isinstance(first, Case):
                LAUNCH(first, rest[0], *rest[1])
                continue
            arguments, keywords, out = rest
            again = first(*arguments, **keywords)
            for there, made in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(there, Tensor) and there.data_ptr() != made.data_ptr():
                    there.copy_(made)


LAUNCH = Case.launch


def tape_recorder(tables: Callable[[], list[Tensor]]) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """A recorder that, like a CUDA graph's, changes nothing by itself."""

    def record(step: Callable[[], None]) -> Callable[[], None]:
        before = [tensor.clone() for tensor in tables()]
        tape = Tape()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Case, "launch", lambda case, *rest: tape.launched(case, *rest))
            with tape:
                step()
        for tensor, old in zip(tables(), before, strict=True):
            tensor.copy_(old)
        return tape.play

    return record


@pytest.mark.parametrize(
    "rules",
    [GREEDY, replace(BEAMS, num_beams=2), SAMPLED, replace(BEAMS, num_beams=2, do_sample=True)],
)
def test_a_step_on_kernels_is_played_back_from_a_tape(rules, model, kernels_on, monkeypatch):
    """Host-side numbers and addresses are fixed on the tape as in a CUDA graph."""
    if kernels_on != "cpu":
        pytest.skip("a GPU records for itself; see tests/test_gpu.py")
    found = []
    for recorder in (False, True):
        loops: list[GenerationLoop] = []

        def own_tables(loops: list[GenerationLoop] = loops) -> list[Tensor]:
            own = loops[0]._runner
            state = [getattr(tables, one.name) for tables in own._state.buffers for one in fields(tables)]
            return [*state, own._cache.keys, own._cache.values]

        recording(tape_recorder(own_tables), monkeypatch)
        loop = model.generation_loop(num_pages=60, num_rows=9, graphs=recorder)
        loops.append(loop)
        limits = (9, 7, 9)
        for index, limit in enumerate(limits):
            given = request(index, rules)
            loop.submit(replace(given, options=replace(given.options, max_length=limit)))
        results = {}
        for _ in range(4):
            results |= {event.request_id: event for event in loop.step()}
        late = request(7, rules)  # into the bucket's place that was idle
        loop.submit(replace(late, options=replace(late.options, max_length=6)))
        found.append(results | finish(loop))
    assert found[0] == found[1]
    assert loop.stats().graphs > 1, "some on both buffers of the state"
