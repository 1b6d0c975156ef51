"""MBart's configuration."""

from typing import ClassVar

from ..bart.config import BartLikeConfig


class MBartConfig(BartLikeConfig):
    """MBart's; see `BartLikeConfig`. Its outputs start with their language, so nothing else is there to."""

    model_type: ClassVar[str] = "mbart"
