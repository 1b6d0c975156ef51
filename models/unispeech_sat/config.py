"""Configuration of UniSpeech-SAT models (arXiv 2110.05752)."""

from ..core.field_types import Count, Size, Small
from ..core.fields import field
from ..wav2vec2.config import ContrastiveConfig


class UniSpeechSatConfig(ContrastiveConfig):
    """Configuration of a UniSpeech-SAT model; the defaults are those of microsoft/unispeech-sat-base."""

    model_type = "unispeech-sat"

    ctc_loss_reduction = "mean"
    # tdnn_* and xvector_output_dim configure transformers' speaker-embedding (x-vector) head.
    tdnn_dim: list[Size] = field((512, 512, 512, 512, 1500))
    tdnn_kernel: list[Small] = field((5, 3, 3, 1, 1))
    tdnn_dilation: list[Small] = field((1, 2, 3, 1, 1))
    xvector_output_dim: Size = 512
    num_clusters: Count = 504  # used in pretraining only
