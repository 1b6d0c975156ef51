"""Prefill: keys and values of the prompts of admitted requests, all positions in one pass.

In each layer the pass stores the keys and values of all its rows before it attends, and the row at position n
reads n + 1 positions. So it computes the same bits as one decode step for each token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..kernels.attention.kv_cache import PAGE_SIZE
from ..kernels.runtime.upload import upload_all
from ..kernels.sampling.softmax import log_softmax
from .batch import RunningRequest
from .cache.attention_metadata import AttentionMetadata, PageLayout
from .cache.paged_cache import PagedCache, cache_positions
from .device.cpu_pool import CpuWorkerPool, balanced, map_parts
from .device.nvtx import marked
from .device.phases import phase
from .model_protocol import GenerativeModel
from .state import DecodeState
from .step_output import HostCopy


class Span(NamedTuple):
    """Positions of a request's prompt, from `start` to before `end`."""

    running: RunningRequest
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Prefill:
    """Prefill of requests that join the decoder; on a CPU they are divided into chunks for the cores.

    A call that failed may be repeated, with other requests too.
    """

    model: GenerativeModel
    cache: PagedCache  # receives the keys and values
    state: DecodeState  # receives the prompts
    pool: CpuWorkerPool | None  # threads for the CPU's cores; None prefills one chunk after the other
    max_chunk_tokens: int  # about how many prompt positions are decoded at a time, on one core of a pool

    def __call__(self, arrivals: Sequence[RunningRequest]) -> None:
        """Begin the sequences of requests with their prompts; those of a start token alone have begun."""
        if prompted := [running for running in arrivals if running.options.prefilled]:
            self._run(prompted)

    @marked("prefill")
    def _run(self, prompted: list[RunningRequest]) -> None:
        self._write_prompts(prompted)
        map_parts(self.pool, self._prefill, self._chunks(prompted))

    def _chunks(self, prompted: list[RunningRequest]) -> list[list[RunningRequest]]:
        cores = 1 if self.pool is None else self.pool.size
        rows = [running.options.prefilled for running in prompted]
        rounds = -(-sum(rows) // (self.max_chunk_tokens * cores))
        return balanced(prompted, rows, rounds * cores)

    def _write_prompts(self, prompted: list[RunningRequest]) -> None:
        """Write the prompts of all hypotheses to the state, each the owner of its pages."""
        each = [
            (slot, index, running.options.prompt)
            for running in prompted
            for index, slot in enumerate(running.admission.slots)
        ]
        lengths = np.array([len(prompt) for _, _, prompt in each])
        slots, owners = (np.array(column) for column in list(zip(*each, strict=True))[:2])
        self.state.begin(
            *upload_all(
                [
                    torch.from_numpy(slots),
                    torch.from_numpy(lengths.astype(np.int32)),
                    torch.from_numpy(np.repeat(slots, lengths)),
                    torch.from_numpy(_ranges(np.zeros_like(lengths), lengths)),
                    torch.from_numpy(np.concatenate([prompt for _, _, prompt in each]).astype(np.int32)),
                    torch.from_numpy(np.repeat(owners, lengths).astype(np.int32)),
                ],
                self.state.device,
            )
        )

    def _prefill(self, chunk: list[RunningRequest]) -> None:
        """Prefill some requests: up to the choice of a token, and the rest once it is known."""
        with phase("prefill", chunk):
            self._prefill_prompts(chunk)

    def _prefill_prompts(self, chunk: list[RunningRequest]) -> None:
        spans, rest = [], []
        for running in chunk:
            options, end = running.options, running.options.prefilled
            middle = options.start_index + 1 if options.choices else end
            spans.append(Span(running, 0, middle))
            if middle < end:
                rest.append(Span(running, middle, end))
        self._read_start(spans, self._decode(spans))
        if rest:
            self._decode(rest)
        self._share(chunk)

    def _decode(self, spans: list[Span]) -> Tensor:
        """Decode prompt positions and store their keys and values; hidden states [rows, width]."""
        starts, ends = (
            np.array(column) for column in zip(*((one.start, one.end) for one in spans), strict=True)
        )
        admissions = [one.running.admission for one in spans]
        counts = ends - starts
        request = np.repeat(np.arange(len(spans)), counts)
        positions = _ranges(starts, counts)
        pages = _padded_rows(
            [own.self_pages[0][: -(-end // PAGE_SIZE)] for own, end in zip(admissions, ends, strict=True)]
        )
        stored = pages[request, positions // PAGE_SIZE].astype(np.int64) * PAGE_SIZE + positions % PAGE_SIZE
        slots = np.array([own.slots[0] for own in admissions])[request]
        wide, own_tables, lengths, cross_tables, encode_tokens, cu_rows = upload_all(
            [
                torch.from_numpy(np.stack([slots, positions, stored])),
                torch.from_numpy(pages[request]),
                torch.from_numpy((positions + 1).astype(np.int32)),
                torch.from_numpy(_padded_rows([own.cross_pages for own in admissions])),
                torch.tensor([own.encode_tokens for own in admissions], dtype=torch.int32),
                torch.from_numpy(np.concatenate([[0], counts.cumsum()]).astype(np.int32)),
            ],
            self.state.device,
        )
        each_row = torch.arange(len(request) + 1, dtype=torch.int32, device=self.state.device)
        attention = AttentionMetadata(
            self.cache,
            wide[2],
            own=PageLayout(own_tables, lengths, each_row),
            cross=PageLayout(cross_tables, encode_tokens, cu_rows),
        )
        # From the device, where a chosen token is.
        tokens = self.state.current.tokens[wide[0], wide[1]].long()
        return self.model.decode_hidden(tokens, wide[1], attention)

    def _read_start(self, spans: list[Span], hidden: Tensor) -> None:
        """Read the logits behind `start_index`: probabilities of no speech, and chosen tokens."""
        ends = np.cumsum([one.end - one.start for one in spans])
        asking = [
            (one.running, end - one.end + one.running.options.start_index)
            for one, end in zip(spans, ends.tolist(), strict=True)
            if one.running.options.no_speech_token is not None or one.running.options.choices
        ]
        if not asking:
            return
        device = self.state.device
        options = [running.options for running, _ in asking]
        rows, tokens = upload_all(
            [
                torch.tensor([row for _, row in asking]),
                torch.tensor([[one.no_speech_token or 0] for one in options]),
            ],
            device,
        )
        logits = self.model.logits(hidden.index_select(0, rows))
        probabilities = HostCopy(log_softmax(logits).gather(1, tokens)[:, 0].exp())
        for index, (running, _) in enumerate(asking):
            if running.options.no_speech_token is not None:
                running.no_speech = probabilities, index
        choosing = [index for index, one in enumerate(options) if one.choices]
        if choosing:
            self._choose([asking[index][0] for index in choosing], logits, choosing)

    def _choose(self, choosing: list[RunningRequest], logits: Tensor, rows: list[int]) -> None:
        """Write the likeliest of each request's choices, the smallest of equal ones, into its prompts."""
        slots = [
            (index, slot, running.options.start_index + 1)
            for index, running in enumerate(choosing)
            for slot in running.admission.slots
        ]
        # Rows are filled up with their first choice.
        choices = [sorted(running.options.choices) for running in choosing]
        widest = max(map(len, choices))
        table, own_rows, places = upload_all(
            [
                torch.tensor([one + one[:1] * (widest - len(one)) for one in choices]),
                torch.tensor(rows),
                torch.tensor(slots).T.contiguous(),
            ],
            self.state.device,
        )
        best = logits.index_select(0, own_rows).gather(1, table).argmax(1, keepdim=True)
        chosen = table.gather(1, best)[:, 0].int()
        self.state.replace(places[1], places[2], chosen[places[0]])

    def _share(self, chunk: list[RunningRequest]) -> None:
        """Copy the prompts' keys and values to the pages of all hypotheses but the first."""
        pairs = [
            ((own[0], running.options.prefilled), (pages, running.options.prefilled))
            for running in chunk
            for own in [running.admission.self_pages]
            for pages in own[1:]
        ]
        if pairs:
            sources, targets = map(cache_positions, zip(*pairs, strict=True))
            self.cache.copy(*upload_all([sources, targets], self.state.device))


def _ranges(starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Concatenated ranges of `counts` numbers, each from its start."""
    before = np.concatenate([[0], counts.cumsum()[:-1]])
    return np.arange(counts.sum()) + np.repeat(starts - before, counts)


def _padded_rows(rows: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    """Table of all rows, int32 [rows, longest], padded with 0."""
    table = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for own, row in zip(table, rows, strict=True):
        own[: len(row)] = row
    return table
