"""Configuration of SEW, and the base configuration that it shares with SEW-D."""

from ..core.field_types import Size, Small
from ..core.fields import field
from ..wav2vec2.config import SpeechEncoderConfig


class SqueezedConfig(SpeechEncoderConfig):
    """Base configuration of SEW and SEW-D, whose transformer pools several frames to one token."""

    squeeze_factor: Small = 2  # frames per token
    conv_dim: list[Size] = field((64, 128, 128, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512))
    conv_stride: list[Small] = field((5, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1))
    conv_kernel: list[Small] = field((10, 3, 1, 3, 1, 3, 1, 3, 1, 2, 1, 2, 1))
    ctc_loss_reduction = "mean"


class SEWConfig(SqueezedConfig):
    """Configuration of a SEW model; the defaults are those of transformers."""

    model_type = "sew"
