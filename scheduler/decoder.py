"""Decoding of running requests: one token of every hypothesis a step, in batches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .batch import Batch, RunningRequest
from .config import RunnerConfig
from .decode_step import KeptScores
from .device.cpu_pool import CpuWorkerPool, balanced, map_parts
from .device.cuda_graphs import DecodeGraphs
from .device.nvtx import marked
from .faults import Failure, Isolated, attempt, isolate
from .state import DecodeState
from .step_output import HostCopy, StepOutput


@dataclass(frozen=True, slots=True)
class _BatchOutput:
    """Results of a batch's decode step, which count once the state has been swapped."""

    batch: Batch
    scores: KeptScores
    done: HostCopy  # bool [requests], true for those that have ended
    newest: HostCopy | None  # int32 [streaming, 2], lengths and newest tokens


class Decoder:
    """Decoder of the running requests; on a CPU they are divided into a batch for each core.

    A step that fails is repeated in halves, and only the requests that fail alone are dropped. Repeating is
    safe, since a step counts only once all batches have succeeded: until then it writes to the other buffer
    of the state, and the same keys and values to the same cache positions.

    Args:
        decode_batch: function that decodes one step of a batch, without swapping the state's buffers.
        state: tables of the hypotheses.
        pool: threads for the CPU's cores; None decodes all requests in one batch.
        config: settings of the runner.
        graphs: recordings of decode steps; None launches every step normally.
    """

    def __init__(
        self,
        decode_batch: Callable[[Batch], KeptScores],
        state: DecodeState,
        pool: CpuWorkerPool | None,
        config: RunnerConfig,
        graphs: DecodeGraphs | None,
    ) -> None:
        self._decode_batch = decode_batch
        self._state = state
        self._pool = pool
        self._config = config
        self.graphs = graphs
        self.requests: list[RunningRequest] = []
        self.batches: list[Batch] = []  # of the requests; cleared when one joins or leaves
        self._max_requests = 0  # in a batch, after memory ran out; 0 for no limit
        self.reset_counts()

    def reset_counts(self) -> None:
        """Reset the counts of steps and tokens to 0; only while no request runs."""
        self.steps = 0
        self.decoded_tokens = 0
        self._limited_until = 0  # count of steps after which the limit of requests ends

    def join(self, arrivals: list[RunningRequest], output: StepOutput) -> None:
        """Add encoded requests to those that decode, from the next decode step on."""
        admitted = isolate(self._admit, arrivals, self._state.device)
        output.failed += admitted.failed
        self.requests += admitted.requests
        self.batches = []

    def keep(self, still: Callable[[RunningRequest], bool]) -> None:
        """Drop the requests for which `still` is false."""
        left = [running for running in self.requests if still(running)]
        if len(left) < len(self.requests):
            self.requests, self.batches = left, []

    @marked("decode step")
    def decode(self, output: StepOutput) -> None:
        """Decode one token of every hypothesis.

        Args:
            output: step output that receives results, and the requests that failed.

        Raises:
            DeviceLostError: the device cannot be used any more.
        """
        if self._max_requests and self.steps >= self._limited_until:
            self._max_requests, self.batches = 0, []
        if not self.batches:
            self._make_batches(output)
        outputs: list[_BatchOutput] = []
        repeated: list[Isolated[_BatchOutput]] = []
        for batch, found in zip(self.batches, map_parts(self._pool, self._try, self.batches), strict=True):
            if isinstance(found, Failure):
                repeated.append(isolate(self._decode_apart, batch.requests, self._state.device, found))
                outputs += [result for _, result in repeated[-1].parts]
            else:
                outputs.append(found)
        self._commit(outputs, output)
        for one in repeated:
            self._drop_failed(one, output)
            self.batches = []

    def _commit(self, outputs: list[_BatchOutput], output: StepOutput) -> None:
        """Make a step count: swap the state's buffers and hand on the results."""
        state = self._state
        state.swap()
        self.steps += 1
        output.buffer = state.buffer
        output.decoded += [(one.batch.requests, one.done, self.steps) for one in outputs]
        for one in outputs:
            one.batch.lengthen(state.max_length)
            self.decoded_tokens += len(one.batch.slots)
            for running, scores in one.scores:
                running.scores.append(scores)
            if one.newest is not None:
                output.streamed.append((one.batch.streaming, one.newest))

    def _try(self, batch: Batch) -> _BatchOutput | Failure:
        return attempt(self._decode, batch, self._state.device)

    def _decode(self, batch: Batch) -> _BatchOutput:
        scores = self.graphs.decode(batch) if self.graphs else self._decode_batch(batch)
        return self._results(batch, scores)

    def _decode_apart(self, requests: list[RunningRequest]) -> _BatchOutput:
        """Decode requests in a batch of their own, which is not recorded."""
        batch = self._batch_of(requests)
        return self._results(batch, self._decode_batch(batch))

    def _results(self, batch: Batch, scores: KeptScores) -> _BatchOutput:
        """Copy the results of a step that has been written to the other buffer."""
        written = self._state.following
        newest = None
        if batch.streaming:
            lengths = written.length[batch.streaming_slots]
            tokens = written.tokens[batch.streaming_slots, lengths.long() - 1]
            newest = HostCopy(torch.stack([lengths, tokens], dim=1))
        return _BatchOutput(batch, scores, HostCopy(written.request_done[batch.first_slots]), newest)

    def _make_batches(self, output: StepOutput) -> None:
        for share in self._shares():
            made = isolate(self._batch_of, share, self._state.device)
            self.batches += [batch for _, batch in made.parts]
            if made.first is not None:
                self._drop_failed(made, output)

    def _batch_of(self, requests: list[RunningRequest]) -> Batch:
        return Batch.of(requests, self.steps, self._state.device)

    def _shares(self) -> list[list[RunningRequest]]:
        """Divide the requests among the cores of the pool, with balanced cost, and within the limit."""
        shares = [self.requests]
        if self._pool is not None:
            costs = [self._config.decode_cost + one.admission.encode_tokens for one in self.requests]
            shares = balanced(self.requests, costs, self._pool.size)
        if self._max_requests:
            size = self._max_requests
            shares = [share[start : start + size] for share in shares for start in range(0, len(share), size)]
        return shares

    def _admit(self, arrivals: list[RunningRequest]) -> None:
        for running in arrivals:
            options = running.options
            beams = options.num_beams > 1
            self._state.admit(running.admission.slots, options.decoder_start_token_id, beams)
            running.first_step = self.steps

    def _drop_failed(self, found: Isolated[Any], output: StepOutput) -> None:
        """Drop the requests that failed; where memory ran out, decode fewer at once for some time."""
        assert found.first is not None
        failed = {running for running, _ in found.failed}
        output.failed += found.failed
        self.requests = [running for running in self.requests if running not in failed]
        count, error = len(found.requests) + len(failed), found.first.error
        output.degraded = (
            f"a decode step of {count} requests was repeated in parts, and {len(failed)} of them failed, "
            f"after {type(error).__name__}: {error}"
        )
        if found.out_of_memory and count > 1:
            fitting = max((len(part) for part, _ in found.parts), default=1)
            self._max_requests = min(fitting, self._max_requests or fitting)
            self._limited_until = self.steps + self._config.limited_steps
            output.degraded += (
                f"; at most {self._max_requests} are decoded at once for {self._config.limited_steps} steps"
            )
