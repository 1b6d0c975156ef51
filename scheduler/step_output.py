"""Results of a step, copied from the device to the host without blocking."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..kernels.runtime.packing import spans
from ..kernels.runtime.upload import upload
from ..kernels.slots.finished import BEFORE, finished
from .batch import Batch, RunningRequest
from .request import FinishReason, GenerationOptions, Hypothesis
from .state import DecodeState, StateTables


class HostCopy:
    """Asynchronous copy of a tensor to the host, while the device continues.

    Args:
        tensor: tensor on any device, which must not be written to any more.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._host, self._event = tensor, None
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            # On the tensor's device: an event records the current device's stream otherwise.
            self._event = torch.cuda.current_stream(tensor.device).record_event()

    def tensor(self) -> Tensor:
        """Wait for the copy and return the tensor on the host."""
        if self._event is not None:
            self._event.synchronize()
            self._event = None
        return self._host

    def values(self) -> npt.NDArray[Any]:
        """Wait for the copy and return its elements."""
        return self.tensor().numpy()


class EncoderOutputs:
    """Predictions of an encoder-only model for requests that were encoded together.

    Args:
        requests: requests in the order of the packed batch.
        packed: results of `EncoderOnlyModel.predict`.
    """

    def __init__(self, requests: list[RunningRequest], packed: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        self.requests = requests
        self._packed = {name: (HostCopy(rows), spans(cu_rows)) for name, (rows, cu_rows) in packed.items()}

    def values(self, requests: list[RunningRequest]) -> dict[RunningRequest, dict[str, Tensor]]:
        """Wait for the copies and return the rows of each of `requests`, by the names of the predictions."""
        results: dict[RunningRequest, dict[str, Tensor]] = {running: {} for running in requests}
        for name, (rows, bounds) in self._packed.items():
            for running, (start, end) in zip(self.requests, bounds, strict=True):
                if running in results:
                    # A copy, so that one result does not keep the whole batch in memory.
                    results[running][name] = rows.tensor()[start:end].clone()
        return results


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """Results of one decode step of a batch, possibly followed by rows of no request."""

    batch: Batch
    steps: int  # number of decode steps that the runner had made with this one
    done: HostCopy  # bool [requests], true for those that have ended
    newest: HostCopy | None  # int32 [requests, 2], lengths and newest tokens, if a request streams

    def ended(self) -> list[RunningRequest]:
        """Wait for the results and return the requests that had ended by this step."""
        requests = self.batch.requests
        return [requests[place] for place in self.done.values()[: len(requests)].nonzero()[0].tolist()]

    def streamed(self) -> Iterator[tuple[RunningRequest, int, int]]:
        """Wait for the results and yield each streaming request with its length and newest token."""
        if self.newest is not None:
            places = self.batch.streaming
            for place, (length, token) in zip(places, self.newest.values()[places].tolist(), strict=True):
                yield self.batch.requests[place], length, token


@dataclass(slots=True)
class StepOutput:
    """Output of one step that has been launched on the device, whose results may still be pending."""

    number: int  # number of the scheduler's plan
    failed: list[tuple[RunningRequest, Exception]] = field(default_factory=list)  # ended by an error
    unwanted: list[RunningRequest] = field(default_factory=list)  # to cancel; not encoded
    joined: list[RunningRequest] = field(default_factory=list)  # decoded for the first time
    encoder_only: list[RunningRequest] = field(default_factory=list)  # in the order of their admission
    encoder_outputs: list[EncoderOutputs] = field(default_factory=list)  # their results
    decoded: list[DecodedBatch] = field(default_factory=list)
    buffer: int = 0  # buffer of the decode state that the step has written
    out_of_memory: bool = False  # memory ran out when the admitted requests were encoded at once
    degraded: str | None = None  # reason and extent where decoding was repeated in parts


def read_hypotheses(
    ended: list[RunningRequest], state: DecodeState, buffer: int
) -> list[tuple[Hypothesis, ...]]:
    """Read the hypotheses of ended requests from the decode state, best first, in the order of the requests.

    Reading while later steps run is safe, since those leave the slots of ended requests unchanged.

    Args:
        ended: requests that have ended and still own their slots.
        state: decode state of the runner.
        buffer: buffer that was written by the step which reported their end.
    """
    if not ended:
        return []
    rows = [(slot, one.options.num_beams > 1) for one in ended for slot in one.admission.slots]
    # The lengths are on the device as well, so rows are copied up to the longest limit.
    longest = max(running.options.max_length for running in ended)
    index = upload(torch.from_numpy(np.array(rows, np.int32)), state.device)
    copied = HostCopy(finished(state.buffers[buffer], index, longest))  # one copy to wait for
    log_probs = _token_log_probs(ended, state.buffers[buffer])
    found = copied.values()
    lengths, scores = found[:, 0].tolist(), found[:, 1].view(np.float32).tolist()
    hypotheses, row = [], 0
    for running in ended:
        own, options = [], running.options
        for slot in running.admission.slots:
            tokens = tuple(found[row, BEFORE : BEFORE + lengths[row]].tolist())
            of_tokens = log_probs.get(slot)
            if of_tokens is not None:
                of_tokens = of_tokens[len(options.prompt) : lengths[row]]
            own.append(_hypothesis(tokens, scores[row], options, of_tokens))
            row += 1
        hypotheses.append(tuple(own))
    return hypotheses


def _token_log_probs(ended: list[RunningRequest], tables: StateTables) -> dict[int, npt.NDArray[np.float32]]:
    """Log-probabilities of the tokens of ended requests that ask for them, by slot and position."""
    asking = [one for one in ended if one.options.token_log_probs and one.options.num_beams == 1]
    if not asking:
        return {}
    slots = [slot for one in asking for slot in one.admission.slots]
    longest = max(one.options.max_length for one in asking)
    index = upload(torch.tensor(slots), tables.log_probabilities.device)
    rows = HostCopy(tables.log_probabilities[:, :longest].index_select(0, index)).values()
    return dict(zip(slots, rows, strict=True))


def _hypothesis(
    tokens: tuple[int, ...],
    score: float,
    options: GenerationOptions,
    log_probs: npt.NDArray[np.float32] | None,
) -> Hypothesis:
    """Hypothesis of a sequence; the score is a beam's, or else the sum of the log-probabilities."""
    generated = len(tokens) - len(options.prompt)
    stopped = generated > 0 and tokens[-1] in options.eos_token_ids
    total = score
    if options.num_beams > 1:
        total *= max(generated, 1) ** options.length_penalty
    else:
        score /= generated
    reason = FinishReason.STOP if stopped else FinishReason.LENGTH
    of_tokens = None if log_probs is None else tuple(log_probs.tolist())
    return Hypothesis(tokens, score, reason, total, of_tokens)
