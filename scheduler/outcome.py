"""What a step brings, and its way from the device to the host."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .batch import Running
from .request import FinishReason, Hypothesis


@dataclass(slots=True)
class Outcome:
    """What a step brought: who finished and why, with what, and the newest tokens of who streams."""

    finished: dict[int, FinishReason] = field(default_factory=dict)
    hypotheses: dict[int, tuple[Hypothesis, ...]] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)
    tokens: dict[int, tuple[int, ...]] = field(default_factory=dict)
    scores: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    answers: dict[int, dict[str, Tensor]] = field(default_factory=dict)


class Arriving:
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


class Answers:
    """What a model says to one-shot requests that were encoded together, on its way to the host.

    Args:
        request_ids: in the order of the packed batch.
        packed: see `OneShotModel`.
    """

    def __init__(self, request_ids: list[int], packed: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        self._request_ids = request_ids
        self._arriving = {
            name: (Arriving(rows), Arriving(cu_rows)) for name, (rows, cu_rows) in packed.items()
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


@dataclass(slots=True)
class Pending:
    """A step that has been handed to the device, and what of it is still to come.

    Args:
        outcome: what is known already.
        order: the requests of its batch.
        side: of the state's tables that the step wrote.
        answers: to the one-shot requests that it admitted.
        done: bool [requests], which of them have ended; None where nothing ran.
        streams: for each decode step the requests that stream, their lengths and newest tokens.
        out_of_memory: whether what it admitted was too much to encode at once.
    """

    outcome: Outcome
    answers: list[Answers] = field(default_factory=list)
    order: list[Running] = field(default_factory=list)
    side: int = 0
    done: Arriving | None = None
    streams: list[tuple[list[Running], Arriving]] = field(default_factory=list)
    out_of_memory: bool = False
