"""Encoding of admitted requests, to cross-attention keys and values or to encoder-only predictions."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from ..kernels.runtime.upload import upload
from .batch import RunningRequest
from .cache.paged_cache import PagedCache
from .device.cpu_pool import CpuWorkerPool, balanced, map_parts
from .device.encode_stream import EncodeStream
from .device.nvtx import marked
from .device.phases import phase
from .faults import isolate
from .inputs import FrontEnd, pack_inputs, tensor_of
from .model_protocol import EncoderOnlyModel, GenerativeModel
from .step_output import EncoderOutputs, StepOutput


@dataclass(frozen=True, slots=True)
class Encoder:
    """Encoder of packed requests; on a CPU they are divided into chunks for the cores."""

    model: GenerativeModel | None  # serves requests that are decoded
    predictor: EncoderOnlyModel | None  # serves encoder-only requests
    front_end: FrontEnd | None  # extracts features from waveforms
    cache: PagedCache  # receives the keys and values of the encoder outputs
    pool: CpuWorkerPool | None  # threads for the CPU's cores; None encodes one chunk after the other
    stream: EncodeStream | None  # for encoding while decoding; None encodes between decode steps
    max_chunk_tokens: int  # encoder positions that one core encodes at a time

    @marked("encode")
    def encode(self, arrivals: list[RunningRequest], output: StepOutput) -> list[RunningRequest]:
        """Encode requests together, and after an error in halves, so that one cannot fail the others.

        Requests that are not wanted any more when their chunk's turn comes are left out.

        Args:
            arrivals: at least one request; all of them decoded afterwards, or all encoder-only.
            output: step output that receives results, errors and unwanted requests.

        Returns:
            The requests that were encoded, in the order of `arrivals`.
        """
        encode_chunk: Callable[[list[RunningRequest]], EncoderOutputs | None]
        encode_chunk = self._store if arrivals[0].admission.slots else self._predict

        unwanted: dict[RunningRequest, None] = {}  # of several threads

        def encode_wanted(chunk: list[RunningRequest]) -> EncoderOutputs | None:
            wanted = [running for running in chunk if running.request.is_wanted()]
            unwanted.update(dict.fromkeys(running for running in chunk if running not in wanted))
            return encode_chunk(wanted) if wanted else None

        def encode_chunks(part: list[RunningRequest]) -> list[EncoderOutputs | None]:
            return map_parts(self.pool, encode_wanted, self._chunks(part))

        encoded = isolate(encode_chunks, arrivals, self.cache.keys.device)
        output.failed += encoded.failed
        output.out_of_memory |= encoded.out_of_memory
        output.encoder_outputs += [one for _, found in encoded.parts for one in found if one is not None]
        output.unwanted += unwanted
        return [running for running in encoded.requests if running not in unwanted]

    def _store(self, chunk: list[RunningRequest]) -> None:
        """Encode recordings and store their cross-attention keys and values in their cache pages."""
        model, stream = cast(GenerativeModel, self.model), self.stream
        requests = [running.request for running in chunk]
        # From the plan's lengths: the encoder's cu_tokens are on the device, which would have to be awaited.
        owned = [running.admission for running in chunk]
        positions = self.cache.cross_positions([(own.cross_pages, own.encode_tokens) for own in owned])
        with stream.encoding([tensor_of(request) for request in requests]) if stream else nullcontext():
            with phase("features", chunk):
                inputs = pack_inputs(requests, self.front_end, model.device, model.dtype)
            with phase("encode", chunk):
                encoded, _ = model.encode(*inputs)
                key_values = model.cross_key_values(encoded)
                if stream:
                    stream.write_pages()
                self.cache.store_cross(key_values, upload(positions, model.device))
            self._keep(chunk, encoded)

    def _keep(self, chunk: list[RunningRequest], encoded: Tensor) -> None:
        """Copy the encoder outputs of those requests that keep them."""
        if not any(running.request.keep_encoded for running in chunk):
            return
        parts = encoded.split([running.admission.encode_tokens for running in chunk])
        for running, part in zip(chunk, parts, strict=True):
            if running.request.keep_encoded:
                running.encoded = part.clone()
                if self.stream:
                    self.stream.lend(running.encoded)

    def _predict(self, chunk: list[RunningRequest]) -> EncoderOutputs:
        predictor = cast(EncoderOnlyModel, self.predictor)
        requests = [running.request for running in chunk]
        with phase("features", chunk):
            inputs = pack_inputs(requests, self.front_end, predictor.device, predictor.dtype)
        with phase("encode", chunk):
            return EncoderOutputs(chunk, predictor.predict(*inputs))

    def _chunks(self, arrivals: list[RunningRequest]) -> list[list[RunningRequest]]:
        if self.cache.keys.device.type != "cpu":
            return [arrivals]
        tokens, cores = [running.admission.encode_tokens for running in arrivals], 1
        if self.pool is not None:
            cores = self.pool.size
        rounds = -(-sum(tokens) // (self.max_chunk_tokens * cores))
        return balanced(arrivals, tokens, max(rounds, 1) * cores)
