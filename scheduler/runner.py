"""Carries out the scheduler's steps on the device: encode what is admitted, decode what runs."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from ..kernels.kv_cache import PAGE_SIZE
from ..kernels.packing import cumulative
from .batch import Batch, Running
from .cache import PagedAttention, PagedCache
from .outcome import Arriving, Outcome, Pending
from .request import FinishReason, GenerationOptions, Hypothesis, Request
from .scheduler import Admission, Demand, Step
from .selection import select
from .state import DecodeState

# What a cache that nobody sized may take: enough for some thousand seconds of audio in a small model.
_DEFAULT_CACHE_BYTES = 2 << 30
_DEFAULT_ROWS = 256


class GenerativeModel(Protocol):
    """What the runner needs of a model; every family offers it."""

    @property
    def cache_shape(self) -> tuple[int, int, int]: ...
    @property
    def max_length(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def encoder_length(self, frames: int) -> int: ...
    def encode(self, features: Tensor, cu_frames: Tensor) -> tuple[Tensor, Tensor]: ...
    def cross_key_values(self, encoded: Tensor) -> list[tuple[Tensor, Tensor]]: ...
    def decode(self, token_ids: Tensor, positions: Tensor, attention: PagedAttention) -> Tensor: ...


class FrontEnd(Protocol):
    """Turns waveforms into the model's features."""

    def frame_count(self, samples: int) -> int: ...
    def packed(self, waveforms: Tensor, cu_samples: Tensor) -> tuple[Tensor, Tensor]: ...


