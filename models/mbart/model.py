"""MBart's decoder (arXiv 2001.08210): BART's with norms before the parts of a layer and behind the last."""

from ..bart.model import BartDecoder
from ..core.fairseq_decoder import FairseqCausalLM
from .config import MBartConfig


class MBartForCausalLM(FairseqCausalLM):
    """MBart's decoder with its map to the vocabulary; checkpoints of the whole model load too."""

    config_class = MBartConfig

    def __init__(self, config: MBartConfig) -> None:
        super().__init__(config, BartDecoder(config, norm_first=True))
