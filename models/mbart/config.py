"""Configuration of MBart."""

from ..bart.config import BartLikeConfig


class MBartConfig(BartLikeConfig):
    """Configuration of an MBart model; no default start token, since outputs start with a language token."""

    model_type = "mbart"
