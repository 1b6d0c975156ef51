"""The running requests, laid out for one decode step after the other until one comes or goes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from .inputs import uploaded
from .request import GenerationOptions, Request
from .sampling.select import SamplingGroup


@dataclass(slots=True)
class Running:
    """A request that is being decoded, and what the scheduler lent it.

    Args:
        request: as submitted.
        options: its own.
        rules: `rules_of` its options; equal rules make a group.
        rows: of the state, one a hypothesis.
        self_pages: each hypothesis' pages, in the order of its positions.
        cross_pages: in the order of the encoder's positions.
        cross_length: encoder positions.
        born: decode steps that the runner had made before this request's first.
        streamed: tokens reported so far, the start token counted.
        scores: of every step so far, where the request asked for them, each with whether the request had
            ended before (bool [], on the device).
        reported: whether its end has been.
    """

    request: Request
    options: GenerationOptions
    rules: GenerationOptions
    rows: tuple[int, ...]
    self_pages: tuple[tuple[int, ...], ...]
    cross_pages: tuple[int, ...]
    cross_length: int
    born: int
    streamed: int = 1
    scores: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    reported: bool = False


def rules_of(options: GenerationOptions) -> GenerationOptions:
    """Options without what each request of a group has of its own: max_length, seed, and how long min_length
    is. Whether there is one stays: it takes a kernel that other requests do without."""
    return replace(options, max_length=0, min_length=min(options.min_length, 1), seed=0)


@dataclass(slots=True)
class Batch:
    """Index tensors of the running batch; they hold until a request comes or goes.

    Args:
        order: requests as they lie in the batch, groups together.
        rows: int64 [n], rows of the state.
        streams: int32 [n], a row's index among its request's hypotheses.
        first_slots: int64 [requests], each request's first row of the state.
        places: int32 [n], positions that a row has pages for. One that has ended and is not released yet
            stays on its last, so that it writes nowhere else.
        cu_rows: int32 [requests + 1], which rows of the batch are a request's.
        self_tables: int32 [n, blocks].
        cross_tables: int32 [requests, blocks].
        cross_lengths: int32 [requests].
        groups: requests that share their options.
        streaming: requests that report tokens as they come.
        streaming_rows: int64 [n], their rows of the state.
        keeping: requests that keep every step's scores, with their rows of the batch.
        longest: a bound of all lengths.
    """

    order: list[Running]
    rows: Tensor
    streams: Tensor
    first_slots: Tensor
    places: Tensor
    cu_rows: Tensor
    self_tables: Tensor
    cross_tables: Tensor
    cross_lengths: Tensor
    groups: list[SamplingGroup]
    streaming: list[Running]
    streaming_rows: Tensor
    keeping: list[tuple[Running, slice]]
    longest: int

    @classmethod
    def of(cls, running: list[Running], decode_steps: int, device: torch.device) -> "Batch":
        """Lay out `running`, groups in the order in which their first request came.

        Args:
            running: at least one request.
            decode_steps: that the runner has made so far.
            device: of the tensors.
        """
        by_rules: dict[GenerationOptions, list[Running]] = {}
        for one in running:
            by_rules.setdefault(one.rules, []).append(one)
        order = [one for members in by_rules.values() for one in members]
        rows = [row for one in order for row in one.rows]
        streams = [stream for one in order for stream in range(len(one.rows))]
        cu_rows = [0]
        for one in order:
            cu_rows.append(cu_rows[-1] + len(one.rows))
        streaming = [one for one in order if one.request.stream and one.rules.hypotheses == 1]
        return cls(
            order=order,
            rows=_numbers(rows, torch.int64, device),
            streams=_numbers(streams, torch.int32, device),
            first_slots=_numbers([one.rows[0] for one in order], torch.int64, device),
            places=_numbers(
                [one.options.max_length - 1 for one in order for _ in one.rows], torch.int32, device
            ),
            cu_rows=_numbers(cu_rows, torch.int32, device),
            self_tables=_table([pages for one in order for pages in one.self_pages], device),
            cross_tables=_table([one.cross_pages for one in order], device),
            cross_lengths=_numbers([one.cross_length for one in order], torch.int32, device),
            groups=_groups(by_rules, device),
            streaming=streaming,
            streaming_rows=_numbers([one.rows[0] for one in streaming], torch.int64, device),
            keeping=[
                (one, slice(start, end))
                for one, (start, end) in zip(order, pairwise(cu_rows), strict=True)
                if one.request.keep_scores
            ],
            # Of steps, not of lengths, which are on the device; who has ended is at most at its own limit.
            longest=max(min(1 + decode_steps - one.born, one.options.max_length) for one in order),
        )

    def step_on(self, most: int) -> None:
        """All lengths may be one more from now on, up to `most`."""
        self.longest = min(self.longest + 1, most)


def _groups(by_rules: dict[GenerationOptions, list[Running]], device: torch.device) -> list[SamplingGroup]:
    groups, start = [], 0
    for rules, members in by_rules.items():
        rows = [row for one in members for row in one.rows]
        own = [one.options for one in members for _ in one.rows]
        groups.append(
            SamplingGroup(
                options=rules,
                start=start,
                end=start + len(rows),
                rows=_numbers(rows, torch.int64, device),
                max_lengths=_numbers([options.max_length for options in own], torch.int32, device),
                min_lengths=_numbers([options.min_length for options in own], torch.int32, device),
                seeds=_numbers([options.seed for options in own], torch.int64, device),
                streams=_numbers([s for one in members for s in range(len(one.rows))], torch.int64, device),
            )
        )
        start += len(rows)
    return groups


def _table(pages: list[tuple[int, ...]], device: torch.device) -> Tensor:
    """Page numbers as one int32 table [rows, longest], padded with 0."""
    widest = max(map(len, pages))
    return _numbers([[*row, *[0] * (widest - len(row))] for row in pages], torch.int32, device)


def _numbers(values: Sequence[int] | list[list[int]], dtype: torch.dtype, device: torch.device) -> Tensor:
    return uploaded(torch.tensor(values, dtype=dtype), device)
