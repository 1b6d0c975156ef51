"""MBart decoder (arXiv 2001.08210): BART's with pre-norm layers and a final layer norm."""

from ..bart.model import BartDecoder
from ..core.fairseq_decoder import FairseqCausalLM
from .config import MBartConfig


class MBartDecoder(BartDecoder):
    """MBart decoder: BART's with pre-norm layers and a final layer norm."""

    norm_first = True


class MBartForCausalLM(FairseqCausalLM):
    """MBart decoder with a language-modeling head; encoder-decoder checkpoints load too."""

    config_class = MBartConfig
    decoder_class = MBartDecoder
