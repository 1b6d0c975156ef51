"""Configuration of SEW, and the base configuration that it shares with SEW-D."""

from ..core.fields import at_least, field
from ..wav2vec2.config import SpeechEncoderConfig


class SqueezedConfig(SpeechEncoderConfig):
    """Base configuration of SEW and SEW-D, whose transformer pools several frames to one token."""

    squeeze_factor: int = field(2, check=at_least(1))  # frames per token
    conv_dim: list[int] = field((64, 128, 128, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512))
    conv_stride: list[int] = field((5, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1))
    conv_kernel: list[int] = field((10, 3, 1, 3, 1, 3, 1, 3, 1, 2, 1, 2, 1))
    ctc_loss_reduction = "mean"


class SEWConfig(SqueezedConfig):
    """Configuration of a SEW model; the defaults are those of transformers."""

    model_type = "sew"
