"""Feature extractor of Speech2Text: log-mel features of waveforms."""

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from ...kernels.features.fbank import FbankOptions, fbank, frame_count, frame_sizes
from ...kernels.norm.utterance_cmvn import utterance_cmvn
from ..core.field_types import Range, Size
from ..processors.feature_extractor import FeatureExtractor

MAX_MEL_BINS = 1024  # far above any model's; bounds the size of features
_KALDI_SCALE = 2.0**15  # Kaldi's filter bank expects the range of 16-bit integers


class Speech2TextFeatureExtractor(FeatureExtractor):
    """Feature extractor that computes log-mel features of mono recordings, normalized over each utterance.

    Args:
        feature_size: in transformers' files; without effect, as `num_mel_bins` replaces it.
        sampling_rate: sampling rate in Hz, 8,000 to 48,000.
        num_mel_bins: number of mel bins, the features per frame.
        padding_value: value of padded frames.
        do_ceptral_normalize: normalize the features (transformers' spelling).
        normalize_means: normalize to mean 0 over the utterance.
        normalize_vars: normalize to standard deviation 1 over the utterance.
        **kwargs: further settings of transformers' files: padding_side "right" and dither 0, the only values
            supported, and names without effect.

    Raises:
        ValueError: the value of a setting is not supported.
        TypeError: a setting does not exist.
    """

    model_input_names = ("input_features", "attention_mask")
    fixed: ClassVar[dict[str, Any]] = {
        "dither": 0.0,
        "padding_side": "right",
        "feature_extractor_type": "Speech2TextFeatureExtractor",
    }
    unit = "frames"

    feature_size: Size = 80
    sampling_rate: Size = 16_000
    num_mel_bins: Annotated[int, Range(1, MAX_MEL_BINS)] = 80
    padding_value: float = 0.0
    do_ceptral_normalize: bool = True
    normalize_means: bool = True
    normalize_vars: bool = True

    def _complete(self) -> None:
        frame_sizes(self.sampling_rate)  # raises for unsupported rates
        self.return_attention_mask = True

    def frame_count(self, samples: int) -> int:
        """Number of frames of a recording of `samples` samples; 0 where it is shorter than one frame."""
        return frame_count(samples, self.sampling_rate)

    def extract_packed(
        self, waveforms: Tensor, cu_samples: Tensor, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-mel features of packed waveforms, computed on their device and packed too.

        Args:
            waveforms: float32 [samples], -1 to 1, concatenated utterances at the extractor's sampling rate.
            cu_samples: int32 [n + 1], cu_seqlens of the utterances.
            dtype: dtype of the features; float32 by default.

        Returns:
            (features [frames, bins], cu_frames int32 [n + 1]); an utterance under 25 ms has no frame.
        """
        if not waveforms.is_floating_point():
            raise ValueError(f"waveforms must be floats from -1 to 1, got {waveforms.dtype}")
        options = FbankOptions(self.sampling_rate, self.num_mel_bins, gain=_KALDI_SCALE)
        features, cu_frames = fbank(waveforms, cu_samples, options)
        if not self.do_ceptral_normalize:
            return features if dtype is None else features.to(dtype), cu_frames
        normalized = utterance_cmvn(
            features,
            cu_frames,
            normalize_means=self.normalize_means,
            normalize_vars=self.normalize_vars,
            dtype=dtype,
        )
        return normalized, cu_frames

    def _samples(self, length: int) -> int:
        window, shift = frame_sizes(self.sampling_rate)
        return window + (length - 1) * shift

    def _shortest(self) -> tuple[int, str]:
        window = frame_sizes(self.sampling_rate)[0]
        return window, f"a frame of {window} (25 ms)"
