"""CUDA stream for encoding new requests while running ones are decoded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class EncodeStream:
    """CUDA stream on which a GPU encodes during the decode steps launched before and the one after.

    A request encoded during a step is decoded from the next on. Without a GPU only that delay remains.

    Args:
        device: device of the model; its current stream runs the decode steps.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        self._decoding: torch.cuda.Stream | None = None  # of the decode steps
        self._launched: torch.cuda.Event | None = None  # the decode steps before an encoding
        self._encoded: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            # The copies of the weights may still be in progress.
            self._stream.wait_stream(torch.cuda.current_stream(device))

    @contextmanager
    def encoding(self, inputs: Sequence[Tensor]) -> Iterator[None]:
        """Launch kernels of this context on the encode stream; tensors allocated in it leave it by `lend`.

        Args:
            inputs: tensors that are read in the context and were made outside.
        """
        if self._stream is None:
            yield
            return
        self._decoding = torch.cuda.current_stream(self._stream.device)
        self._launched = self._decoding.record_event()
        on_device = [tensor for tensor in inputs if tensor.is_cuda]
        if on_device:
            self._stream.wait_event(self._launched)
        for tensor in on_device:
            tensor.record_stream(self._stream)  # its memory is not used again before the encoder is done
        first = self._encoded is None
        with torch.cuda.stream(self._stream):
            yield
            self._encoded = self._stream.record_event()
        if first:  # it filled the weight cache, which the other stream may read too
            self._stream.synchronize()

    def write_pages(self) -> None:
        """Make the encode stream wait for earlier decode steps before it writes to the cache.

        They may still read pages that had other owners then. Call it inside `encoding`.
        """
        if self._stream is not None and self._launched is not None:
            self._stream.wait_event(self._launched)

    def lend(self, tensor: Tensor) -> None:
        """Let decode steps' stream read a tensor that was allocated inside `encoding`, after `join`."""
        if self._decoding is not None:
            tensor.record_stream(self._decoding)  # its memory is not used again before that has read it

    def join(self) -> None:
        """Make later decode steps wait for all encoding launched so far."""
        if self._stream is not None and self._encoded is not None:
            torch.cuda.current_stream(self._stream.device).wait_event(self._encoded)
