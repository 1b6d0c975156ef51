"""HuBERT (arXiv 2106.07447): wav2vec 2.0's architecture, with two options of its own."""

from typing import ClassVar

from ..core.config import PretrainedConfig
from ..core.outputs import BaseModelOutput, ModelOutput
from ..wav2vec2.audio_classification import AudioClassifier
from ..wav2vec2.ctc import CTCModel
from ..wav2vec2.model import Wav2Vec2Encoder
from .config import HubertConfig


class HubertModel(Wav2Vec2Encoder):
    """Convolutions on the waveform and a transformer."""

    config_class: ClassVar[type[PretrainedConfig]] = HubertConfig
    base_prefix: ClassVar[str] = "hubert."
    output_class: ClassVar[type[ModelOutput]] = BaseModelOutput

    def __init__(self, config: HubertConfig) -> None:
        super().__init__(
            config, normalized=config.feat_proj_layer_norm, batch_norm=config.conv_pos_batch_norm
        )
        self.initialize()


class HubertForCTC(CTCModel):
    """HuBERT with a CTC head."""

    base_class = HubertModel


class HubertForSequenceClassification(AudioClassifier):
    """HuBERT with a classification head."""

    base_class = HubertModel
