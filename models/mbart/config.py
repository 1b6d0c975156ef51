"""MBart's configuration."""

from ..bart.config import BartLikeConfig


class MBartConfig(BartLikeConfig):
    """Sizes and constants of an MBart model; no default start token: outputs start with their language."""

    model_type = "mbart"
