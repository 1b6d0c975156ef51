"""Speech2Text's decoder: tokens to hidden states, padded or packed."""

from ..core.fairseq_decoder import FairseqDecoder
from .config import Speech2TextConfig
from .layers import SinusoidalPositions


class Speech2TextDecoder(FairseqDecoder):
    """Decoder with fixed positions, which skip padding tokens, and layers that normalize their input."""

    needs_encoder = True
    argument_prefix = "decoder_"

    def __init__(self, config: Speech2TextConfig) -> None:
        positions = SinusoidalPositions(config.max_target_positions, config.d_model, config.pad_token_id)
        super().__init__(config, positions, norm_first=True)
