"""wav2vec 2.0 (arXiv 2006.11477): waveforms in, hidden states out."""

from typing import ClassVar

from torch import Tensor, nn

from ..core.config import PretrainedConfig
from ..core.outputs import ModelOutput
from .config import SpeechEncoderConfig, Wav2Vec2Config
from .encoder import Wav2Vec2BaseModelOutput, WaveformEncoder
from .layers import Adapter, Encoder, FeatureProjection

__all__ = ["Wav2Vec2Config", "Wav2Vec2Model"]


class Wav2Vec2Encoder(WaveformEncoder):
    """Base of wav2vec 2.0 and of the relatives that have its parameter names.

    Args:
        config: sizes and constants.
        normalized: normalize frames before they are projected.
        batch_norm: see `positions.PositionalConvolution`.
    """

    output_class: ClassVar[type[ModelOutput]] = Wav2Vec2BaseModelOutput

    def __init__(
        self, config: SpeechEncoderConfig, *, normalized: bool = True, batch_norm: bool = False
    ) -> None:
        super().__init__(config)
        self.feature_projection = FeatureProjection(config, normalized)
        self.encoder = Encoder(config, config.do_stable_layer_norm, batch_norm)

    def project(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [frames, conv_dim[-1]] to [frames, hidden_size], and the normalized frames."""
        hidden, normalized = self.feature_projection(frames)
        return hidden, normalized

    def initialize(self) -> None:
        """Fresh weights as transformers draws them; the projection as torch does."""
        super().initialize()
        projection = self.feature_projection.projection
        bound = projection.in_features**-0.5
        nn.init.uniform_(projection.weight, -bound, bound)
        nn.init.uniform_(projection.bias, -bound, bound)


class Wav2Vec2Model(Wav2Vec2Encoder):
    """Convolutions on the waveform, a transformer, and an adapter where the configuration says so."""

    config_class: ClassVar[type[PretrainedConfig]] = Wav2Vec2Config
    base_prefix: ClassVar[str] = "wav2vec2."
    # Adapters are added to an encoder that was trained without, for a decoder on top of it.
    fresh_keys: ClassVar[tuple[str, ...]] = (r"^adapter\.",)

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__(config)
        self.adapter = Adapter(config) if config.add_adapter else None
        self.initialize()
