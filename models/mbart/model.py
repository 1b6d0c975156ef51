"""MBart's decoder (arXiv 2001.08210): BART's, but normalizing what layers read, and their last output."""

from typing import ClassVar

from ..bart.model import BartDecoder
from ..core.config import PretrainedConfig
from ..core.fairseq_decoder import FairseqCausalLM
from .config import MBartConfig


class MBartForCausalLM(FairseqCausalLM):
    """MBart's decoder with its map to the vocabulary; its own checkpoints load, and those of all of MBart.

    Args:
        config: sizes and constants; weights are fresh.
    """

    config_class: ClassVar[type[PretrainedConfig]] = MBartConfig

    def __init__(self, config: MBartConfig) -> None:
        super().__init__(config, BartDecoder(config, norm_first=True))
