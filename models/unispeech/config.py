"""UniSpeech's configuration."""

from ..wav2vec2.config import ContrastiveConfig


class UniSpeechConfig(ContrastiveConfig):
    """Sizes and constants of a UniSpeech model; the defaults are microsoft/unispeech-large-1500h-cv's."""

    model_type = "unispeech"

    ctc_loss_reduction = "mean"
    num_ctc_classes: int = 80  # of pretraining, as is replace_prob
    replace_prob: float = 0.5
