"""Encoding beside decoding: recordings that arrive are encoded on a stream of their own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Overlap:
    """Lets a GPU encode while it carries out the decode steps launched before and the one after.

    What is encoded beside a step takes part in the next. Off a GPU there is one stream, and only that delay.

    Args:
        device: whose current stream decodes.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        self._launched: torch.cuda.Event | None = None  # the decode steps before an encoding
        self._encoded: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(
                torch.cuda.current_stream(device)
            )  # the weights may still be on their way

    @contextmanager
    def encoding(self, inputs: Sequence[Tensor]) -> Iterator[None]:
        """What is launched inside runs beside decode steps; all that it allocates must stay inside.

        Args:
            inputs: that are read inside and were made outside.
        """
        if self._stream is None:
            yield
            return
        self._launched = torch.cuda.current_stream(self._stream.device).record_event()
        there = [given for given in inputs if given.is_cuda]
        if there:
            self._stream.wait_event(self._launched)
        for given in there:
            given.record_stream(self._stream)  # whoever drops it next, its memory waits for the encoder
        first = self._encoded is None
        with torch.cuda.stream(self._stream):
            yield
            self._encoded = self._stream.record_event()
        if first:  # made what operations keep of their weights, which the other stream may read too
            self._stream.synchronize()

    def write_pages(self) -> None:
        """Inside `encoding`, before the cache is written: earlier steps may still read pages that had other
        owners then."""
        if self._stream is not None and self._launched is not None:
            self._stream.wait_event(self._launched)

    def join(self) -> None:
        """Decode steps launched from now on wait until all that has been launched here is encoded."""
        if self._stream is not None and self._encoded is not None:
            torch.cuda.current_stream(self._stream.device).wait_event(self._encoded)
