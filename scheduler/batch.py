"""Running requests in the order of their rows: groups that share their rules, and batches for decode steps.

A request that joins or leaves changes one row of its group, whatever the size of the group.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .request import GenerationOptions, Request
from .scheduler import Admission
from .slot_tables import BatchTensors

if TYPE_CHECKING:
    from .step_output import HostCopy

# Options that the requests of a group need not share.
_OWN = (
    "max_length",
    "min_length",
    "seed",
    "forced_bos_token_id",
    "prompt_tokens",
    "start_index",
    "no_speech_token",
    "choices",
    "token_log_probs",
)
_SHARED = [one.name for one in fields(GenerationOptions) if one.name not in _OWN]
_shared = attrgetter(*_SHARED)


@dataclass(eq=False, slots=True)
class RunningRequest:
    """State of an admitted request until its release."""

    request: Request  # as submitted
    admission: Admission  # its slots, pages and number of encoder positions
    first_step: int = 0  # number of decode steps that the runner made before this request's first
    streamed: int = field(init=False)  # number of tokens reported so far, including the prompt
    scores: list[Tensor] = field(default_factory=list)  # of every decode step, if the request keeps scores
    reported: bool = False  # its RequestOutput has been made
    encoded: Tensor | None = None  # its encoder output, if the request keeps it
    # No-speech probabilities of requests that were admitted together, and the index of its own.
    no_speech: "tuple[HostCopy, int] | None" = None
    rules: GenerationOptions = field(init=False)  # `rules_of` the options of a request that is decoded

    def __post_init__(self) -> None:
        if self.request.options is not None:
            self.rules = rules_of(self.request.options)
            self.streamed = len(self.request.options.prompt)

    @property
    def options(self) -> GenerationOptions:
        """Generation options of the request, which must not be encoder-only."""
        return self.request.options  # type: ignore[return-value]  # a cast takes longer than all else here

    @property
    def no_speech_probability(self) -> float | None:
        """Probability of the option `no_speech_token`, once the request has joined; None without it."""
        if self.no_speech is None:
            return None
        probabilities, index = self.no_speech
        return float(probabilities.values()[index])

    @property
    def streams(self) -> bool:
        """True for a request that reports tokens as they are decoded."""
        return self.request.stream and self.options.hypotheses == 1


def rules_of(options: GenerationOptions) -> GenerationOptions:
    """Reduce options to those that a group of requests shares: without max_length, seed and prompt.

    min_length is reduced to 0 or 1, since any min_length takes a kernel that other requests do without, and
    forced_bos_token_id likewise to None or 0. Equal rules are one object, as long as few enough others come
    in between.
    """
    return _rules(options.min_length > 0, options.forced_bos_token_id is not None, *_shared(options))


@lru_cache(maxsize=1024, typed=True)  # making and hashing options takes longer than all else of an admission
def _rules(minimum: bool, forced: bool, *shared: Any) -> GenerationOptions:
    return GenerationOptions(
        max_length=0,
        min_length=int(minimum),
        forced_bos_token_id=0 if forced else None,
        **dict(zip(_SHARED, shared, strict=True)),
    )


class RequestGroup:
    """Requests that share their rules, with consecutive rows: one for each hypothesis.

    The last request takes the place of one that leaves, so that no other row changes.

    Args:
        rules: `rules_of` all requests.
    """

    def __init__(self, rules: GenerationOptions) -> None:
        self.rules = rules
        self.requests: list[RunningRequest] = []  # in the order of their rows
        self.batch: Batch | None = None  # of this group alone; dropped when a request joins or leaves
        self._places: dict[RunningRequest, int] = {}
        self._columns = np.zeros((_COLUMNS, 16), np.int64)  # numbers of each request, by name
        self._slots = np.zeros((16, rules.hypotheses), np.int64)

    def extend(self, arrivals: Sequence[RunningRequest]) -> None:
        """Append requests."""
        start = len(self.requests)
        end = start + len(arrivals)
        while end > len(self._slots):
            self._columns = np.concatenate([self._columns, np.zeros_like(self._columns)], axis=1)
            self._slots = np.concatenate([self._slots, np.zeros_like(self._slots)])
        self._columns[:, start:end] = np.array(
            [
                (
                    running.options.max_length,
                    running.admission.self_blocks,
                    running.admission.cross_blocks,
                    len(running.options.prompt) - running.first_step,
                    running.streams,
                    running.request.keep_scores,
                )
                for running in arrivals
            ]
        ).T
        self._slots[start:end] = [running.admission.slots for running in arrivals]
        self.requests += arrivals
        self._places.update(zip(arrivals, range(start, end), strict=True))
        self.batch = None

    def remove(self, leaving: Iterable[RunningRequest]) -> None:
        """Remove requests of the group."""
        moved: dict[int, int] = {}  # places, with those before of the requests that take them
        for running in leaving:
            place, last = self._places.pop(running), self.requests.pop()
            before = moved.pop(len(self.requests), len(self.requests))
            if last is not running:
                self.requests[place] = last
                self._places[last] = place
                moved[place] = before
        if moved:
            to, before_move = list(moved), list(moved.values())
            self._columns[:, to] = self._columns[:, before_move]
            self._slots[to] = self._slots[before_move]
        self.batch = None

    @property
    def columns(self) -> npt.NDArray[np.int64]:
        """Numbers of each request, int64 [columns, requests]; valid until the next change."""
        return self._columns[:, : len(self.requests)]

    @property
    def slots(self) -> npt.NDArray[np.int64]:
        """Sequence slots of each request, int64 [requests * hypotheses]; valid until the next change."""
        return self._slots[: len(self.requests)].ravel()


# Rows of a group's columns; the largest of the first four are numbers of a batch.
_MAX_LENGTH, _SELF_BLOCKS, _CROSS_BLOCKS, _ZERO_STEP, _STREAMS, _KEEPS_SCORES, _COLUMNS = range(7)


def grouped(requests: Iterable[RunningRequest]) -> list[RequestGroup]:
    """Sampling groups of requests, in the order of the groups' first requests."""
    members: dict[GenerationOptions, list[RunningRequest]] = {}
    for running in requests:
        members.setdefault(running.rules, []).append(running)
    groups = {rules: RequestGroup(rules) for rules in members}
    for rules, group in groups.items():
        group.extend(members[rules])
    return list(groups.values())


