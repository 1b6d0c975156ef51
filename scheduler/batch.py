"""Batch layout of the running requests for decode steps, valid until a request joins or leaves."""

from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import cast

import torch
from torch import Tensor

from ..kernels.runtime.upload import upload
from .cache.attention_metadata import PageLayout
from .request import GenerationOptions, Request
from .sampling.select import SamplingGroup
from .scheduler import Admission


@dataclass(eq=False, slots=True)
class RunningRequest:
    """State of an admitted request until its release."""

    request: Request  # as submitted
    admission: Admission  # its slots, pages and number of encoder positions
    first_step: int = 0  # number of decode steps that the runner made before this request's first
    streamed: int = 1  # number of tokens reported so far, including the start token
    scores: list[Tensor] = field(default_factory=list)  # of every decode step, if the request keeps scores
    reported: bool = False  # its RequestOutput has been made
    rules: GenerationOptions = field(init=False)  # `rules_of` the options of a request that is decoded

    def __post_init__(self) -> None:
        if self.request.options is not None:
            self.rules = rules_of(self.request.options)

    @property
    def options(self) -> GenerationOptions:
        """Generation options of the request, which must not be encoder-only."""
        return cast(GenerationOptions, self.request.options)


def rules_of(options: GenerationOptions) -> GenerationOptions:
    """Reduce options to those that a sampling group shares: without max_length, seed and min_length.

    min_length is reduced to 0 or 1, since any min_length takes a kernel that other requests do without.
    """
    return replace(options, max_length=0, min_length=min(options.min_length, 1), seed=0)


@dataclass(slots=True)
class Batch:
    """Running requests with the tensors that all their decode steps share; n rows, one per hypothesis."""

    requests: list[RunningRequest]  # in the order of the rows, each group consecutive
    slots: Tensor  # int64 [n], each row's sequence slot
    sequence_index: Tensor  # int32 [n], each row's index among its request's hypotheses
    first_slots: Tensor  # int64 [requests], each request's first sequence slot
    # int32 [n], positions that a row has pages for. A row that has ended and is not yet released stays at
    # its last position, so that it writes nowhere else.
    capacity: Tensor
    self_tables: Tensor  # int32 [n, blocks]
    cross: PageLayout  # pages of the encoder outputs
    # int32, offsets of the rows that read each other's pages: those of a request in beam search. Without beam
    # search each row reads its own.
    cu_own: Tensor
    groups: list[SamplingGroup]  # requests that share their rules
    streaming: list[RunningRequest]  # requests that report tokens as they are decoded
    streaming_slots: Tensor  # int64 [streaming], their sequence slots
    keep_scores: list[tuple[RunningRequest, slice]]  # requests that keep every step's scores, their rows
    longest: int  # upper bound of all lengths

    @classmethod
    def of(cls, running: list[RunningRequest], decode_steps: int, device: torch.device) -> "Batch":
        """Build the batch of `running`, with sampling groups in the order of their first requests.

        Args:
            running: at least one request.
            decode_steps: number of decode steps that the runner has made so far.
            device: device of the tensors.
        """
        by_rules: dict[GenerationOptions, list[RunningRequest]] = {}
        for one in running:
            by_rules.setdefault(one.rules, []).append(one)
        requests = [one for members in by_rules.values() for one in members]
        admissions = [one.admission for one in requests]
        options = [one.options for one in requests for _ in one.admission.slots]  # of each row
        cu_rows = [0, *accumulate(len(one.slots) for one in admissions)]
        bounds = dict(zip(requests, pairwise(cu_rows), strict=True))

        def numbers(values: list[int], dtype: torch.dtype = torch.int32) -> Tensor:
            return upload(torch.tensor(values, dtype=dtype), device)

        slots = numbers([slot for one in admissions for slot in one.slots], torch.int64)
        sequence_index = numbers([index for one in admissions for index in range(len(one.slots))])
        searches = any(own.num_beams > 1 for own in options)
        max_lengths = numbers([own.max_length for own in options])
        min_lengths = numbers([own.min_length for own in options])
        seeds = numbers([own.seed for own in options], torch.int64)
        groups = []
        for rules, members in by_rules.items():
            rows = slice(bounds[members[0]][0], bounds[members[-1]][1])
            groups.append(
                SamplingGroup(
                    rules,
                    rows,
                    slots=slots[rows],
                    max_lengths=max_lengths[rows],
                    min_lengths=min_lengths[rows],
                    seeds=seeds[rows],
                    sequence_index=sequence_index[rows].long(),
                )
            )
        streaming = [one for one in requests if one.request.stream and one.options.hypotheses == 1]
        return cls(
            requests=requests,
            slots=slots,
            sequence_index=sequence_index,
            first_slots=numbers([one.slots[0] for one in admissions], torch.int64),
            capacity=max_lengths - 1,
            self_tables=_table([pages for one in admissions for pages in one.self_pages], device),
            cross=PageLayout(
                _table([one.cross_pages for one in admissions], device),
                lengths=numbers([one.encode_tokens for one in admissions]),
                cu_rows=numbers(cu_rows),
            ),
            cu_own=numbers(cu_rows if searches else list(range(len(options) + 1))),
            groups=groups,
            streaming=streaming,
            streaming_slots=numbers([one.admission.slots[0] for one in streaming], torch.int64),
            keep_scores=[(one, slice(*bounds[one])) for one in requests if one.request.keep_scores],
            # From step counts, since lengths are on the device; an ended request is at most at its limit.
            longest=max(min(1 + decode_steps - one.first_step, one.options.max_length) for one in requests),
        )

    @property
    def searches(self) -> bool:
        """True if a request searches with beams, whose rows need a table of origins."""
        return any(group.options.num_beams > 1 for group in self.groups)

    def lengthen(self, limit: int) -> None:
        """Raise the bound of all lengths by the token just decoded, up to `limit`."""
        self.longest = min(self.longest + 1, limit)


def _table(pages: list[tuple[int, ...]], device: torch.device) -> Tensor:
    """Page table on the device, int32 [rows, longest], padded with 0."""
    widest = max(map(len, pages))
    padded = [[*row, *[0] * (widest - len(row))] for row in pages]
    return upload(torch.tensor(padded, dtype=torch.int32), device)
