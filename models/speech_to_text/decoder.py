"""Speech2Text's decoder: token ids to hidden states, padded or packed."""

from ..core.config import PretrainedConfig
from ..core.fairseq_decoder import FairseqDecoder
from .layers import SinusoidalPositions


class Speech2TextDecoder(FairseqDecoder):
    """Speech2Text's pre-norm decoder with sinusoidal positions, which do not count padding tokens."""

    norm_first = True
    needs_encoder = True
    argument_prefix = "decoder_"

    def make_positions(self, config: PretrainedConfig) -> SinusoidalPositions:
        return SinusoidalPositions(config.max_target_positions, config.d_model, config.pad_token_id)
