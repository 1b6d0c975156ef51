"""UniSpeech-SAT (arXiv 2110.05752): wav2vec 2.0's architecture, trained to tell speakers apart as well."""

import torch
from torch import nn

from ..wav2vec2.audio_classification import AudioClassifier
from ..wav2vec2.ctc import CTCModel
from ..wav2vec2.model import Wav2Vec2Encoder
from .config import UniSpeechSatConfig


class UniSpeechSatModel(Wav2Vec2Encoder):
    """Convolutions on the waveform and a transformer."""

    config_class = UniSpeechSatConfig
    base_prefix = "unispeech_sat."

    def __init__(self, config: UniSpeechSatConfig) -> None:
        super().__init__(config)
        if self.masked_spec_embed is None:  # here the vector is there whether or not anything is masked
            self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size).uniform_())
        self.initialize()


class UniSpeechSatForCTC(CTCModel):
    """UniSpeech-SAT with a CTC head."""

    base_class = UniSpeechSatModel


class UniSpeechSatForSequenceClassification(AudioClassifier):
    """UniSpeech-SAT with a classification head."""

    base_class = UniSpeechSatModel
