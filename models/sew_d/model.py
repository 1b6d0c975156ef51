"""SEW-D (arXiv 2109.06870): SEW whose attention sees contents and relative positions apart."""

from typing import ClassVar

from torch import Tensor, nn

from ..core.config import PretrainedConfig
from ..sew.model import Squeeze, SqueezedEncoder
from ..wav2vec2.audio_classification import AudioClassifier
from ..wav2vec2.ctc import CTCModel
from .config import SEWDConfig
from .layers import SEWDTransformer

__all__ = ["SEWDConfig", "SEWDModel"]


class SEWDEncoder(Squeeze):
    """DeBERTa v2's layers on squeezed frames."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__(config)
        self.encoder = SEWDTransformer(config)

    def transform(
        self, hidden: Tensor, cu_tokens: Tensor, states: list[Tensor] | None, record: bool
    ) -> tuple[Tensor, list[list[Tensor]] | None]:
        """Output of the layers [tokens, hidden_size], and their attention weights."""
        hidden, weights = self.encoder(hidden, cu_tokens, states, record)
        return hidden, weights


class SEWDModel(SqueezedEncoder):
    """Convolutions on the waveform and a transformer with disentangled attention on squeezed frames."""

    config_class: ClassVar[type[PretrainedConfig]] = SEWDConfig
    base_prefix: ClassVar[str] = "sew_d."
    encoder_class = SEWDEncoder
    frame_eps: ClassVar[str] = "feature_layer_norm_eps"

    def initialize(self) -> None:
        """Fresh weights as transformers draws them; the table of relative positions last."""
        super().initialize()
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.initializer_range)


class SEWDForCTC(CTCModel):
    """SEW-D with a CTC head."""

    base_class = SEWDModel


class SEWDForSequenceClassification(AudioClassifier):
    """SEW-D with a classification head."""

    base_class = SEWDModel
