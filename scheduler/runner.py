"""Carries out the scheduler's steps on the device: encode what is admitted, decode what runs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TypeGuard, cast

import torch

from ..kernels.attention.kv_cache import PAGE_SIZE
from .batch import Batch, Running, rules_of
from .cache.paged_cache import PagedCache, slots_of
from .decode_step import decode_batch
from .device.cpu_pool import CpuWorkerPool, Part, Result, balanced
from .device.cuda_graphs import DecodeGraphs, record_on
from .device.encode_stream import Overlap
from .inputs import FrontEnd, frames_of, pack_inputs, uploaded
from .model_protocol import EncoderOnlyModel, GenerativeModel
from .request import FinishReason, GenerationOptions, Request
from .scheduler import Admission, Demand, Step
from .state import DecodeState
from .step_output import EncoderOutputs, HostCopy, Pending, StepOutput, hypotheses_of

# What a cache that nobody sized may take: enough for some thousand seconds of audio in a small model.
_DEFAULT_CACHE_BYTES = 2 << 30
_DEFAULT_ROWS = 256

# Encoder positions that one core encodes at a time: a layer's inner half takes 4 MB of a small model's.
MAX_CHUNK_TOKENS = 512
# What a decode step costs a request beside its encoder positions, in encoder positions.
_ROW_COST = 600

Arrival = tuple[Admission, Request]


class ModelRunner:
    """Owns the tensors: the paged cache, the tables of hypotheses, and the batch that is being decoded.

    Args:
        model: in evaluation mode; generative, encoder-only, or both.
        front_end: for requests that bring waveforms; None where they bring features.
        num_pages: pages of 16 rows in the cache; a encoder-only model needs none.
        num_rows: hypotheses that can be decoded at once.
        max_length: tokens of the longest sequence; the model's own limit by default.
        graphs: record decode steps as CUDA graphs, see `DecodeGraphs`. Off a GPU the same steps on the same
            tensors, launched one by one.
        overlap: encode beside decoding, see `Overlap`.
    """

    def __init__(
        self,
        model: GenerativeModel | EncoderOnlyModel,
        front_end: FrontEnd | None = None,
        *,
        num_pages: int = 0,
        num_rows: int = 0,
        max_length: int | None = None,
        graphs: bool = False,
        overlap: bool = False,
    ) -> None:
        self.model = model
        self.front_end = front_end
        self.num_pages = num_pages
        self.num_rows = num_rows
        self.count_anew()
        cache_shape, longest = (0, 0, 0), 0  # of a model that only answers
        if _generates(model):
            cache_shape, longest = model.cache_shape, max_length or model.max_length
        idle = int(graphs)  # a page and a row for requests that are not there
        self._cache = PagedCache(*cache_shape, num_pages + idle, model.dtype, model.device)
        self._state = DecodeState(num_rows + idle, longest, model.device)
        self._running: dict[int, Running] = {}
        self._joining: list[tuple[Admission, Request, int]] = []  # encoded, with their lengths
        self._batches: list[Batch] = []
        self._cpu_pool = CpuWorkerPool.for_device(model.device) if not graphs else None
        self._overlap = Overlap(model.device) if overlap else None
        self._graphs = (
            DecodeGraphs(self._decode_batch, self._state, num_pages, record_on(model.device))
            if graphs
            else None
        )
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
            max_length=max(
                (request.options.max_length for request in requests if request.options), default=2
            ),
        )

    @property
    def graphs(self) -> int:
        """Decode steps that have been recorded as CUDA graphs."""
        return self._graphs.recorded if self._graphs else 0

    def count_anew(self) -> None:
        """Begin to count what is done; while nothing runs."""
        self.steps = 0
        self.decode_steps = 0
        self.decoded_rows = 0
        self.encoded_tokens = 0

    def demand(self, request: Request) -> Demand:
        """What a request can ever need.

        Raises:
            ValueError: inputs or a length that this runner cannot take, with the limit.
        """
        demand = _demand(self.model, self.front_end, request)
        limit = self._state.tokens.shape[2]
        if request.options is not None and request.options.max_length > limit:
            asked = request.options.max_length
            raise ValueError(f"max_length is {asked}, and this runner holds {limit} tokens; ask for fewer")
        return demand

    def execute(self, step: Step, admitted: Mapping[int, Request]) -> StepOutput:
        """Carry out one step and wait for what it brings; see `launch`."""
        return self.collect(self.launch(step, admitted))

    def launch(self, step: Step, admitted: Mapping[int, Request]) -> Pending:
        """Hand one step to the device, without waiting for its results.

        Who ends in it stays in the batch and in the state's tables, unchanged, until its release.

        Args:
            step: the plan.
            admitted: the requests that it admits, by id.
        """
        if self._cpu_pool is None:
            return self._launch(step, admitted)
        return self._cpu_pool.run(self._launch, step, admitted)

    @torch.inference_mode()
    def _launch(self, step: Step, admitted: Mapping[int, Request]) -> Pending:
        pending = Pending(StepOutput())
        for release in step.released:
            if self._running.pop(release.request_id, None) is not None:
                self._batches = []
            self._joining = [one for one in self._joining if one[0].request_id != release.request_id]
        self._join()
        arrivals = [(admission, admitted[admission.request_id]) for admission in step.admitted]
        if decoding := [arrival for arrival in arrivals if arrival[0].rows]:
            self._admit(decoding, pending)
        if encoder_only := [arrival for arrival in arrivals if not arrival[0].rows]:
            self._admit(encoder_only, pending)
        if self._overlap is None or not self._running:
            self._join()
        if self._running and not self._batches:
            self._batches = [
                Batch.of(share, self.decode_steps, self.model.device) for share in self._shares()
            ]
        if self._batches:
            for _ in range(step.decode_steps):
                self._decode(pending)
            pending.order = [running for batch in self._batches for running in batch.order]
            pending.side = self._state.side
            first_slots = torch.cat([batch.first_slots for batch in self._batches])
            pending.done = HostCopy(self._state.request_done[first_slots])
        self.steps += 1
        return pending

    @torch.inference_mode()
    def collect(self, pending: Pending) -> StepOutput:
        """What a step brought, once it is there.

        Steps launched since may have released requests and lent their rows to others: of those nothing is
        reported, except for what failed or was answered in the step itself.
        """
        outcome = pending.outcome
        for answers in pending.answers:
            outcome.answers.update(answers.values())
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
        with torch.cuda.stream(self._reader) if self._reader else nullcontext():
            found = hypotheses_of(ended, self._state, pending.side)
        for running, hypotheses in zip(ended, found, strict=True):
            running.reported = True
            request_id = running.request.request_id
            outcome.hypotheses[request_id] = hypotheses
            outcome.finished[request_id] = hypotheses[0].finish_reason
            outcome.scores[request_id] = tuple(scores for before, scores in running.scores if not before)
        return outcome

    def _admit(self, arrivals: list[Arrival], pending: Pending) -> None:
        """Encode what arrives, all together; where that fails in parts, so that none fails the others.

        In halves where memory ran out, since they may do; else one by one.

        Args:
            arrivals: all generative or all encoder-only, at least one.
        """
        try:
            if arrivals[0][0].rows:
                self._encode(arrivals)
            else:
                self._predict(arrivals, pending)
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

    def _predict(self, arrivals: list[Arrival], pending: Pending) -> None:
        """Answer encoder-only requests, which end with that."""
        model = cast(EncoderOnlyModel, self.model)

        def predict(chunk: list[Arrival]) -> EncoderOutputs:
            requests = [request for _, request in chunk]
            packed = model.predict(*pack_inputs(requests, self.front_end, model.device))
            return EncoderOutputs([request.request_id for request in requests], packed)

        pending.answers += self._each(predict, self._chunks(arrivals))
        for _, request in arrivals:
            pending.outcome.finished[request.request_id] = FinishReason.STOP
            self.encoded_tokens += model.encoder_length(frames_of(request, self.front_end))

    def _encode(self, arrivals: list[Arrival]) -> None:
        chunks = self._chunks(arrivals)
        for chunk, lengths in zip(chunks, self._each(self._encode_chunk, chunks), strict=True):
            for (admission, request), length in zip(chunk, lengths, strict=True):
                self.encoded_tokens += length
                self._joining.append((admission, request, length))

    def _encode_chunk(self, arrivals: list[Arrival]) -> list[int]:
        """Encode recordings into their pages, and say how many encoder positions each has."""
        model, overlap = cast(GenerativeModel, self.model), self._overlap
        requests = [request for _, request in arrivals]
        # Not from the encoder's cu_tokens, which would have to be waited for.
        lengths = [model.encoder_length(frames_of(request, self.front_end)) for request in requests]
        slots = [
            slots_of(admission.cross_pages, length)
            for (admission, _), length in zip(arrivals, lengths, strict=True)
        ]
        with overlap.encoding([request.inputs for request in requests]) if overlap else nullcontext():
            encoded, _ = model.encode(*pack_inputs(requests, self.front_end, model.device))
            key_values = model.cross_key_values(encoded)
            if overlap:
                overlap.write_pages()
            self._cache.store_cross(key_values, uploaded(torch.cat(slots), model.device))
        return lengths

    def _join(self) -> None:
        """Take what has been encoded among what is decoded."""
        if self._joining:
            if self._overlap:
                self._overlap.join()
            for encoded in self._joining:
                self._begin(*encoded)
            self._joining, self._batches = [], []

    def _begin(self, admission: Admission, request: Request, length: int) -> None:
        """Take an encoded request, of `length` positions, among those that are decoded."""
        options = cast(GenerationOptions, request.options)
        self._state.admit(list(admission.rows), options.decoder_start_token_id, options.num_beams > 1)
        self._running[request.request_id] = Running(
            request=request,
            options=options,
            rules=rules_of(options),
            rows=admission.rows,
            self_pages=admission.self_pages,
            cross_pages=admission.cross_pages,
            cross_length=length,
            born=self.decode_steps,
        )

    def _decode(self, pending: Pending) -> None:
        """One token for every running hypothesis."""
        state = self._state
        self._each(self._graphs.decode if self._graphs else self._decode_batch, self._batches)
        state.turn()
        self.decode_steps += 1
        for batch in self._batches:
            batch.step_on(state.tokens.shape[2])
            self.decoded_rows += len(batch.rows)
            if batch.streaming:
                lengths = state.length[batch.streaming_rows]
                newest = state.tokens[state.side, batch.streaming_rows, lengths.long() - 1]
                pending.streams.append((batch.streaming, HostCopy(torch.stack([lengths, newest], dim=1))))

    def _decode_batch(self, batch: Batch) -> None:
        decode_batch(cast(GenerativeModel, self.model), self._cache, self._state, batch)

    def _each(self, function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """`function` of every part, side by side where there is a pool."""
        return list(map(function, parts)) if self._cpu_pool is None else self._cpu_pool.map(function, parts)

    def _shares(self) -> list[list[Running]]:
        """The running requests, a share for each core of the pool."""
        running = list(self._running.values())
        if self._cpu_pool is None:
            return [running]
        return balanced(running, [_ROW_COST + one.cross_length for one in running], self._cpu_pool.size)

    def _chunks(self, arrivals: list[Arrival]) -> list[list[Arrival]]:
        """What is to be encoded, in parts of which each has one core."""
        if self._cpu_pool is None:
            return [arrivals]
        frames = [frames_of(request, self.front_end) for _, request in arrivals]
        tokens = [self.model.encoder_length(count) for count in frames]
        rounds = -(-sum(tokens) // (MAX_CHUNK_TOKENS * self._cpu_pool.size))
        return balanced(arrivals, tokens, rounds * self._cpu_pool.size)

    def _is_current(self, running: Running) -> bool:
        """Whether a request still owns the rows that it was lent."""
        return self._running.get(running.request.request_id) is running

    def _stream(self, running: Running, length: int, token: int, outcome: StepOutput) -> None:
        """Report the newest token of a request that streams, unless its sequence had ended before."""
        if length > running.streamed and self._is_current(running):
            running.streamed = length
            request_id = running.request.request_id
            outcome.tokens[request_id] = (*outcome.tokens.get(request_id, ()), token)


def _generates(model: GenerativeModel | EncoderOnlyModel) -> TypeGuard[GenerativeModel]:
    return hasattr(model, "decode")


def _demand(
    model: GenerativeModel | EncoderOnlyModel, front_end: FrontEnd | None, request: Request
) -> Demand:
    """What a request can ever need.

    Raises:
        ValueError: a request of a kind that the model does not answer, a waveform without a front end, or
            inputs too short or too long for the model.
    """
    options = request.options
    if options is None and not hasattr(model, "predict"):
        raise ValueError(f"a {type(model).__name__} decodes token by token; give the request options")
    if options is not None and not _generates(model):
        raise ValueError(f"a {type(model).__name__} does not generate; give the request no options")
    tokens = model.encoder_length(frames_of(request, front_end))
    if options is None:
        return Demand(tokens, decode_positions=0, hypotheses=0)
    return Demand(tokens, options.max_length - 1, options.hypotheses)
