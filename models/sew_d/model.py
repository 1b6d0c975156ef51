"""SEW-D (arXiv 2109.06870): SEW with disentangled attention to contents and relative positions."""

from torch import Tensor, nn

from ..sew.model import Squeeze, SqueezedEncoder
from ..wav2vec2.audio_classification import AudioClassifier
from ..wav2vec2.ctc import CTCModel
from .config import SEWDConfig
from .layers import SEWDTransformer

__all__ = ["SEWDConfig", "SEWDModel"]


class SEWDEncoder(Squeeze):
    """SEW-D's encoder: DeBERTa v2's transformer layers on pooled frames."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__(config)
        self.encoder = SEWDTransformer(config)

    def transform(
        self, hidden: Tensor, cu_tokens: Tensor, states: list[Tensor] | None, record: bool
    ) -> tuple[Tensor, list[list[Tensor]] | None]:
        hidden, weights = self.encoder(hidden, cu_tokens, states, record)
        return hidden, weights


class SEWDModel(SqueezedEncoder):
    """SEW-D without a head: convolutional feature encoder and a disentangled transformer on pooled frames."""

    config_class = SEWDConfig
    base_prefix = "sew_d."
    encoder_class = SEWDEncoder
    frame_eps = "feature_layer_norm_eps"

    def initialize(self) -> None:
        """Initialize weights randomly, distributed as in transformers; the relative-position table last."""
        super().initialize()
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.initializer_range)


class SEWDForCTC(CTCModel):
    """SEW-D with a CTC head, for transcription."""

    base_class = SEWDModel


class SEWDForSequenceClassification(AudioClassifier):
    """SEW-D with mean pooling and a classification head."""

    base_class = SEWDModel
