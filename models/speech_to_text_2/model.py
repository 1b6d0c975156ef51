"""Speech2Text2's decoder (arXiv 2104.06678): fixed positions, layers that normalize their output.

transformers dropped it after 4.57; the reference is 4.44, the last release that could build the model.
"""

from typing import ClassVar

from ..core.config import PretrainedConfig
from ..core.fairseq_decoder import FairseqCausalLM, FairseqDecoder
from ..speech_to_text.layers import SinusoidalPositions
from .config import Speech2Text2Config


class Speech2Text2Decoder(FairseqDecoder):
    """Decoder with fixed positions, which skip padding tokens, and layers that normalize their output."""

    def __init__(self, config: Speech2Text2Config) -> None:
        positions = SinusoidalPositions(config.max_target_positions, config.d_model, config.pad_token_id)
        super().__init__(config, positions, norm_first=False)


class Speech2Text2ForCausalLM(FairseqCausalLM):
    """Speech2Text2's decoder with its output map.

    Args:
        config: sizes and constants; weights are fresh.
    """

    config_class: ClassVar[type[PretrainedConfig]] = Speech2Text2Config
    computed_keys: ClassVar[tuple[str, ...]] = ("model.decoder.embed_positions.weights",)

    def __init__(self, config: Speech2Text2Config) -> None:
        super().__init__(config, Speech2Text2Decoder(config))
