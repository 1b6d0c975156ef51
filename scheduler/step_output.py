"""What a step brings, and its way from the device to the host."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import torch
from torch import Tensor

from .batch import Running
from .request import FinishReason, GenerationOptions, Hypothesis
from .state import DecodeState


@dataclass(slots=True)
class StepOutput:
    """What a step brought: who finished and why, with what, and the newest tokens of who streams."""

    finished: dict[int, FinishReason] = field(default_factory=dict)
    hypotheses: dict[int, tuple[Hypothesis, ...]] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)
    tokens: dict[int, tuple[int, ...]] = field(default_factory=dict)
    scores: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    answers: dict[int, dict[str, Tensor]] = field(default_factory=dict)


class HostCopy:
    """A tensor on its way to the host, beside what the device does next.

    Args:
        tensor: which nobody writes to any more.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._host, self._event = tensor, None
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def tensor(self) -> Tensor:
        """On the host; waits until it is there."""
        if self._event is not None:
            self._event.synchronize()
        return self._host

    def values(self) -> list[Any]:
        """As Python's numbers; waits until they are there."""
        return self.tensor().tolist()


class EncoderOutputs:
    """What a model says to encoder-only requests that were encoded together, on its way to the host.

    Args:
        request_ids: in the order of the packed batch.
        packed: see `EncoderOnlyModel`.
    """

    def __init__(self, request_ids: list[int], packed: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        self._request_ids = request_ids
        self._arriving = {
            name: (HostCopy(rows), HostCopy(cu_rows)) for name, (rows, cu_rows) in packed.items()
        }

    def values(self) -> dict[int, dict[str, Tensor]]:
        """Each request's own rows, by the names that the model gave; waits until they are there."""
        answers: dict[int, dict[str, Tensor]] = {request_id: {} for request_id in self._request_ids}
        for name, (rows, cu_rows) in self._arriving.items():
            spans = pairwise(cu_rows.values())
            for request_id, (start, end) in zip(self._request_ids, spans, strict=True):
                # A copy, so that who keeps an answer does not keep those of the whole batch.
                answers[request_id][name] = rows.tensor()[start:end].clone()
        return answers


def hypotheses_of(ended: list[Running], state: DecodeState, side: int) -> list[tuple[Hypothesis, ...]]:
    """What requests that are over have come to, in the order of their rows.

    Read beside the steps launched since: those write what is there already over rows that have ended.

    Args:
        ended: the requests.
        state: which has not lent their rows to others since.
        side: of its tables that the step wrote in which they were found to be over.
    """
    if not ended:
        return []
    device = state.tokens.device
    rows = [row for running in ended for row in running.rows]
    beams = [running.rules.num_beams > 1 for running in ended for _ in running.rows]
    index, searched = torch.tensor(rows, device=device), torch.tensor(beams, device=device)
    lengths = state.final_length[index].tolist()
    scores = torch.where(searched, state.final_score[index], state.score[index]).tolist()
    longest = max(lengths)
    tokens = torch.where(
        searched[:, None],
        state.final_tokens[index, :longest],
        state.tokens[side, index, :longest],
    ).tolist()
    found = zip(lengths, scores, tokens, beams, strict=True)
    return [
        tuple(
            _hypothesis(row[:length], score if searched else score / (length - 1), running.rules)
            for length, score, row, searched in islice(found, len(running.rows))
        )
        for running in ended
    ]


def _hypothesis(tokens: list[int], score: float, rules: GenerationOptions) -> Hypothesis:
    stopped = bool(tokens) and tokens[-1] in rules.eos_token_ids
    return Hypothesis(tuple(tokens), score, FinishReason.STOP if stopped else FinishReason.LENGTH)


@dataclass(slots=True)
class Pending:
    """A step that has been handed to the device, and what of it is still to come.

    Args:
        outcome: what is known already.
        order: the requests of its batch.
        side: of the state's tables that the step wrote.
        answers: to the encoder-only requests that it admitted.
        done: bool [requests], which of them have ended; None where nothing ran.
        streams: for each decode step the requests that stream, their lengths and newest tokens.
        out_of_memory: whether what it admitted was too much to encode at once.
    """

    outcome: StepOutput
    answers: list[EncoderOutputs] = field(default_factory=list)
    order: list[Running] = field(default_factory=list)
    side: int = 0
    done: HostCopy | None = None
    streams: list[tuple[list[Running], HostCopy]] = field(default_factory=list)
    out_of_memory: bool = False
