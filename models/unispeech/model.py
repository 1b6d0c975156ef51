"""UniSpeech (arXiv 2101.07597): wav2vec 2.0's architecture, pretrained on labeled and unlabeled speech."""

from ..wav2vec2.audio_classification import AudioClassifier
from ..wav2vec2.ctc import CTCModel
from ..wav2vec2.model import Wav2Vec2Encoder
from .config import UniSpeechConfig


class UniSpeechModel(Wav2Vec2Encoder):
    """UniSpeech without a head: convolutional feature encoder and transformer."""

    config_class = UniSpeechConfig
    base_prefix = "unispeech."

    def __init__(self, config: UniSpeechConfig) -> None:
        super().__init__(config)
        self.initialize()


class UniSpeechForCTC(CTCModel):
    """UniSpeech with a CTC head, for transcription."""

    base_class = UniSpeechModel


class UniSpeechForSequenceClassification(AudioClassifier):
    """UniSpeech with mean pooling and a classification head."""

    base_class = UniSpeechModel
