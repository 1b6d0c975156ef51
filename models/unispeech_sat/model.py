"""UniSpeech-SAT (arXiv 2110.05752): wav2vec 2.0's architecture, pretrained to discriminate speakers too."""

import torch
from torch import nn

from ..wav2vec2.audio_classification import AudioClassifier
from ..wav2vec2.ctc import CTCModel
from ..wav2vec2.model import Wav2Vec2Encoder
from .config import UniSpeechSatConfig


class UniSpeechSatModel(Wav2Vec2Encoder):
    """UniSpeech-SAT without a head: convolutional feature encoder and transformer."""

    config_class = UniSpeechSatConfig
    base_prefix = "unispeech_sat."

    def __init__(self, config: UniSpeechSatConfig) -> None:
        super().__init__(config)
        if self.masked_spec_embed is None:  # this family has the vector even if nothing is masked
            self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size).uniform_())
        self.initialize()


class UniSpeechSatForCTC(CTCModel):
    """UniSpeech-SAT with a CTC head, for transcription."""

    base_class = UniSpeechSatModel


class UniSpeechSatForSequenceClassification(AudioClassifier):
    """UniSpeech-SAT with mean pooling and a classification head."""

    base_class = UniSpeechSatModel
