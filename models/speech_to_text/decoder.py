"""Speech2Text's decoder: tokens to hidden states, padded or packed."""

from ..core.config import PretrainedConfig
from ..core.fairseq_decoder import FairseqDecoder
from .layers import SinusoidalPositions


class Speech2TextDecoder(FairseqDecoder):
    """Decoder with fixed positions, which skip padding tokens, and layers that normalize their input."""

    norm_first = True
    needs_encoder = True
    argument_prefix = "decoder_"

    def make_positions(self, config: PretrainedConfig) -> SinusoidalPositions:
        return SinusoidalPositions(config.max_target_positions, config.d_model, config.pad_token_id)
