"""Configuration of UniSpeech models (arXiv 2101.07597)."""

from ..core.field_types import Count, Probability
from ..wav2vec2.config import ContrastiveConfig


class UniSpeechConfig(ContrastiveConfig):
    """Configuration of a UniSpeech model; the defaults are those of microsoft/unispeech-large-1500h-cv."""

    model_type = "unispeech"

    ctc_loss_reduction = "mean"
    num_ctc_classes: Count = 80  # used in pretraining only, as is replace_prob
    replace_prob: Probability = 0.5
