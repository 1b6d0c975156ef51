"""Cost of a step's bookkeeping: it depends on what joins and leaves, not on what runs."""

import gc
import sys
from collections.abc import Callable
from typing import Any

import loops
import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from tritone.scheduler import runner, slot_tables, step_output
from tritone.scheduler.encoder import Encoder
from tritone.scheduler.request import GenerationOptions, Request, RequestOutput
from tritone.scheduler.state import DecodeState


class Operations(TorchDispatchMode):
    """Counter of torch's operations without views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += not function.is_view
        return function(*arguments, **(keywords or {}))


def nothing_new(_model: Any, _cache: Any, state: DecodeState, _batch: Any) -> None:
    """Stand-in for a decode step, which leaves ends as they are."""
    for name in ("request_done", "final_length"):
        getattr(state.following, name).copy_(getattr(state.current, name))


class Loop:
    """A loop without a model's work, in which the requests that are chosen end in the next step."""

    def __init__(self, running: int, monkeypatch: pytest.MonkeyPatch, groups: int = 1) -> None:
        self.ending: list[int] = []
        monkeypatch.setattr(runner, "decode_batch", nothing_new)
        monkeypatch.setattr(Encoder, "_store", lambda *_: None)
        model = loops.tiny_model()
        self.loop = model.generation_loop(num_pages=3 * 600, num_rows=600, encode_budget=10**6, graphs=True)
        self._state = self.loop._runner._state
        self._number, self._groups = 0, groups
        self.submit(running)
        self.step()

    def submit(self, count: int) -> None:
        for _ in range(count):
            options = GenerationOptions(max_length=14, forced_bos_token_id=3 + self._number % self._groups)
            self.loop.submit(Request(self._number, loops.recording(0, 20, 5), options))
            self._number += 1

    def end(self, count: int) -> None:
        """Let so many requests end in the next step."""
        running = list(self.loop._runner._decoder.requests)[:count]
        slots = [one.admission.slots[0] for one in running]
        self._state.current.request_done[slots] = True
        self._state.current.final_length[slots] = 3

    def step(self) -> int:
        """Number of requests that have ended."""
        return sum(isinstance(event, RequestOutput) for event in self.loop.step())


def bytecodes_run(call: Callable[[], Any]) -> int:
    """Python instructions executed by a call."""
    bytecodes = 0

    def tally(frame, event, _argument):
        nonlocal bytecodes
        frame.f_trace_opcodes = True
        bytecodes += event == "opcode"
        return tally

    before = sys.gettrace()
    gc.disable()
    sys.settrace(tally)
    try:
        call()
    finally:
        sys.settrace(before)
        gc.enable()
    return bytecodes


def changing_step(running: int, changes: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Bytecodes and operations of the two steps in which requests end, are released, and others join."""
    loop, operations = Loop(running, monkeypatch), Operations()
    for _ in range(2):
        loop.end(changes)
        loop.submit(changes)

        def steps(loop: Loop = loop) -> None:
            loop.ended = loop.step()
            loop.step()

        with operations:
            operations.count = 0
            bytecodes = bytecodes_run(steps)
        assert loop.ended == changes
    return bytecodes, operations.count


def test_a_step_costs_python_what_joins_and_leaves_and_not_what_runs(monkeypatch):
    few, _ = changing_step(30, 6, monkeypatch)
    many, _ = changing_step(500, 6, monkeypatch)
    assert many < 1.1 * few


def test_launches_and_copies_of_a_step_do_not_grow_with_the_requests_that_join(monkeypatch):
    uploads: list[int] = []
    for module in (slot_tables, step_output):
        monkeypatch.setattr(
            module,
            "upload",
            lambda tensor, device: uploads.append(1) or tensor,
        )
    found = []
    for changes in (2, 24):
        uploads.clear()
        found.append((changing_step(100, changes, monkeypatch)[1], len(uploads)))
    assert found[0] == found[1]
    assert found[0] <= (60, 2)
