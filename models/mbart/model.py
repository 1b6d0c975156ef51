"""MBart's decoder (arXiv 2001.08210): BART's with norms before the parts of a layer and behind the last."""

from ..bart.model import BartDecoder
from ..core.fairseq_decoder import FairseqCausalLM
from .config import MBartConfig


class MBartDecoder(BartDecoder):
    """BART's decoder with norms first."""

    norm_first = True


class MBartForCausalLM(FairseqCausalLM):
    """MBart's decoder with its map to the vocabulary; checkpoints of the whole model load too."""

    config_class = MBartConfig
    decoder_class = MBartDecoder
