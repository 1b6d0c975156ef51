"""MBart's decoder (arXiv 2001.08210): BART's with norms before the parts of a layer and behind the last."""

from typing import ClassVar

from ..bart.model import BartDecoder
from ..core.config import PretrainedConfig
from ..core.fairseq_decoder import FairseqCausalLM
from .config import MBartConfig


class MBartForCausalLM(FairseqCausalLM):
    """MBart's decoder with its map to the vocabulary; checkpoints of the whole model load too.

    Args:
        config: sizes and constants; weights are fresh.
    """

    config_class: ClassVar[type[PretrainedConfig]] = MBartConfig

    def __init__(self, config: MBartConfig) -> None:
        super().__init__(config, BartDecoder(config, norm_first=True))
