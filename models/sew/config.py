"""SEW's configuration."""

from collections.abc import Sequence
from typing import Any, ClassVar

from ..wav2vec2.config import SpeechEncoderConfig


class SqueezedConfig(SpeechEncoderConfig):
    """What SEW and SEW-D share: the sizes of their convolutions, and how many frames a token is made of.

    Args:
        squeeze_factor: frames of a token.
        **kwargs: see `SpeechEncoderConfig`.

    Raises:
        ValueError: see `SpeechEncoderConfig`; or a factor below 1.
    """

    def __init__(
        self,
        *,
        squeeze_factor: int = 2,
        conv_dim: Sequence[int] = (64, 128, 128, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512),
        conv_stride: Sequence[int] = (5, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1),
        conv_kernel: Sequence[int] = (10, 3, 1, 3, 1, 3, 1, 3, 1, 2, 1, 2, 1),
        ctc_loss_reduction: str = "mean",
        **kwargs: Any,
    ) -> None:
        self.squeeze_factor = squeeze_factor
        super().__init__(
            conv_dim=list(conv_dim),
            conv_stride=list(conv_stride),
            conv_kernel=list(conv_kernel),
            ctc_loss_reduction=ctc_loss_reduction,
            **kwargs,
        )

    def _check(self) -> None:
        super()._check()
        if self.squeeze_factor < 1:
            raise ValueError(f"squeeze_factor must be at least 1, got {self.squeeze_factor}")


class SEWConfig(SqueezedConfig):
    """Sizes and constants of a SEW model; the defaults are transformers'. See `SqueezedConfig`."""

    model_type: ClassVar[str] = "sew"
