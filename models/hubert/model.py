"""HuBERT (arXiv 2106.07447): wav2vec 2.0's architecture with two more normalization options."""

from ..core.outputs import BaseModelOutput
from ..wav2vec2.audio_classification import AudioClassifier
from ..wav2vec2.ctc import CTCModel
from ..wav2vec2.model import Wav2Vec2Encoder
from .config import HubertConfig


class HubertModel(Wav2Vec2Encoder):
    """HuBERT without a head: convolutional feature encoder and transformer."""

    config_class = HubertConfig
    base_prefix = "hubert."
    output_class = BaseModelOutput

    def __init__(self, config: HubertConfig) -> None:
        super().__init__(
            config, normalized=config.feat_proj_layer_norm, batch_norm=config.conv_pos_batch_norm
        )
        self.initialize()


class HubertForCTC(CTCModel):
    """HuBERT with a CTC head, for transcription."""

    base_class = HubertModel


class HubertForSequenceClassification(AudioClassifier):
    """HuBERT with mean pooling and a classification head."""

    base_class = HubertModel
