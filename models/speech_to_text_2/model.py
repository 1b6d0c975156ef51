"""Decoder of Speech2Text2 (arXiv 2104.06678): a post-norm transformer with sinusoidal positions.

transformers dropped it after 4.57; the reference is 4.44, the last release that could build the model.
"""

from ..core.fairseq_decoder import FairseqCausalLM
from ..speech_to_text.decoder import Speech2TextDecoder
from .config import Speech2Text2Config


class Speech2Text2Decoder(Speech2TextDecoder):
    """Speech2Text's decoder with post-norm layers, which also runs without an encoder's output."""

    norm_first = False
    needs_encoder = False
    argument_prefix = ""


class Speech2Text2ForCausalLM(FairseqCausalLM):
    """Speech2Text2's decoder with its language-modeling head."""

    config_class = Speech2Text2Config
    computed_keys = ("model.decoder.embed_positions.weights",)
    decoder_class = Speech2Text2Decoder
