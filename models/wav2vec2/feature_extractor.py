"""Feature extractor of wav2vec 2.0 and related models: normalized waveforms."""

from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...kernels.norm.waveform_norm import waveform_norm
from ..core.field_types import Range, Size
from ..processors.feature_extractor import FeatureExtractor


class Wav2Vec2FeatureExtractor(FeatureExtractor):
    """Feature extractor that normalizes each mono recording to mean 0 and variance 1 over its own samples.

    Every padded batch has an attention mask, unless a call turns it off, so that a model can ignore the
    padding. That includes models whose convolutions were trained without a mask (feat_extract_norm "group"):
    transformers omits it there, and padding then changes a recording's result.

    Args:
        feature_size: must be 1, one value per sample.
        sampling_rate: sampling rate in Hz.
        padding_value: value of padded samples.
        do_normalize: normalize the recordings; False leaves them unchanged.
        return_attention_mask: return a mask even without padding.
        **kwargs: further settings of transformers' files: padding_side "right", the only value supported, and
            names without effect.

    Raises:
        ValueError: the value of a setting is not supported.
        TypeError: a setting does not exist.
    """

    model_input_names = ("input_values", "attention_mask")
    fixed: ClassVar[dict[str, Any]] = {
        "padding_side": "right",
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    }
    unit = "samples"

    feature_size: Size = 1
    sampling_rate: Annotated[int, Range(1_000, 768_000)] = 16_000  # Hz
    padding_value: float = 0.0
    return_attention_mask: bool = False
    do_normalize: bool = True

    def _complete(self) -> None:
        if self.feature_size != 1:
            raise ValueError(
                f"feature_size {self.feature_size!r} is not supported, only 1 is: a sample is a number"
            )

    def frame_count(self, samples: int) -> int:
        """Number of rows that `extract_packed` returns for a recording: one per sample."""
        return samples

    def extract_packed(
        self, waveforms: Tensor, cu_samples: Tensor, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """Normalize packed waveforms, on their device, to packed model inputs.

        Args:
            waveforms: float32 [samples], -1 to 1, concatenated utterances at the extractor's sampling rate.
            cu_samples: int32 [n + 1], cu_seqlens of the utterances.
            dtype: dtype of the values; float32 by default.

        Returns:
            (values [samples, 1], `cu_samples`).
        """
        if not waveforms.is_floating_point():
            raise ValueError(f"waveforms must be floats from -1 to 1, got {waveforms.dtype}")
        if self.do_normalize:
            values = waveform_norm(waveforms, cu_samples, dtype)
        else:
            values = waveforms if dtype is None else waveforms.to(dtype)
        return values[:, None], cu_samples

    def _masks(self, padding: bool | str) -> bool:
        return self.return_attention_mask or padding not in (False, "do_not_pad")

    def _squeeze(self, features: np.ndarray) -> np.ndarray:
        return features[:, 0]

    def _samples(self, length: int) -> int:
        return length

    def _shortest(self) -> tuple[int, str]:
        # Models check their convolutions' minimum; this one catches [samples, channels] given as a batch.
        shortest = max(1, self.sampling_rate // 1_000)
        return shortest, f"{shortest} (1 ms)"
