"""Input features of Speech2Text from waveforms."""

from typing import Any, ClassVar

from torch import Tensor

from ...kernels.features.fbank import FbankOptions, fbank, frame_count, frame_sizes
from ...kernels.norm.utterance_cmvn import utterance_cmvn
from ..processors.feature_extractor import FeatureExtractor

_KALDI_SCALE = 2.0**15  # Kaldi's filter bank was made for 16-bit integers


class Speech2TextFeatureExtractor(FeatureExtractor):
    """Log-mel features of mono recordings, normalized over each utterance.

    Args:
        feature_size: for transformers' files; without effect, `num_mel_bins` counts.
        sampling_rate: Hz, 8,000 to 48,000.
        num_mel_bins: features of a frame.
        padding_value: of padded frames.
        do_ceptral_normalize: normalize at all (transformers' spelling).
        normalize_means: to mean 0 over the utterance.
        normalize_vars: to standard deviation 1 over the utterance.
        **kwargs: further settings of transformers' files: padding_side "right" and dither 0, the only values
            supported, and names without effect.

    Raises:
        ValueError: a value that is not supported.
        TypeError: a setting that does not exist.
    """

    model_input_names = ("input_features", "attention_mask")
    fixed: ClassVar[dict[str, Any]] = {
        "dither": 0.0,
        "padding_side": "right",
        "feature_extractor_type": "Speech2TextFeatureExtractor",
    }
    unit = "frames"

    feature_size: int = 80
    sampling_rate: int = 16_000
    num_mel_bins: int = 80
    padding_value: float = 0.0
    do_ceptral_normalize: bool = True
    normalize_means: bool = True
    normalize_vars: bool = True

    def _complete(self) -> None:
        frame_sizes(self.sampling_rate)  # refuses other rates
        if self.num_mel_bins < 1:
            raise ValueError(f"num_mel_bins must be at least 1, got {self.num_mel_bins}")
        self.return_attention_mask = True

    def frame_count(self, samples: int) -> int:
        """Frames of a recording of so many samples; 0 where it is shorter than one frame."""
        return frame_count(samples, self.sampling_rate)

    def extract_packed(self, waveforms: Tensor, cu_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Features of packed waveforms, on their device, without padding.

        Args:
            waveforms: float32 [samples], -1 to 1, utterances end to end at the extractor's rate.
            cu_samples: int32 [n + 1].

        Returns:
            (features float32 [frames, bins], cu_frames int32 [n + 1]); no frame of an utterance under 25 ms.
        """
        if not waveforms.is_floating_point():
            raise ValueError(f"waveforms must be floats from -1 to 1, got {waveforms.dtype}")
        scaled, rate = waveforms * _KALDI_SCALE, self.sampling_rate
        features, cu_frames = fbank(scaled, cu_samples, FbankOptions(rate, self.num_mel_bins))
        if self.do_ceptral_normalize:
            features = utterance_cmvn(
                features, cu_frames, normalize_means=self.normalize_means, normalize_vars=self.normalize_vars
            )
        return features, cu_frames

    def _samples(self, length: int) -> int:
        window, shift = frame_sizes(self.sampling_rate)
        return window + (length - 1) * shift

    def _shortest(self) -> tuple[int, str]:
        window = frame_sizes(self.sampling_rate)[0]
        return window, f"a frame of {window} (25 ms)"