@dataclass(eq=False, slots=True)
class Batch:
    """Requests that are decoded together, valid until one of them leaves; n rows, one per hypothesis."""

    requests: list[RunningRequest]  # in the order of the rows, each group consecutive
    groups: list[tuple[GenerationOptions, int]]  # rules of each group, and its number of requests
    slots: npt.NDArray[np.int64]  # [n], each row's sequence slot
    self_blocks: int  # width of the page table, as cross_blocks
    cross_blocks: int
    # Number of decode steps of the runner at which the longest request would have had no token, not even a
    # prompt; may be negative.
    zero_step: int
    max_length: int  # of all requests
    streaming: list[int]  # places of the requests that report tokens as they are decoded
    keep_scores: list[int]  # places of the requests that keep every step's scores
    tensors: BatchTensors | None = None  # made by the first step that is not recorded

    @classmethod
    def of(cls, groups: Sequence[RequestGroup]) -> "Batch":
        """Lay out the rows of some groups: at least one, and none of them empty."""
        (first, *others) = groups
        columns, slots, requests = first.columns, first.slots.copy(), first.requests.copy()
        if others:
            columns = np.concatenate([group.columns for group in groups], axis=1)
            slots = np.concatenate([group.slots for group in groups])
            requests += [running for group in others for running in group.requests]
        largest = columns.max(axis=1).tolist()
        return cls(
            requests=requests,
            groups=[(group.rules, len(group.requests)) for group in groups],
            slots=slots,
            self_blocks=largest[_SELF_BLOCKS],
            cross_blocks=largest[_CROSS_BLOCKS],
            zero_step=-largest[_ZERO_STEP],
            max_length=largest[_MAX_LENGTH],
            streaming=columns[_STREAMS].nonzero()[0].tolist() if largest[_STREAMS] else [],
            keep_scores=columns[_KEEPS_SCORES].nonzero()[0].tolist() if largest[_KEEPS_SCORES] else [],
        )

    @property
    def cu_rows(self) -> npt.NDArray[np.int64]:
        """Rows of each request, [requests + 1]."""
        counts = np.repeat(
            [rules.hypotheses for rules, _ in self.groups], [count for _, count in self.groups]
        )
        return np.concatenate([[0], counts.cumsum()])

    @property
    def first_slots(self) -> npt.NDArray[np.int64]:
        """First sequence slot of each request, [requests]."""
        return self.slots[self.cu_rows[:-1]]

    def longest(self, decode_steps: int) -> int:
        """Upper bound of all lengths after so many decode steps of the runner."""
        # From step counts, since lengths are on the device; an ended request is at most at its limit.
        return min(decode_steps - self.zero_step, self.max_length)
