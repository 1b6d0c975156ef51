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
    """DeBERTa v2's layers on the tokens."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__(config)
        self.encoder = SEWDTransformer(config)

    def forward(
        self, hidden: Tensor, cu_frames: Tensor, states: list[Tensor] | None, record: bool
    ) -> tuple[Tensor, Tensor, list[list[Tensor]] | None]:
        """See `wav2vec2_layers.Encoder`."""
        hidden, cu_tokens = self.squeezed(hidden, cu_frames)
        hidden, weights = self.encoder(hidden, cu_tokens, states, record)
        return self.unsqueezed(hidden, cu_tokens, cu_frames), cu_tokens, weights


class SEWDModel(SqueezedEncoder):
    """Convolutions on the waveform and a transformer with disentangled attention on squeezed frames."""

    config_class: ClassVar[type[PretrainedConfig]] = SEWDConfig
    base_prefix: ClassVar[str] = "sew_d."

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__(config, config.feature_layer_norm_eps)
        self.encoder = SEWDEncoder(config)
        self.initialize()

    def initialize(self) -> None:
        """See `WaveformEncoder`; the table of relative positions too."""
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
