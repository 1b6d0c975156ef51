"""Model runner: executes the scheduler's steps on the device, encoding and decoding requests."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import cast

import torch
from torch import Tensor

from ..kernels.attention.kv_cache import PAGE_SIZE
from .batch import RunningRequest, rules_of
from .cache.paged_cache import PagedCache
from .config import RunnerConfig
from .decode_step import decode_batch
from .decoder import Decoder
from .device.cpu_pool import CpuWorkerPool
from .device.cuda_graphs import DecodeGraphs, ladder, record_on
from .device.encode_stream import EncodeStream
from .device.nvtx import marked
from .encoder import Encoder
from .faults import Failure, attempt, isolate
from .inputs import FrontEnd, frames_of
from .model_protocol import EncoderOnlyModel, GenerativeModel, generates
from .prefill import Prefill
from .request import Event, FinishReason, GenerationOptions, Hypothesis, Request, RequestOutput, Tokens
from .scheduler import Demand, Step
from .slot_tables import SlotTables
from .state import DecodeState
from .step_output import StepOutput, read_hypotheses

Progress = Callable[[int, int], None]  # called with what is done so far, and with all that there is


class ModelRunner:
    """Model runner, which executes steps and owns the paged cache, the decode state and the batches.

    Args:
        model: model in evaluation mode.
        front_end: feature extractor for requests with waveforms; None where they hold features.
        predictor: model for encoder-only requests; by default `model` itself where that does not generate.
        num_pages: number of cache pages, of 16 positions each; an encoder-only model needs none.
        num_slots: maximum number of hypotheses decoded at once.
        max_length: maximum sequence length in tokens; the model's own limit by default.
        graphs: True records decode steps as CUDA graphs, see `DecodeGraphs`. Without a GPU, the same steps on
            the same tensors are launched one by one.
        overlap: True encodes while decoding, see `EncodeStream`.
        config: settings of the runner.
    """

    def __init__(
        self,
        model: GenerativeModel | EncoderOnlyModel,
        front_end: FrontEnd | None = None,
        *,
        predictor: EncoderOnlyModel | None = None,
        num_pages: int = 0,
        num_slots: int = 0,
        max_length: int | None = None,
        graphs: bool = False,
        overlap: bool = False,
        config: RunnerConfig | None = None,
    ) -> None:
        self.model = model
        self.num_pages = num_pages
        self.num_slots = num_slots
        self.config = config or RunnerConfig()
        self._front_end = front_end
        self._generator: GenerativeModel | None = None
        cache_shape, token_limit = (0, 0, 0), 0  # for a model that does not generate
        if generates(model):
            self._generator = model
            cache_shape, token_limit = model.cache_shape, max_length or model.max_length
        elif predictor is None:
            predictor = cast(EncoderOnlyModel, model)
        self._predictor = predictor
        idle = int(graphs)  # a page and a slot for the unused rows of a recorded batch
        self._cache = PagedCache(*cache_shape, num_pages + idle, model.dtype, model.device)
        self._state = DecodeState(num_slots + idle, token_limit, model.device)
        self._requests: dict[int, RunningRequest] = {}  # admitted and not released
        self._encoded: list[RunningRequest] = []  # not decoded yet
        self._pool = None if graphs else CpuWorkerPool.for_device(model.device, self.config.switch_interval)
        self._stream = EncodeStream(model.device) if overlap else None
        self._encoder = Encoder(
            self._generator,
            predictor,
            front_end,
            self._cache,
            self._pool,
            self._stream,
            self.config.max_chunk_tokens,
        )
        decoding = cast(GenerativeModel, self._generator), self._cache, self._state
        step = partial(decode_batch, *decoding)
        on_gpu = model.device.type == "cuda"
        chunk = self.config.max_prefill_on_gpu if on_gpu else self.config.max_chunk_tokens
        prefill = Prefill(*decoding, self._pool, chunk)
        tables = SlotTables(num_slots + idle, model.device, num_pages if graphs else None)
        decode_graphs = None
        if graphs:
            record, limit = record_on(model.device), self.config.max_recorded_steps
            decode_graphs = DecodeGraphs(step, self._state, tables, record, limit)
        self._decoder = Decoder(step, self._state, tables, self._pool, self.config, prefill, decode_graphs)
        self.reset_counts()
        # Results are read on a separate stream, so as not to wait for the steps launched since.
        self._result_stream = torch.cuda.Stream(model.device) if model.device.type == "cuda" else None

    @classmethod
    def sized_for(
        cls,
        model: GenerativeModel,
        requests: Sequence[Request],
        config: RunnerConfig | None = None,
        *,
        longest: int = 0,
    ) -> "ModelRunner":
        """Create a runner with a cache for all these requests at once, or for as many as its limits allow.

        The limits are `default_cache_bytes` and `default_num_slots` of `config`. With `longest` there is room
        for as many others of that length, in tokens.
        """
        config = config or RunnerConfig()
        if longest:
            requests = [
                replace(request, options=replace(request.options, max_length=longest))
                for request in requests
                if request.options is not None
            ]
        demands = [_demand(model, None, None, request) for request in requests]
        layers, heads, head_dim = model.cache_shape
        page_bytes = 2 * layers * PAGE_SIZE * heads * head_dim * torch.finfo(model.dtype).bits // 8
        pages = min(sum(demand.pages for demand in demands), config.default_cache_bytes // page_bytes)
        slots = min(sum(demand.hypotheses for demand in demands), config.default_num_slots)
        return cls(
            model,
            num_pages=max([pages, *(demand.pages for demand in demands)]),
            num_slots=max([slots, *(demand.hypotheses for demand in demands)]),
            max_length=max(
                (request.options.max_length for request in requests if request.options), default=2
            ),
            graphs=model.device.type == "cuda",
            config=config,
        )

    @property
    def graphs(self) -> int:
        """Number of decode steps that have been recorded as CUDA graphs."""
        return self._decoder.graphs.recorded if self._decoder.graphs else 0

    @property
    def decoded_tokens(self) -> int:
        """Number of tokens decoded, of all hypotheses."""
        return self._decoder.decoded_tokens

    @torch.inference_mode()
    def record_steps(self, demands: Sequence[tuple[GenerationOptions, int]], progress: Progress) -> None:
        """Record decode steps of any number of requests ahead of need, while none runs.

        Args:
            demands: options of such requests, and their numbers of encoder positions.
            progress: called with the number of steps recorded so far, and of all.
        """
        widths: dict[GenerationOptions, list[tuple[int, int]]] = {}
        for options, tokens in demands:
            demand = Demand(tokens, options.max_length - 1, options.hypotheses)
            own_width = demand.pages_per_hypothesis, demand.cross_pages
            widths.setdefault(rules_of(options), []).append(own_width)
        buckets = [one for rules, pairs in widths.items() for one in ladder(rules, self.num_slots, pairs)]
        if self._decoder.graphs is not None:
            self._decoder.graphs.record_steps(buckets, progress)

    def reset_counts(self) -> None:
        """Reset the counts of steps and tokens to 0; only while no request runs."""
        self.steps = 0
        self.encoded_tokens = 0
        self._decoder.reset_counts()

    def reset(self) -> None:
        """Drop all requests, after a step that failed as a whole; their slots and pages may be lent anew."""
        self._requests, self._encoded = {}, []
        self._decoder.drop(list(self._decoder.requests))

    def demand(self, request: Request) -> Demand:
        """Pages and slots that a request can ever need; its encoder length is computed only here.

        Raises:
            ValueError: inputs or a max_length that this runner cannot take, with the limit.
        """
        demand = _demand(self._generator, self._predictor, self._front_end, request)
        limit = self._state.max_length
        if request.options is not None and request.options.max_length > limit:
            asked = request.options.max_length
            raise ValueError(f"max_length is {asked}, and this runner holds {limit} tokens; ask for fewer")
        return demand

    def launch(self, step: Step, admitted: Mapping[int, Request]) -> StepOutput:
        """Launch one step on the device, without waiting for its results.

        A request that ends in it stays unchanged in the batch and in the decode state until its release.

        Args:
            step: plan of the scheduler.
            admitted: requests that the plan admits, by id.
        """
        if self._pool is None:
            with self._on_device():
                return self._launch(step, admitted)
        return self._pool.run(self._launch, step, admitted)

    @torch.inference_mode()
    def _launch(self, step: Step, admitted: Mapping[int, Request]) -> StepOutput:
        output = StepOutput(step.number)
        self._release(step)
        self._join(output)
        self._admit(step, admitted, output)
        if self._stream is None or not self._decoder.requests:
            self._join(output)
        for _ in range(step.decode_steps):
            if self._decoder.requests:
                self._decoder.decode(output)
        self.steps += 1
        return output

    @marked("results")
    def collect(self, output: StepOutput) -> list[Event]:
        """Wait for the results of a step and return its events: tokens first, then RequestOutputs.

        A request that a later step has released has no events, since its slots may be another's. Reading is
        repeated once after an error; results of requests that cannot be read are errors of those requests.
        """
        with self._on_device():
            found = attempt(self._collect, output, self._state.device)
            return self._collect(output) if isinstance(found, Failure) else found

    def _on_device(self) -> AbstractContextManager[object]:
        """Context in which the model's GPU is the current one, in whichever thread.

        Pinned memory belongs to the current GPU, and launches on another one switch to it and back.
        """
        device = self._state.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()

    @torch.inference_mode()
    def _collect(self, output: StepOutput) -> list[Event]:
        """Implement `collect`; nothing but times is changed before all results have been read."""
        pieces: dict[RunningRequest, list[int]] = {}
        lengths: dict[RunningRequest, int] = {}
        for batch in output.decoded:
            for running, length, token in batch.streamed():
                # A length that did not grow is of a sequence that had ended before.
                if length > lengths.get(running, running.streamed) and self._is_current(running):
                    lengths[running] = length
                    pieces.setdefault(running, []).append(token)
        outputs = [*self._predictions(output), *self._completions(output)]
        outputs += [
            (running, RequestOutput(running.request.request_id, (), FinishReason.ERROR, error))
            for running, error in output.failed
        ]
        self._note_first_tokens(output)
        events: list[Event] = [
            Tokens(running.request.request_id, tuple(tokens)) for running, tokens in pieces.items()
        ]
        for running, length in lengths.items():
            running.streamed = length
        for running, event in outputs:
            if not running.reported and self._is_current(running):
                running.reported = True
                events.append(event)
        return events

    @staticmethod
    def _note_first_tokens(output: StepOutput) -> None:
        """Note the time for the requests that joined in a step, whose results are there."""
        if output.joined:
            now, failed = perf_counter(), {running for running, _ in output.failed}
            for times in [one.request.times for one in output.joined if one not in failed]:
                times.first_token = now
                times.encoded = times.encoded or now

    def _predictions(self, output: StepOutput) -> list[tuple[RunningRequest, RequestOutput]]:
        """RequestOutputs of the encoder-only requests of a step."""
        found: dict[RunningRequest, dict[str, Tensor]] = {}
        for packed in output.encoder_outputs:
            read = isolate(packed.values, packed.requests, self._state.device)
            output.failed += read.failed
            for _, values in read.parts:
                found |= values
        return [
            (
                running,
                RequestOutput(running.request.request_id, (), FinishReason.STOP, predictions=found[running]),
            )
            for running in output.encoder_only
            if running in found
        ]

    def _completions(self, output: StepOutput) -> list[tuple[RunningRequest, RequestOutput]]:
        """RequestOutputs of the requests that had ended by this step and are not reported yet."""
        ended: dict[RunningRequest, int] = {}  # with the number of decode steps at the end
        for batch in output.decoded:
            for running in batch.ended():
                if not running.reported and self._is_current(running):
                    ended.setdefault(running, batch.steps)
        if not ended:
            return []

        def read(part: list[RunningRequest]) -> list[tuple[Hypothesis, ...]]:
            with torch.cuda.stream(self._result_stream) if self._result_stream else nullcontext():
                return read_hypotheses(part, self._state, output.buffer)

        found = isolate(read, list(ended), self._state.device)
        output.failed += found.failed
        completions = []
        for part, of_part in found.parts:
            for running, hypotheses in zip(part, of_part, strict=True):
                kept = running.scores
                scores = tuple(kept[: ended[running] - running.first_step]) if kept else ()
                reason = hypotheses[0].finish_reason
                request_id = running.request.request_id
                completions.append(
                    (
                        running,
                        RequestOutput(
                            request_id,
                            hypotheses,
                            reason,
                            scores=scores,
                            no_speech_probability=running.no_speech_probability,
                            encoded=running.encoded,
                        ),
                    )
                )
        return completions

    def _release(self, step: Step) -> None:
        released = [self._requests.pop(one.request_id, None) for one in step.released]
        self._decoder.drop(running for running in released if running is not None)
        if released:
            self._encoded = [running for running in self._encoded if self._is_current(running)]

    @marked("admission")
    def _admit(self, step: Step, admitted: Mapping[int, Request], output: StepOutput) -> None:
        """Encode the requests that a step admits."""
        arrivals = [RunningRequest(admitted[one.request_id], one) for one in step.admitted]
        self._requests |= {running.request.request_id: running for running in arrivals}
        if generative := [running for running in arrivals if running.admission.slots]:
            self._encoded += self._count_encoded(self._encoder.encode(generative, output))
            if self._state.device.type == "cpu":  # else the host is ahead of the device
                now = perf_counter()
                for running in generative:
                    running.request.times.encoded = now
        if encoder_only := [running for running in arrivals if not running.admission.slots]:
            output.encoder_only += self._count_encoded(self._encoder.encode(encoder_only, output))

    def _count_encoded(self, encoded: list[RunningRequest]) -> list[RunningRequest]:
        self.encoded_tokens += sum(running.admission.encode_tokens for running in encoded)
        return encoded

    def _join(self, output: StepOutput) -> None:
        """Add the encoded requests to those that decode, from the next decode step on."""
        if not self._encoded:
            return
        if self._stream:
            self._stream.join()
        self._decoder.join(self._encoded, output)
        output.joined += self._encoded
        self._encoded = []

    def _is_current(self, running: RunningRequest) -> bool:
        """Check whether a request still owns its slots and pages."""
        return self._requests.get(running.request.request_id) is running


def _demand(
    decoder: GenerativeModel | None,
    predictor: EncoderOnlyModel | None,
    front_end: FrontEnd | None,
    request: Request,
) -> Demand:
    """Encoder positions, decoder positions and hypotheses that a request can ever need.

    Raises:
        ValueError: the request is for a task that the model does not have, a waveform comes without a front
            end, or inputs are too short or too long for the model.
    """
    options = request.options
    model = predictor if options is None else decoder
    if model is None:
        if options is None:
            raise ValueError(f"a {type(decoder).__name__} decodes token by token; give the request options")
        raise ValueError(f"a {type(predictor).__name__} does not generate; give the request no options")
    tokens = model.encoder_length(frames_of(request, front_end))
    if options is None:
        return Demand(tokens, decode_positions=0, hypotheses=0)
    _check_prompt(options)
    return Demand(tokens, options.max_length - 1, options.hypotheses)


def _check_prompt(options: GenerationOptions) -> None:
    """Check the options of a prompt; raises ValueError for a length or an index that does not fit."""
    length, index = len(options.prompt), options.start_index
    if length >= options.max_length:
        raise ValueError(
            f"max_length is {options.max_length}, and the prompt has {length} tokens; ask for more, since it "
            "counts the prompt"
        )
    if not 0 <= index < length:
        raise ValueError(f"start_index is {index}; it must be 0 to {length - 1}, within the prompt")
    if options.choices and index + 1 == length:
        raise ValueError(
            f"choices replace token {index + 1} of the prompt, which has {length}; add a token there"
        )
