"""Feature extractor of Whisper: log-mel features of 30 s of audio."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.features.log_mel import FRAME, Excerpt, LogMelOptions, log_mel
from ...kernels.norm.waveform_norm import waveform_norm
from ...kernels.runtime.packing import cumulative, spans
from ..core.batches import BatchFeature, one_of, padded_length, round_up, stack
from ..core.field_types import Range, Size
from ..processors.feature_extractor import FeatureExtractor, separate

_MAX_MEL_BINS = 1024  # far above any model's; bounds the size of features


class WhisperFeatureExtractor(FeatureExtractor):
    """Feature extractor that computes Whisper's log-mel features of mono recordings.

    Short recordings are padded with silence to `chunk_length` seconds. Frames that see no sample are not
    computed; they have the value of silence.

    Args:
        feature_size: number of mel bins, the features per frame.
        sampling_rate: sampling rate in Hz, at least 16,000.
        hop_length: samples from one frame to the next.
        chunk_length: duration of the model's input in seconds.
        n_fft: samples of a frame; must be 400.
        padding_value: value of padded samples; must be 0.
        dither: standard deviation of noise that a call adds to the samples, drawn from torch's generator.
        return_attention_mask: return a mask of the frames by default.
        **kwargs: further settings of transformers' files: padding_side "right", the only value supported, and
            names without effect.

    Raises:
        ValueError: the value of a setting is not supported.
        TypeError: a setting does not exist.
    """

    model_input_names = ("input_features", "attention_mask")
    fixed: ClassVar[dict[str, Any]] = {
        "padding_side": "right",
        "feature_extractor_type": "WhisperFeatureExtractor",
    }
    derived = frozenset({"n_samples", "nb_max_frames", "mel_filters"})
    unit = "samples"

    feature_size: Annotated[int, Range(1, _MAX_MEL_BINS)] = 80
    sampling_rate: Annotated[int, Range(16_000, 768_000)] = 16_000
    hop_length: Annotated[int, Range(1, 16_000)] = 160
    chunk_length: Annotated[int, Range(1, 3_600)] = 30
    n_fft: Size = FRAME
    padding_value: float = 0.0
    dither: Annotated[float, Range(0, 1)] = 0.0
    return_attention_mask: bool = False

    def _complete(self) -> None:
        if self.n_fft != FRAME:
            raise ValueError(
                f"n_fft {self.n_fft} is not supported, only {FRAME} is, which all of Whisper has"
            )
        if self.padding_value != 0:
            raise ValueError(f"padding_value {self.padding_value} is not supported, only 0, silence, is")
        self.options = LogMelOptions(self.feature_size, self.sampling_rate, self.hop_length)

    @property
    def n_samples(self) -> int:
        """Samples of the model's input."""
        return self.chunk_length * self.sampling_rate

    @property
    def nb_max_frames(self) -> int:
        """Frames of the model's input."""
        return self.n_samples // self.hop_length

    def frame_count(self, samples: int) -> int:
        """Number of frames of a recording: `nb_max_frames`, more where it is longer than `chunk_length`."""
        if samples < 1:
            return 0
        return self.nb_max_frames if samples <= self.n_samples else -(-samples // self.hop_length)

    def extract_packed(
        self, waveforms: Tensor, cu_samples: Tensor, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-mel features of packed recordings of up to `chunk_length` seconds, on their device.

        Args:
            waveforms: float32 [samples], -1 to 1, concatenated recordings at the extractor's sampling rate.
            cu_samples: int32 [n + 1], cu_seqlens of the recordings.
            dtype: dtype of the features; float32 by default.

        Returns:
            (features [nb_max_frames * n, bins], cu_frames int32 [n + 1])
        """
        return self.extract_excerpts(waveforms, cu_samples, [None] * (len(cu_samples) - 1), dtype)

    def extract_excerpts(
        self,
        waveforms: Tensor,
        cu_samples: Tensor,
        excerpts: Sequence[Excerpt | None],
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Log-mel features of packed parts of recordings, as `AudioExcerpt` brings them to a front end.

        Args:
            waveforms, cu_samples, dtype: as for `extract_packed`.
            excerpts: frames of each; None for a whole recording of up to `chunk_length` seconds.

        Returns:
            (features [rows, bins], cu_rows int32 [n + 1])

        Raises:
            ValueError: a longer recording, or an extractor with dither, whose results are random.
        """
        if not waveforms.is_floating_point():
            raise ValueError(f"waveforms must be floats from -1 to 1, got {waveforms.dtype}")
        if self.dither:
            raise ValueError(f"dither {self.dither} would make results random; set it to 0 for an engine")
        found = []
        for (start, end), excerpt in zip(spans(cu_samples), excerpts, strict=True):
            if excerpt is None and end - start > self.n_samples:
                raise ValueError(
                    f"a recording of {end - start} samples is longer than {self.chunk_length} s; cut it to "
                    "windows (WindowReader)"
                )
            found.append(self.excerpt(end - start, self.n_samples) if excerpt is None else excerpt)
        features, cu_rows = log_mel(waveforms, cu_samples, found, self.options)
        return (features if dtype is None else features.to(dtype)), cu_rows

    def excerpt(self, samples: int, length: int) -> Excerpt:
        """Frames of a recording of `samples` samples that is padded with zeros to `length`."""
        rows = length // self.hop_length
        return Excerpt(min(-(-(samples + FRAME // 2) // self.hop_length), rows), rows, length=length)

    def __call__(  # type: ignore[override]  # the order of arguments is transformers'
        self,
        raw_speech: Any,
        truncation: bool = True,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool | None = None,
        padding: bool | str = "max_length",
        max_length: int | None = None,
        sampling_rate: int | None = None,
        do_normalize: bool | None = None,
        device: str | torch.device = "cpu",
    ) -> BatchFeature:
        """Extract the features of one or more recordings, padded with silence to a batch.

        Args:
            raw_speech: mono audio from -1 to 1: an array, tensor or list of numbers [samples], a batch of
                them [batch, samples], or a list of recordings.
            truncation: cut to `max_length` (rounded up to a multiple of `pad_to_multiple_of`).
            pad_to_multiple_of: round the padded number of samples up to a multiple of this.
            return_tensors: "pt", "np", or None for lists of arrays.
            return_attention_mask: True for a mask of the frames, False for none; None for the setting.
            padding: "max_length", True or "longest", or False.
            max_length: maximum length in samples; None for `chunk_length` seconds.
            sampling_rate: sampling rate of `raw_speech` in Hz; must equal the extractor's.
            do_normalize: normalize each recording to mean 0 and variance 1 first.
            device: device that computes; features come back on the CPU.

        Returns:
            input_features float32 [batch, mel bins, frames], and attention_mask int32 [batch, frames], 1 for
            a frame whose center lies in the recording.

        Raises:
            ValueError: another sampling rate; audio that is not mono, empty, too short, of integers, NaN or
                infinite; a bad option; or tensors of different lengths.
        """
        self._check_rate(sampling_rate)
        one_of("return_tensors", return_tensors, ("pt", "np", None))
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1 sample, got {max_length}")
        most = round_up(max_length or self.n_samples, pad_to_multiple_of)
        waveforms = [self._mono(waveform, i) for i, waveform in enumerate(separate(raw_speech))]
        if truncation:
            waveforms = [waveform[:most] for waveform in waveforms]
        samples = [len(waveform) for waveform in waveforms]
        padded = padded_length(samples, padding, most, pad_to_multiple_of)
        lengths = [max(count, padded) for count in samples]
        rows = sorted({length // self.hop_length for length in lengths})
        if return_tensors is not None and len(rows) > 1:
            raise ValueError(f"recordings of {rows} frames make no tensor; set padding='longest'")

        with torch.no_grad():
            features = self._features(waveforms, lengths, bool(do_normalize), torch.device(device))
        batch = BatchFeature({"input_features": features})
        if self.return_attention_mask if return_attention_mask is None else return_attention_mask:
            centers = [np.arange(length // self.hop_length) * self.hop_length for length in lengths]
            pairs = zip(centers, samples, strict=True)
            batch["attention_mask"] = [(center < count).astype(np.int32) for center, count in pairs]
        for name, arrays in batch.items():
            batch[name] = arrays if return_tensors is None else stack(arrays, return_tensors)
        return batch

    def _features(
        self, waveforms: list[np.ndarray], lengths: list[int], normalize: bool, device: torch.device
    ) -> list[np.ndarray]:
        """Features [bins, frames] of waveforms, padded with zeros to `lengths`."""
        samples = [len(waveform) for waveform in waveforms]
        packed = torch.from_numpy(np.concatenate(waveforms)).to(device)
        if normalize:
            packed = waveform_norm(packed, cumulative(samples, device))
        if self.dither:  # of the padding too, as in transformers
            pieces = zip(packed.split(samples), lengths, strict=True)
            silence = [F.pad(waveform, (0, length - len(waveform))) for waveform, length in pieces]
            packed, samples = torch.cat(silence), lengths
            packed += self.dither * torch.randn_like(packed)
        excerpts = [self.excerpt(*pair) for pair in zip(samples, lengths, strict=True)]
        features, cu_rows = log_mel(packed, cumulative(samples, device), excerpts, self.options)
        rows = np.split(features.cpu().numpy(), cu_rows[1:-1].tolist())
        return [np.ascontiguousarray(own.T) for own in rows]

    def _samples(self, length: int) -> int:
        return length

    def _shortest(self) -> tuple[int, str]:
        return 1, "1"
