"""Inputs of wav2vec 2.0 and its relatives from waveforms."""

from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ...kernels.norm.waveform_norm import waveform_norm
from ..processors.feature_extractor import FeatureExtractor


class Wav2Vec2FeatureExtractor(FeatureExtractor):
    """Mono recordings, each normalized to mean 0 and variance 1 over its own samples.

    Every padded batch has a mask, unless the call refuses it, so that a model can tell the padding: also for
    models whose convolutions were trained without one (feat_extract_norm "group"), where transformers leaves
    it out and padding changes a recording's result.

    Args:
        feature_size: 1, the sample.
        sampling_rate: Hz.
        padding_value: of padded samples.
        do_normalize: normalize at all.
        return_attention_mask: return a mask even without padding.
        **kwargs: further settings of transformers' files: padding_side "right", the only value supported, and
            names without effect.

    Raises:
        ValueError: a value that is not supported.
        TypeError: a setting that does not exist.
    """

    model_input_names = ("input_values", "attention_mask")
    fixed: ClassVar[dict[str, Any]] = {
        "padding_side": "right",
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    }
    unit = "samples"

    feature_size: int = 1
    sampling_rate: int = 16_000
    padding_value: float = 0.0
    return_attention_mask: bool = False
    do_normalize: bool = True

    def _complete(self) -> None:
        if self.feature_size != 1:
            raise ValueError(
                f"feature_size {self.feature_size!r} is not supported, only 1 is: a sample is a number"
            )
        if not isinstance(self.sampling_rate, int) or self.sampling_rate < 1:
            raise ValueError(f"sampling_rate must be a whole number of Hz, got {self.sampling_rate!r}")

    def frame_count(self, samples: int) -> int:
        """Rows of `extract_packed` for so many samples: one each."""
        return samples

    def extract_packed(self, waveforms: Tensor, cu_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of the models from packed waveforms, on their device, without padding.

        Args:
            waveforms: float32 [samples], -1 to 1, utterances end to end at the extractor's rate.
            cu_samples: int32 [n + 1].

        Returns:
            (values float32 [samples, 1], `cu_samples`).
        """
        if not waveforms.is_floating_point():
            raise ValueError(f"waveforms must be floats from -1 to 1, got {waveforms.dtype}")
        values = waveform_norm(waveforms, cu_samples) if self.do_normalize else waveforms
        return values[:, None], cu_samples

    def _masks(self, padding: bool | str) -> bool:
        return self.return_attention_mask or padding not in (False, "do_not_pad")

    def _squeeze(self, features: np.ndarray) -> np.ndarray:
        return features[:, 0]

    def _samples(self, length: int) -> int:
        return length

    def _shortest(self) -> tuple[int, str]:
        # Models check what their convolutions need; this catches [samples, channels] given as a batch.
        shortest = max(1, self.sampling_rate // 1_000)
        return shortest, f"{shortest} (1 ms)"
