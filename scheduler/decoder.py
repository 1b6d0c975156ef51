"""Decoding of running requests: one token of every hypothesis a step, in batches."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..kernels.runtime.upload import upload
from .batch import Batch, RequestGroup, RunningRequest, grouped
from .config import RunnerConfig
from .device.cpu_pool import CpuWorkerPool, balanced, map_parts
from .device.cuda_graphs import DecodeGraphs
from .device.nvtx import marked
from .device.phases import phase
from .faults import Failure, Isolated, attempt, isolate
from .prefill import Prefill
from .slot_tables import BatchTensors, SlotTables
from .state import DecodeState
from .step_output import DecodedBatch, HostCopy, StepOutput


@dataclass(frozen=True, slots=True)
class _BatchOutput:
    """Results of a batch's decode step, which count once the state has been swapped."""

    decoded: DecodedBatch
    scores: list[tuple[RunningRequest, Tensor]]  # of requests that keep theirs


class Decoder:
    """Decoder of the running requests; on a CPU they are divided into a batch for each core.

    A step that fails is repeated in halves, and only the requests that fail alone are dropped. Repeating is
    safe, since a step counts only once all batches have succeeded: until then it writes to the other buffer
    of the state, and the same keys and values to the same cache positions.

    Args:
        decode_batch: function that decodes one step of a batch, without swapping the state's buffers.
        state: state of the hypotheses.
        tables: what is fixed of each of its slots.
        pool: threads for the CPU's cores; None decodes all requests in one batch.
        config: settings of the runner.
        prefill: prefill of the prompts of requests that join.
        graphs: recordings of decode steps; None launches every step normally.
    """

    def __init__(
        self,
        decode_batch: Callable[[BatchTensors], Tensor | None],
        state: DecodeState,
        tables: SlotTables,
        pool: CpuWorkerPool | None,
        config: RunnerConfig,
        prefill: Prefill,
        graphs: DecodeGraphs | None,
    ) -> None:
        self._decode_batch = decode_batch
        self._state = state
        self._tables = tables
        self._pool = pool
        self._config = config
        self._prefill = prefill
        self.graphs = graphs
        self.requests: dict[RunningRequest, RequestGroup] = {}  # in the order of their admission
        self.batches: list[Batch] = []  # of the requests; cleared when one joins or leaves
        self._groups: dict[int, RequestGroup] = {}  # by the identity of the rules, whose hash takes longer
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
        joining: dict[int, list[RunningRequest]] = {}
        for running in admitted.requests:
            joining.setdefault(id(running.rules), []).append(running)
        for key, members in joining.items():
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = RequestGroup(members[0].rules)
            group.extend(members)
        for running in admitted.requests:  # in the order of their admission
            self.requests[running] = self._groups[id(running.rules)]
        self.batches = []

    def drop(self, requests: Iterable[RunningRequest]) -> None:
        """Drop those of some requests that decode."""
        leaving: dict[RequestGroup, list[RunningRequest]] = {}
        for running in requests:
            if (group := self.requests.pop(running, None)) is not None:
                leaving.setdefault(group, []).append(running)
        for group, members in leaving.items():
            group.remove(members)
            if not group.requests:
                del self._groups[id(group.rules)]
            self.batches = []

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
        for one in outputs:
            self.decoded_tokens += len(one.decoded.batch.slots)
            for running, scores in one.scores:
                running.scores.append(scores)
            output.decoded.append(one.decoded)

    def _try(self, batch: Batch) -> _BatchOutput | Failure:
        with phase("decode", batch.requests):
            return attempt(self._decode, batch, self._state.device)

    def _decode(self, batch: Batch) -> _BatchOutput:
        if self.graphs is not None and (played := self.graphs.decode(batch)) is not None:
            tensors, scores = played
        else:
            tensors = self._tensors_of(batch)
            scores = self._decode_batch(tensors)
        return self._results(batch, tensors, scores)

    def _decode_apart(self, requests: list[RunningRequest]) -> _BatchOutput:
        """Decode requests in a batch of their own, which is not recorded."""
        batch = self._batch_of(requests)
        tensors = self._tensors_of(batch)
        return self._results(batch, tensors, self._decode_batch(tensors))

    def _tensors_of(self, batch: Batch) -> BatchTensors:
        if batch.tensors is None:
            batch.tensors = self._tables.tensors_of(batch)
        batch.tensors.longest = batch.longest(self.steps)
        return batch.tensors

    def _results(self, batch: Batch, tensors: BatchTensors, scores: Tensor | None) -> _BatchOutput:
        """Copy the results of a step that has been written to the other buffer."""
        written, first_slots, newest = self._state.following, tensors.first_slots, None
        if batch.streaming:
            lengths = written.length[first_slots]
            tokens = written.tokens[first_slots, lengths.long() - 1]
            newest = HostCopy(torch.stack([lengths, tokens], dim=1))
        done = HostCopy(written.request_done.index_select(0, first_slots))
        kept = [] if scores is None else self._kept(batch, scores)
        return _BatchOutput(DecodedBatch(batch, self.steps + 1, done, newest), kept)

    def _kept(self, batch: Batch, scores: Tensor) -> list[tuple[RunningRequest, Tensor]]:
        """Copy the scores of the requests that keep theirs, all at once."""
        cu_rows = batch.cu_rows
        spans = [cu_rows[place : place + 2] for place in batch.keep_scores]
        rows = np.concatenate([np.arange(*span) for span in spans])
        copied = scores.index_select(0, upload(torch.from_numpy(rows), scores.device))
        requests = [batch.requests[place] for place in batch.keep_scores]
        return list(zip(requests, copied.split([int(span[1] - span[0]) for span in spans]), strict=True))

    def _make_batches(self, output: StepOutput) -> None:
        batches: list[Batch] = []
        for share in self._shares():
            made = attempt(self._batch_of_groups, share, self._state.device)
            if isinstance(made, Failure):
                requests = [running for group in share for running in group.requests]
                parts = isolate(self._batch_of, requests, self._state.device, made)
                batches += [batch for _, batch in parts.parts]
                self._drop_failed(parts, output)
            else:
                batches.append(made)
        self.batches = batches

    def _batch_of(self, requests: list[RunningRequest]) -> Batch:
        return Batch.of(grouped(requests))

    def _batch_of_groups(self, groups: Sequence[RequestGroup]) -> Batch:
        """Batch of some groups; that of a single one is used until a request joins or leaves."""
        if len(groups) > 1:
            return Batch.of(groups)
        (group,) = groups
        if group.batch is None:
            group.batch = Batch.of(groups)
        return group.batch

    def _shares(self) -> list[list[RequestGroup]]:
        """Divide the requests into batches.

        Recorded steps have one group each. The cores of a pool have shares of balanced cost.
        """
        groups = list(self._groups.values())
        shares = [groups] if self.graphs is None else [[group] for group in groups]
        if self._pool is not None:
            requests = list(self.requests)
            costs = [self._config.decode_cost + one.admission.encode_tokens for one in requests]
            shares = [grouped(share) for share in balanced(requests, costs, self._pool.size)]
        return [part for share in shares for part in self._limited(share)] if self._max_requests else shares

    def _limited(self, groups: list[RequestGroup]) -> list[list[RequestGroup]]:
        """Divide groups into parts within the limit of requests."""
        requests, size = [running for group in groups for running in group.requests], self._max_requests
        bounds = pairwise([*range(0, len(requests), size), len(requests)])
        return [grouped(requests[start:end]) for start, end in bounds]

    def _admit(self, arrivals: list[RunningRequest]) -> None:
        for running in arrivals:
            running.first_step = self.steps
        self._tables.admit(arrivals, self._state)
        self._prefill(arrivals)

    def _drop_failed(self, found: Isolated[Any], output: StepOutput) -> None:
        """Drop the requests that failed; where memory ran out, decode fewer at once for some time."""
        assert found.first is not None
        failed = {running for running, _ in found.failed}
        output.failed += found.failed
        self.drop(failed)
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
