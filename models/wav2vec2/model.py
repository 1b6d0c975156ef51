"""wav2vec 2.0 encoder (arXiv 2006.11477): waveforms to hidden states."""

from typing import ClassVar

from torch import Tensor, nn

from ..core.outputs import ModelOutput
from .config import SpeechEncoderConfig, Wav2Vec2Config
from .encoder import Wav2Vec2BaseModelOutput, WaveformEncoder
from .layers import Adapter, Encoder, FeatureProjection

__all__ = ["Wav2Vec2Config", "Wav2Vec2Model"]


class Wav2Vec2Encoder(WaveformEncoder):
    """Base class of wav2vec 2.0 and of related models with the same parameter names.

    Args:
        config: configuration of the family.
        normalized: apply layer normalization to frames before they are projected.
        batch_norm: use batch normalization in the positional embedding, see `PositionalConvolution`.
    """

    output_class: ClassVar[type[ModelOutput]] = Wav2Vec2BaseModelOutput

    def __init__(
        self, config: SpeechEncoderConfig, *, normalized: bool = True, batch_norm: bool = False
    ) -> None:
        super().__init__(config)
        self.feature_projection = FeatureProjection(config, normalized)
        self.encoder = Encoder(config, config.do_stable_layer_norm, batch_norm)

    def project(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        hidden, normalized = self.feature_projection(frames)
        return hidden, normalized

    def initialize(self) -> None:
        """Initialize weights randomly as transformers does, the feature projection with torch's default."""
        super().initialize()
        projection = self.feature_projection.projection
        bound = projection.in_features**-0.5
        nn.init.uniform_(projection.weight, -bound, bound)
        nn.init.uniform_(projection.bias, -bound, bound)


class Wav2Vec2Model(Wav2Vec2Encoder):
    """wav2vec 2.0 without a head: convolutional feature encoder, transformer and an optional adapter."""

    config_class = Wav2Vec2Config
    base_prefix = "wav2vec2."
    # An adapter may be added to a pretrained encoder that has none, for a decoder on top of it.
    fresh_keys = (r"^adapter\.",)

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__(config)
        self.adapter = Adapter(config) if config.add_adapter else None
        self.initialize()
