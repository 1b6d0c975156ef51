"""SEW's configuration, and the fields that SEW-D shares."""

from ..core.fields import at_least, field
from ..wav2vec2.config import SpeechEncoderConfig


class SqueezedConfig(SpeechEncoderConfig):
    """Sizes and constants of an encoder whose tokens are made of several frames."""

    squeeze_factor: int = field(2, check=at_least(1))  # frames of a token
    conv_dim: list[int] = field((64, 128, 128, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512))
    conv_stride: list[int] = field((5, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1))
    conv_kernel: list[int] = field((10, 3, 1, 3, 1, 3, 1, 3, 1, 2, 1, 2, 1))
    ctc_loss_reduction = "mean"


class SEWConfig(SqueezedConfig):
    """Sizes and constants of a SEW model; the defaults are transformers'."""

    model_type = "sew"
