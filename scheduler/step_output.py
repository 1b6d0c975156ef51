"""Results of a step on their way from the device to the host."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import torch
from torch import Tensor

from .batch import RunningRequest
from .request import FinishReason, GenerationOptions, Hypothesis
from .state import DecodeState


class HostCopy:
    """A tensor that is copied to the host beside the device's next work.

    Args:
        tensor: not written to any more.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._host, self._event = tensor, None
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def tensor(self) -> Tensor:
        """The tensor on the host; waits for the copy."""
        if self._event is not None:
            self._event.synchronize()
        return self._host

    def values(self) -> list[Any]:
        """The tensor as Python's numbers; waits for the copy."""
        return self.tensor().tolist()


class EncoderOutputs:
    """An encoder-only model's results for requests that were encoded together.

    Args:
        requests: in the order of the packed batch.
        packed: results of `EncoderOnlyModel.predict`.
    """

    def __init__(self, requests: list[RunningRequest], packed: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        self._requests = requests
        self._packed = {name: (HostCopy(rows), HostCopy(cu_rows)) for name, (rows, cu_rows) in packed.items()}

    def values(self) -> dict[RunningRequest, dict[str, Tensor]]:
        """Each request's own rows, by the model's names; waits for the copies."""
        results: dict[RunningRequest, dict[str, Tensor]] = {running: {} for running in self._requests}
        for name, (rows, cu_rows) in self._packed.items():
            for result, (start, end) in zip(results.values(), pairwise(cu_rows.values()), strict=True):
                # A copy: a result must not keep the whole batch's in memory.
                result[name] = rows.tensor()[start:end].clone()
        return results


@dataclass(slots=True)
class StepOutput:
    """A step that has been handed to the device, with the results that are still to come."""

    number: int  # of the scheduler's plan
    failed: list[tuple[RunningRequest, Exception]] = field(default_factory=list)  # could not be encoded
    encoder_only: list[RunningRequest] = field(default_factory=list)  # in the order of their admission
    encoder_outputs: list[EncoderOutputs] = field(default_factory=list)  # their results
    decoded: list[RunningRequest] = field(default_factory=list)  # requests of the step's batch
    done: HostCopy | None = None  # bool [decoded], true for those that have ended
    buffer: int = 0  # of the state's tables, written by the step
    # For each decode step the requests that stream, their lengths and newest tokens, int32 [requests, 2].
    streamed: list[tuple[list[RunningRequest], HostCopy]] = field(default_factory=list)
    out_of_memory: bool = False  # the admitted requests were too much to encode at once


def read_hypotheses(
    ended: list[RunningRequest], state: DecodeState, buffer: int
) -> list[tuple[Hypothesis, ...]]:
    """Hypotheses of requests that have ended, best first, in the order of the requests.

    Reading beside the steps launched since is safe: those leave the tables of ended requests as they are.

    Args:
        ended: the requests, whose slots have not been lent to others since.
        state: of the runner.
        buffer: written by the step in which they were found to have ended.
    """
    if not ended:
        return []
    device = state.tokens.device
    slots = [slot for running in ended for slot in running.admission.slots]
    beams = [running.options.num_beams > 1 for running in ended for _ in running.admission.slots]
    index, searched = torch.tensor(slots, device=device), torch.tensor(beams, device=device)
    lengths = state.final_length[index].tolist()
    scores = torch.where(searched, state.final_score[index], state.score[index]).tolist()
    longest = max(lengths)
    tokens = torch.where(
        searched[:, None],
        state.final_tokens[index, :longest],
        state.tokens[buffer, index, :longest],
    ).tolist()
    rows = zip(lengths, scores, tokens, beams, strict=True)
    return [
        tuple(
            _hypothesis(token_ids[:length], score if searched else score / (length - 1), running.options)
            for length, score, token_ids, searched in islice(rows, len(running.admission.slots))
        )
        for running in ended
    ]


def _hypothesis(tokens: list[int], score: float, options: GenerationOptions) -> Hypothesis:
    stopped = bool(tokens) and tokens[-1] in options.eos_token_ids
    return Hypothesis(tuple(tokens), score, FinishReason.STOP if stopped else FinishReason.LENGTH)
