"""Model runner: executes the scheduler's steps on the device, encoding and decoding requests."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor

from ..kernels.attention.kv_cache import PAGE_SIZE
from .batch import Batch, RunningRequest
from .cache.paged_cache import PagedCache
from .config import RunnerConfig
from .decode_step import decode_batch
from .device.cpu_pool import CpuWorkerPool, balanced, map_parts
from .device.cuda_graphs import DecodeGraphs, record_on
from .device.encode_stream import EncodeStream
from .encoder import Encoder
from .inputs import FrontEnd, frames_of
from .model_protocol import EncoderOnlyModel, GenerativeModel, generates
from .request import Event, FinishReason, Request, RequestOutput, Tokens
from .scheduler import Demand, Step
from .state import DecodeState
from .step_output import HostCopy, StepOutput, read_hypotheses


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
        self._decoder: GenerativeModel | None = None
        cache_shape, token_limit = (0, 0, 0), 0  # for a model that does not generate
        if generates(model):
            self._decoder = model
            cache_shape, token_limit = model.cache_shape, max_length or model.max_length
        elif predictor is None:
            predictor = cast(EncoderOnlyModel, model)
        self._predictor = predictor
        self.reset_counts()
        idle = int(graphs)  # a page and a slot for the unused rows of a recorded batch
        self._cache = PagedCache(*cache_shape, num_pages + idle, model.dtype, model.device)
        self._state = DecodeState(num_slots + idle, token_limit, model.device)
        self._requests: dict[int, RunningRequest] = {}  # admitted and not released
        self._encoded: list[RunningRequest] = []  # not decoded yet
        self._decoding: list[RunningRequest] = []
        self._batches: list[Batch] = []  # of the decoding requests; cleared when one joins or leaves
        self._pool = None if graphs else CpuWorkerPool.for_device(model.device, self.config.switch_interval)
        self._stream = EncodeStream(model.device) if overlap else None
        self._encoder = Encoder(
            self._decoder,
            predictor,
            front_end,
            self._cache,
            self._pool,
            self._stream,
            self.config.max_chunk_tokens,
        )
        self._graphs: DecodeGraphs | None = None
        if graphs:
            record, limit = record_on(model.device), self.config.max_recorded_steps
            self._graphs = DecodeGraphs(self._decode_batch, self._state, num_pages, record, limit)
        # Results are read on a separate stream, so as not to wait for the steps launched since.
        self._result_stream = torch.cuda.Stream(model.device) if model.device.type == "cuda" else None

    @classmethod
    def sized_for(
        cls, model: GenerativeModel, requests: Sequence[Request], config: RunnerConfig | None = None
    ) -> "ModelRunner":
        """Create a runner with a cache for all these requests at once, or for as many as its limits allow.

        The limits are `default_cache_bytes` and `default_num_slots` of `config`.
        """
        config = config or RunnerConfig()
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
            config=config,
        )

    @property
    def graphs(self) -> int:
        """Number of decode steps that have been recorded as CUDA graphs."""
        return self._graphs.recorded if self._graphs else 0

    def reset_counts(self) -> None:
        """Reset the counts of steps and tokens to 0; only while no request runs."""
        self.steps = 0
        self.decode_steps = 0
        self.decoded_tokens = 0
        self.encoded_tokens = 0

    def demand(self, request: Request) -> Demand:
        """Pages and slots that a request can ever need; its encoder length is computed only here.

        Raises:
            ValueError: inputs or a max_length that this runner cannot take, with the limit.
        """
        demand = _demand(self._decoder, self._predictor, self._front_end, request)
        limit = self._state.tokens.shape[2]
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
            return self._launch(step, admitted)
        return self._pool.run(self._launch, step, admitted)

    @torch.inference_mode()
    def _launch(self, step: Step, admitted: Mapping[int, Request]) -> StepOutput:
        output = StepOutput(step.number)
        self._release(step)
        self._join()
        self._admit(step, admitted, output)
        if self._stream is None or not self._decoding:
            self._join()
        if self._decoding:
            if not self._batches:
                shares = self._shares()
                self._batches = [Batch.of(share, self.decode_steps, self.model.device) for share in shares]
            for _ in range(step.decode_steps):
                self._decode(output)
            output.decoded = [running for batch in self._batches for running in batch.requests]
            output.buffer = self._state.buffer
            first_slots = torch.cat([batch.first_slots for batch in self._batches])
            output.done = HostCopy(self._state.request_done[first_slots])
        self.steps += 1
        return output

    @torch.inference_mode()
    def collect(self, output: StepOutput) -> list[Event]:
        """Wait for the results of a step and return its events: tokens first, then RequestOutputs.

        A request that a later step has released has no events, since its slots may be another's.
        """
        pieces: dict[RunningRequest, list[int]] = {}
        for streaming, newest in output.streamed:
            for running, (length, token) in zip(streaming, newest.values(), strict=True):
                # A length that did not grow is of a sequence that had ended before.
                if length > running.streamed and self._is_current(running):
                    running.streamed = length
                    pieces.setdefault(running, []).append(token)
        events: list[Event] = [
            Tokens(running.request.request_id, tuple(tokens)) for running, tokens in pieces.items()
        ]
        for running, error in output.failed:
            if self._is_current(running):
                events.append(RequestOutput(running.request.request_id, (), FinishReason.ERROR, error))
        predictions: dict[RunningRequest, dict[str, Tensor]] = {}
        for packed in output.encoder_outputs:
            predictions |= packed.values()
        for running in output.encoder_only:
            if self._is_current(running):
                request_id = running.request.request_id
                events.append(
                    RequestOutput(request_id, (), FinishReason.STOP, predictions=predictions[running])
                )
        return events + self._completions(output)

    def _completions(self, output: StepOutput) -> list[RequestOutput]:
        """RequestOutputs of the requests that had ended by this step and are not reported yet."""
        if output.done is None:
            return []
        ended = [
            running
            for running, done in zip(output.decoded, output.done.values(), strict=True)
            if done and not running.reported and self._is_current(running)
        ]
        with torch.cuda.stream(self._result_stream) if self._result_stream else nullcontext():
            found = read_hypotheses(ended, self._state, output.buffer)
        completions = []
        for running, hypotheses in zip(ended, found, strict=True):
            running.reported = True
            scores = tuple(scores for had_ended, scores in running.scores if not had_ended)
            reason = hypotheses[0].finish_reason
            completions.append(RequestOutput(running.request.request_id, hypotheses, reason, scores=scores))
        return completions

    def _release(self, step: Step) -> None:
        for release in step.released:
            self._requests.pop(release.request_id, None)
        if step.released:
            self._encoded = [running for running in self._encoded if self._is_current(running)]
            decoding = [running for running in self._decoding if self._is_current(running)]
            if len(decoding) < len(self._decoding):
                self._decoding, self._batches = decoding, []

    def _admit(self, step: Step, admitted: Mapping[int, Request], output: StepOutput) -> None:
        """Encode the requests that a step admits."""
        arrivals = [RunningRequest(admitted[one.request_id], one) for one in step.admitted]
        self._requests |= {running.request.request_id: running for running in arrivals}
        if generative := [running for running in arrivals if running.admission.slots]:
            self._encoded += self._count_encoded(self._encoder.encode(generative, output))
        if encoder_only := [running for running in arrivals if not running.admission.slots]:
            output.encoder_only += self._count_encoded(self._encoder.encode(encoder_only, output))

    def _count_encoded(self, encoded: list[RunningRequest]) -> list[RunningRequest]:
        self.encoded_tokens += sum(running.admission.encode_tokens for running in encoded)
        return encoded

    def _join(self) -> None:
        """Add the encoded requests to those that decode, from the next decode step on."""
        if not self._encoded:
            return
        if self._stream:
            self._stream.join()
        for running in self._encoded:
            options = running.options
            self._state.admit(running.admission.slots, options.decoder_start_token_id, options.num_beams > 1)
            running.first_step = self.decode_steps
        self._decoding += self._encoded
        self._encoded, self._batches = [], []

    def _decode(self, output: StepOutput) -> None:
        """Decode one token of every hypothesis in all batches."""
        state = self._state
        map_parts(self._pool, self._graphs.decode if self._graphs else self._decode_batch, self._batches)
        state.swap()
        self.decode_steps += 1
        for batch in self._batches:
            batch.lengthen(state.tokens.shape[2])
            self.decoded_tokens += len(batch.slots)
            if batch.streaming:
                lengths = state.length[batch.streaming_slots]
                newest = state.tokens[state.buffer, batch.streaming_slots, lengths.long() - 1]
                output.streamed.append((batch.streaming, HostCopy(torch.stack([lengths, newest], dim=1))))

    def _decode_batch(self, batch: Batch) -> None:
        assert self._decoder is not None  # only a generative model has a batch
        decode_batch(self._decoder, self._cache, self._state, batch)

    def _shares(self) -> list[list[RunningRequest]]:
        """Divide the decoding requests among the cores of the pool, with balanced cost."""
        if self._pool is None:
            return [self._decoding]
        costs = [self.config.decode_cost + running.admission.encode_tokens for running in self._decoding]
        return balanced(self._decoding, costs, self._pool.size)

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
    return Demand(tokens, options.max_length - 1, options.hypotheses)
