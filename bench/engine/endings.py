"""Ends of requests on GPUs that take no time, whose decode steps compute nothing.

A step's kernels would append a token to every hypothesis and end some. In their place `Endings` writes the
tables that the host reads, so that a request ends after as many tokens as people say in its recording. It
writes them by NumPy, and its own time is known, since no GPU's host spends it.
"""

import ctypes
import functools
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tritone.kernels.slots.finished import BEFORE, EndedTables, finished
from tritone.scheduler import runner as runners
from tritone.scheduler import step_output
from tritone.scheduler.request import AudioExcerpt, Request
from tritone.scheduler.scheduler import Step

from .. import fake_gpu
from ..common.workload import TOKENS_PER_SECOND

_FEATURES_PER_SECOND = 100
_FIRST_WORD = 4  # token ids below are special
_KINDS = {"torch.int32": ctypes.c_int32, "torch.bool": ctypes.c_bool, "torch.float32": ctypes.c_float}


class Endings:
    """Tables of one runner's decode state, as its decode steps would leave them.

    Args:
        runner: runner on a fake GPU that generates.
    """

    current: "Endings | None" = None  # of the runner made last

    def __init__(self, runner: Any) -> None:
        self.seconds = 0.0  # of the loop's thread, spent here
        self.steps = self.nodes = 0  # decode steps, and launches of kernels in them, recorded or not
        self._state, self._front_end = runner._state, runner._front_end
        slots, length = self._state.buffers[0].tokens.shape
        self._target = np.zeros(slots, np.int32)  # length of a slot's sequence once ended
        config = runner.model.config.get_text_config()
        end = config.eos_token_id  # Whisper's special tokens and times lie behind its text
        words = end if isinstance(end, int) and end > _FIRST_WORD else config.vocab_size
        rng = np.random.default_rng(0)
        self._words = rng.integers(_FIRST_WORD, words, (slots, length), dtype=np.int32)
        self._all = np.arange(slots)
        self._tables = [{name: _array(getattr(one, name)) for name in _NAMES} for one in self._state.buffers]
        for tables in self._tables:
            for name in ("tokens", "final_tokens"):
                tables[name][:] = self._words
            tables["final_score"][:] = -1.0

    def admit(self, plan: Step, admitted: Mapping[int, Request]) -> None:
        """Note how long the sequences of new requests become, and start them."""
        begin = time.thread_time()
        for admission in plan.admitted:
            request = admitted[admission.request_id]
            if request.options is None:
                continue
            slots = list(admission.slots)
            prompt = len(request.options.prompt)
            words = max(round(TOKENS_PER_SECOND * self._duration(request)), 1)
            length = min(prompt + words + 1, request.options.max_length)
            end = request.options.eos_token_ids[0]
            self._target[slots] = length
            for tables in self._tables:
                tables["length"][slots] = prompt
                for name in ("done", "final_done", "request_done"):
                    tables[name][slots] = False
                for name in ("tokens", "final_tokens"):
                    tables[name][slots] = self._words[slots]
                    tables[name][slots, length - 1] = end
        self.seconds += time.thread_time() - begin

    def step(self, nodes: int) -> None:
        """Append a token to every sequence that has not ended, in the buffer that the step writes."""
        begin = time.thread_time()
        now, new = self._tables[self._state.buffer], self._tables[1 - self._state.buffer]
        length = np.minimum(now["length"] + 1, np.maximum(self._target, 1))
        ended = length >= self._target
        new["length"][:] = length
        new["final_length"][:] = length
        for name in ("done", "final_done", "request_done"):
            new[name][:] = ended
        last = np.maximum(length - 1, 0)
        new["tokens"][self._all, last] = new["final_tokens"][self._all, last]  # a step that ran has written 0
        for name in ("score", "final_score"):
            new[name][:] = -1.0
        self.steps += 1
        self.nodes += nodes
        self.seconds += time.thread_time() - begin

    def _duration(self, request: Request) -> float:
        inputs = request.inputs
        if isinstance(inputs, AudioExcerpt):
            return inputs.samples.shape[0] / self._front_end.sampling_rate
        rate = self._front_end.sampling_rate if inputs.dim() == 1 else _FEATURES_PER_SECOND
        return inputs.shape[0] / rate


_NAMES = (
    *("tokens", "length", "done", "final_tokens", "final_length"),
    *("score", "final_score", "final_done", "request_done"),
)


def install() -> None:
    """Give every runner that is made from now on its `Endings`; after `fake_gpu.install()`."""
    create, launch, decode = runners.ModelRunner.__init__, runners.ModelRunner.launch, runners.decode_batch

    @functools.wraps(create)
    def created(runner: Any, *arguments: Any, **options: Any) -> None:
        create(runner, *arguments, **options)
        Endings.current = Endings(runner) if runner.num_slots else None

    @functools.wraps(launch)
    def launched(runner: Any, plan: Step, admitted: Mapping[int, Request]) -> Any:
        if Endings.current is not None:
            Endings.current.admit(plan, admitted)
        return launch(runner, plan, admitted)

    @functools.wraps(decode)
    def decoded(*arguments: Any, **options: Any) -> Any:
        before = fake_gpu.counts()
        result = decode(*arguments, **options)
        used = fake_gpu.counts() - before
        if Endings.current is not None and not torch.cuda.is_current_stream_capturing():
            Endings.current.step(used.launches + used.operations)
        return result

    def replayed(graph: Any) -> None:
        if Endings.current is not None:
            Endings.current.step(graph.nodes)

    def read(tables: EndedTables, ended: torch.Tensor, longest: int) -> torch.Tensor:
        found, seconds = finished_on_host(tables, ended, longest)
        if Endings.current is not None:
            Endings.current.seconds += seconds
        return found

    step_output.finished = read
    runners.ModelRunner.__init__ = created  # type: ignore[method-assign]
    runners.ModelRunner.launch = launched  # type: ignore[method-assign]
    runners.decode_batch = decoded
    torch.cuda.CUDAGraph.replayed = staticmethod(replayed)  # type: ignore[attr-defined]


def finished_on_host(tables: EndedTables, ended: torch.Tensor, longest: int) -> tuple[torch.Tensor, float]:
    """Launch `finished` on a fake GPU, and write by NumPy what its kernel would; also the seconds of that."""
    found = finished(tables, ended, longest)
    begin = time.thread_time()
    slots, searched = _array(ended).T
    out = _array(found)
    for row, (slot, by_beams) in enumerate(zip(slots, searched, strict=True)):
        score, tokens = (
            (tables.final_score, tables.final_tokens) if by_beams else (tables.score, tables.tokens)
        )
        out[row, 0] = _array(tables.final_length)[slot]
        out[row, 1] = _array(score).view(np.int32)[slot]
        out[row, BEFORE:] = _array(tokens)[slot, :longest]
    return found, time.thread_time() - begin


def spent() -> float:
    """Seconds so far that the loop's thread has spent in place of a GPU."""
    return fake_gpu.computing() + (0.0 if Endings.current is None else Endings.current.seconds)


def _array(tensor: Any) -> np.ndarray:
    """NumPy's view of a fake GPU's tensor."""
    kind = _KINDS[str(tensor.dtype)] * tensor.numel()
    return np.ctypeslib.as_array(kind.from_address(tensor.data_ptr())).reshape(tensor.shape)