class ModelRunner:
    """Owns the tensors: the paged cache, the tables of hypotheses, and the batch that is being decoded.

    Args:
        model: in evaluation mode.
        front_end: for requests that bring waveforms; None where they bring features.
        num_pages: pages of 16 rows in the cache.
        num_rows: hypotheses that can be decoded at once.
        max_length: tokens of the longest sequence; the model's own limit by default.
    """

    def __init__(
        self,
        model: GenerativeModel,
        front_end: FrontEnd | None = None,
        *,
        num_pages: int,
        num_rows: int,
        max_length: int | None = None,
    ) -> None:
        self.model = model
        self.front_end = front_end
        self.num_pages = num_pages
        self.num_rows = num_rows
        self.steps = 0
        self.decode_steps = 0
        self.decoded_rows = 0
        self.encoded_tokens = 0
        self._cache = PagedCache(*model.cache_shape, num_pages, model.dtype, model.device)
        self._state = DecodeState(num_rows, max_length or model.max_length, model.device)
        self._running: dict[int, Running] = {}
        self._batch: Batch | None = None
        # Results are read on a stream of their own, not in line behind the steps launched since.
        self._reader = torch.cuda.Stream(model.device) if model.device.type == "cuda" else None

    @classmethod
    def sized_for(cls, model: GenerativeModel, requests: Sequence[Request]) -> "ModelRunner":
        """A runner whose cache holds these requests, or as many at a time as a bounded cache can."""
        demands = [_demand(model, None, request) for request in requests]
        layers, heads, head_dim = model.cache_shape
        page_bytes = 2 * layers * PAGE_SIZE * heads * head_dim * torch.finfo(model.dtype).bits // 8
        pages = min(sum(demand.pages for demand in demands), _DEFAULT_CACHE_BYTES // page_bytes)
        rows = min(sum(demand.hypotheses for demand in demands), _DEFAULT_ROWS)
        return cls(
            model,
            num_pages=max([pages, *(demand.pages for demand in demands)]),
            num_rows=max([rows, *(demand.hypotheses for demand in demands)]),
            max_length=max((request.options.max_length for request in requests), default=2),
        )

    def demand(self, request: Request) -> Demand:
        """What a request can ever need.

        Raises:
            ValueError: inputs or a length that this runner cannot take, with the limit.
        """
        limit, asked = self._state.tokens.shape[2], request.options.max_length
        if asked > limit:
            raise ValueError(f"max_length is {asked}, and this runner holds {limit} tokens; ask for fewer")
        return _demand(self.model, self.front_end, request)

    def execute(self, step: Step, admitted: Mapping[int, Request]) -> Outcome:
        """Carry out one step and wait for what it brings; see `launch`."""
        return self.collect(self.launch(step, admitted))

    @torch.inference_mode()
    def launch(self, step: Step, admitted: Mapping[int, Request]) -> Pending:
        """Hand one step to the device, without waiting for its results.

        Who ends in it stays in the batch and in the state's tables, unchanged, until its release.

        Args:
            step: the plan.
            admitted: the requests that it admits, by id.
        """
        pending = Pending(Outcome())
        for release in step.released:
            if self._running.pop(release.request_id, None) is not None:
                self._batch = None
        if step.admitted:
            arrivals = [(admission, admitted[admission.request_id]) for admission in step.admitted]
            self._admit(arrivals, pending)
            self._batch = None
        if self._running and self._batch is None:
            self._batch = Batch.of(list(self._running.values()), self.decode_steps, self.model.device)
        if self._batch is not None:
            for _ in range(step.decode_steps):
                self._decode(self._batch, pending)
            pending.order, pending.side = self._batch.order, self._state.side
            pending.done = Arriving(self._state.request_done[self._batch.leaders])
        self.steps += 1
        return pending

    @torch.inference_mode()
    def collect(self, pending: Pending) -> Outcome:
        """What a step brought, once it is there.

        Steps launched since may have released requests and lent their rows to others: of those nothing is
        reported.
        """
        outcome = pending.outcome
        for streaming, newest in pending.streams:
            for running, (length, token) in zip(streaming, newest.values(), strict=True):
                self._stream(running, length, token, outcome)
        if pending.done is None:
            return outcome
        ended = [
            running
            for running, done in zip(pending.order, pending.done.values(), strict=True)
            if done and not running.reported and self._is_current(running)
        ]
        for running, hypotheses in zip(ended, self._hypotheses(ended, pending.side), strict=True):
            running.reported = True
            request_id = running.request.request_id
            outcome.hypotheses[request_id] = hypotheses
            outcome.finished[request_id] = hypotheses[0].finish_reason
            outcome.scores[request_id] = tuple(scores for before, scores in running.scores if not before)
        return outcome

    def _admit(self, arrivals: list[tuple[Admission, Request]], pending: Pending) -> None:
        """Encode what arrives, all together; where that fails in parts, so that none fails the others.

        In halves where memory ran out, since they may do; else one by one.
        """
        try:
            self._encode(arrivals)
            return
        except Exception as error:
            if len(arrivals) == 1:
                request_id = arrivals[0][0].request_id
                pending.outcome.finished[request_id] = FinishReason.ERROR
                pending.outcome.errors[request_id] = error
                return
            too_much = isinstance(error, torch.OutOfMemoryError)
        # Not in the handler: the error's traceback holds what the attempt had allocated.
        size = 1
        if too_much:
            pending.out_of_memory = True
            torch.cuda.empty_cache()
            size = -(-len(arrivals) // 2)
        for start in range(0, len(arrivals), size):
            self._admit(arrivals[start : start + size], pending)

    def _encode(self, arrivals: list[tuple[Admission, Request]]) -> None:
        features, cu_frames = self._features([request for _, request in arrivals])
        encoded, cu_tokens = self.model.encode(features, cu_frames)
        key_values = self.model.cross_key_values(encoded)
        lengths = (cu_tokens[1:] - cu_tokens[:-1]).tolist()
        slots = [
            _slots(admission.cross_pages, length)
            for (admission, _), length in zip(arrivals, lengths, strict=True)
        ]
        self._cache.store_cross(key_values, torch.cat(slots).to(self.model.device))
        self.encoded_tokens += sum(lengths)
        for (admission, request), length in zip(arrivals, lengths, strict=True):
            options = request.options
            self._state.admit(list(admission.rows), options.decoder_start_token_id, options.num_beams > 1)
            self._running[request.request_id] = Running(
                request=request,
                rules=replace(options, max_length=0, seed=0),
                rows=admission.rows,
                self_pages=admission.self_pages,
                cross_pages=admission.cross_pages,
                cross_length=length,
                born=self.decode_steps,
            )

    def _features(self, requests: list[Request]) -> tuple[Tensor, Tensor]:
        """Packed features of all requests, those that brought waveforms and those that brought features."""
        device = self.model.device
        parts: list[Tensor | None] = [
            None if request.inputs.dim() == 1 else request.inputs for request in requests
        ]
        waveforms = [request.inputs for request in requests if request.inputs.dim() == 1]
        if waveforms and self.front_end is not None:
            packed = torch.cat(waveforms).to(device)
            features, cu_frames = self.front_end.packed(packed, cumulative(list(map(len, waveforms)), device))
            if len(waveforms) == len(requests):
                return features, cu_frames
            extracted = iter(features.split((cu_frames[1:] - cu_frames[:-1]).tolist()))
            parts = [next(extracted) if part is None else part for part in parts]
        given = [part.to(device) for part in parts if part is not None]
        return torch.cat(given), cumulative([part.shape[0] for part in given], device)

    def _decode(self, batch: Batch, pending: Pending) -> None:
        """One token for every running hypothesis."""
        state = self._state
        lengths = torch.minimum(state.length[batch.rows], batch.places)
        places = lengths.long() - 1
        state.origin[state.side, batch.rows, places] = batch.streams
        pages = batch.self_tables.gather(1, (places // PAGE_SIZE)[:, None])[:, 0].long()
        attention = PagedAttention(
            self._cache,
            cu_rows=batch.cu_rows,
            lengths=lengths[batch.cu_rows[:-1].long()],
            slots=pages * PAGE_SIZE + places % PAGE_SIZE,
            self_tables=batch.self_tables,
            origin=state.origin[state.side, batch.rows, : batch.longest],
            cross_tables=batch.cross_tables,
            cross_lengths=batch.cross_lengths,
        )
        tokens = state.tokens[state.side, batch.rows, places]
        logits = self.model.decode(tokens.long(), places, attention)
        # Before the choice, which notes who ends in this step.
        ended = [state.request_done[one.rows[0]].clone() for one, _ in batch.keeping]
        choices = [
            select(group, logits[group.start : group.end], state, batch.longest) for group in batch.groups
        ]
        if batch.keeping:
            scores = torch.cat([choice.scores for choice in choices])
            for (running, rows), had_ended in zip(batch.keeping, ended, strict=True):
                running.scores.append((had_ended, scores[rows].clone()))
        state.advance(
            batch.rows,
            parents=torch.cat([choice.parents for choice in choices]),
            tokens=torch.cat([choice.tokens for choice in choices]),
            active=torch.cat([choice.active for choice in choices]),
            longest=batch.longest,
        )
        batch.longest = min(batch.longest + 1, state.tokens.shape[2])
        self.decoded_rows += len(tokens)
        self.decode_steps += 1
        if batch.streaming:
            lengths = state.length[batch.streaming_rows]
            newest = state.tokens[state.side, batch.streaming_rows, lengths.long() - 1]
            pending.streams.append((batch.streaming, Arriving(torch.stack([lengths, newest], dim=1))))

    def _is_current(self, running: Running) -> bool:
        """Whether a request still owns the rows that it was lent."""
        return self._running.get(running.request.request_id) is running

    def _stream(self, running: Running, length: int, token: int, outcome: Outcome) -> None:
        """Report the newest token of a request that streams, unless its sequence had ended before."""
        if length > running.streamed and self._is_current(running):
            running.streamed = length
            request_id = running.request.request_id
            outcome.tokens[request_id] = (*outcome.tokens.get(request_id, ()), token)

    def _hypotheses(self, ended: list[Running], side: int) -> list[tuple[Hypothesis, ...]]:
        """What requests that are over have come to, in the order of their rows.

        Read beside the steps launched since: those write what is there already over rows that have ended.
        """
        if not ended:
            return []
        state, device = self._state, self.model.device
        rows = [row for running in ended for row in running.rows]
        beams = [running.rules.num_beams > 1 for running in ended for _ in running.rows]
        with torch.cuda.stream(self._reader) if self._reader else nullcontext():
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


def _demand(model: GenerativeModel, front_end: FrontEnd | None, request: Request) -> Demand:
    """What a request can ever need.

    Raises:
        ValueError: a waveform without a front end, or inputs too short or too long for the model.
    """
    if request.inputs.dim() == 0:
        raise ValueError("inputs must be samples or features [frames, features], got a tensor of shape []")
    size = request.inputs.shape[0]
    if request.inputs.dim() == 1:
        if front_end is None:
            raise ValueError(
                "this loop takes features [frames, features]; extract them from the waveform first"
            )
        frames = front_end.frame_count(size)
        if frames == 0:
            raise ValueError(
                f"{size} samples are shorter than one frame of 25 ms; there is nothing to transcribe"
            )
    elif size == 0:
        raise ValueError("features of no frames were given; there is nothing to transcribe")
    else:
        frames = size
    options = request.options
    return Demand(model.encoder_length(frames), options.max_length - 1, options.hypotheses)


def _slots(pages: tuple[int, ...], length: int) -> Tensor:
    """The first `length` slots of these pages: int64 [length]."""
    starts = torch.tensor(pages, dtype=torch.int64) * PAGE_SIZE
    return (starts[:, None] + torch.arange(PAGE_SIZE)[None]).flatten()[:length]
