"""Host time of a step's bookkeeping while requests join and leave: `python -m bench.engine.bookkeeping`.

A generation loop runs on fake GPUs (`bench/fake_gpu`) without its encoder; each step ends as many requests
as join. So what is left is the scheduler, the tables of requests that join and leave, a replay, and reading
results.
"""

import argparse
import cProfile
import ctypes
import pstats
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .. import fake_gpu

_TOKENS = 40  # of an ended sequence


class Steps:
    """Stand-in for decode steps, which end the requests that have run longest.

    Args:
        changes: requests that end in a step.
        full: requests that run, before which none ends.
    """

    def __init__(self, changes: int, full: int) -> None:
        self.running: deque[tuple[int, ...]] = deque()  # slots of each, oldest first
        self.joined: list[int] = []  # first slots of the requests that join in this step
        self.seconds = 0.0  # spent here
        self._changes, self._full = changes, full
        self._buffer = -1

    def begin(self, state: Any) -> None:
        """Find the tables that a step writes."""
        self._state = state
        self._tables = [
            (_array(one.request_done, ctypes.c_bool), _array(one.final_length, ctypes.c_int32))
            for one in state.buffers
        ]

    def __call__(self, *_: Any) -> None:
        begin = time.thread_time()
        if self._buffer != self._state.buffer:  # the first group of a step
            self._buffer = self._state.buffer
            (done, length), (new_done, new_length) = (
                self._tables[self._buffer],
                self._tables[1 - self._buffer],
            )
            done[self.joined] = False
            self.joined.clear()
            new_done[:] = done
            new_length[:] = length
            for _ in range(self._changes if len(self.running) >= self._full else 0):
                slots = list(self.running.popleft())
                new_done[slots[0]] = True
                new_length[slots] = _TOKENS
        self.seconds += time.thread_time() - begin


def _array(tensor: torch.Tensor, kind: Any) -> "np.ndarray[Any, Any]":
    """NumPy's view of a fake GPU's tensor."""
    return np.ctypeslib.as_array((kind * tensor.numel()).from_address(tensor.data_ptr()))


@dataclass(frozen=True)
class Bookkeeping:
    """Means of a step."""

    milliseconds: float  # of the loop's thread
    least_milliseconds: float  # of the tenth of the steps that other programs disturbed least
    operations: float  # torch's kernels
    copies: float  # between host and device
    blocking: float  # copies and operations that wait for the device
    replays: float
    joined: float  # requests
    running: float  # requests that decode


def measure(
    running: int, changes: int, steps: int, groups: int = 1, beams: int = 1, profile: bool = False
) -> Bookkeeping:
    """Run a loop with so many requests, of which `changes` leave and as many join in each step.

    Args:
        running: requests that run.
        changes: requests that join and that leave in a step.
        steps: steps that are measured.
        groups: number of languages, each with its rules.
        beams: beams of each request.
        profile: True prints where the time goes.
    """
    fake_gpu.install()
    import tritone
    from bench.fake_gpu.torch_cuda import CUDAGraph
    from tritone.scheduler import runner as runners
    from tritone.scheduler import step_output
    from tritone.scheduler.encoder import Encoder
    from tritone.scheduler.request import GenerationOptions, Request, RequestOutput
    from tritone.scheduler.scheduler import Admission

    from .endings import finished_on_host

    # Ended requests are noticed two steps later, and released in the step after.
    rows = running + 3 * changes
    stand_in = Steps(changes, running)
    runners.decode_batch = stand_in
    Encoder._store = lambda self, chunk: None
    CUDAGraph.replayed = stand_in
    config = tritone.Speech2TextConfig(
        vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16
    )
    model = tritone.Speech2TextForConditionalGeneration(config).half().to("cuda").eval()
    loop = model.generation_loop(
        num_pages=rows * (60 + 20 * beams), num_rows=rows * beams, encode_budget=10**6, ahead=2
    )
    stand_in.begin(loop._runner._state)

    create = Admission.__init__

    def created(self: Any, *arguments: Any, **named: Any) -> None:
        create(self, *arguments, **named)
        stand_in.running.append(self.slots)
        stand_in.joined.append(self.slots[0])

    Admission.__init__ = created  # type: ignore[method-assign]

    def read(*arguments: Any) -> torch.Tensor:
        found, seconds = finished_on_host(*arguments)
        stand_in.seconds += seconds
        return found

    step_output.finished = read
    features = torch.randn(3600, 80)
    number = 0

    def submit(count: int) -> None:
        nonlocal number
        for _ in range(count):
            seconds = 5 + 11 * number % 16
            options = GenerationOptions(
                max_length=17 + 8 * seconds,
                min_length=1,
                num_beams=beams,
                eos_token_ids=(2,),
                forced_bos_token_id=5 + number % groups,
            )
            loop.submit(Request(number, features[: 100 * seconds], options))
            number += 1

    submit(rows)
    for _ in range(20):
        ended = sum(isinstance(event, RequestOutput) for event in loop.step())
        submit(ended)
    profiler = cProfile.Profile(time.thread_time) if profile else None
    stand_in.seconds = 0.0
    spent: list[float] = []
    joined, before = 0, fake_gpu.counts()
    for _ in range(steps):
        begin = time.thread_time() - stand_in.seconds
        if profiler:
            profiler.enable()
        events = loop.step()
        if profiler:
            profiler.disable()
        spent.append(1e3 * (time.thread_time() - stand_in.seconds - begin))
        assert all(event.error is None for event in events)
        joined += len(events)
        submit(len(events))
    counts = fake_gpu.counts() - before
    if profiler:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(35)
    return Bookkeeping(
        milliseconds=sum(spent) / steps,
        least_milliseconds=sorted(spent)[steps // 10],
        operations=counts.operations / steps,
        copies=counts.copies / steps,
        blocking=counts.blocking / steps,
        replays=counts.replays / steps,
        joined=joined / steps,
        running=running,
    )


def main(given: list[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--running", type=int, default=1024, help="requests that run")
    parser.add_argument("--changes", type=int, default=24, help="requests that join and leave in a step")
    parser.add_argument("--groups", type=int, default=1, help="languages")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args(given)
    torch.set_num_threads(1)
    print(measure(**vars(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
