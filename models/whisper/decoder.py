"""Whisper's decoder: token ids to hidden states, padded or packed."""

from torch import Tensor

from ..core.config import PretrainedConfig
from ..core.fairseq_decoder import FairseqDecoder
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.stack import HIDDEN_STATES, embed_tokens
from .layers import TargetPositions, WhisperDecoderLayer


class WhisperDecoder(FairseqDecoder):
    """Whisper's pre-norm decoder with learned positions."""

    layer_class = WhisperDecoderLayer
    norm_first = True

    forward = declare_forward(
        HIDDEN_STATES,
        "input_ids attention_mask encoder_hidden_states past_key_values inputs_embeds position_ids "
        f"use_cache {OUTPUT_FLAGS}",
    )

    def make_positions(self, config: PretrainedConfig) -> TargetPositions:
        return TargetPositions(config.max_target_positions, config.d_model)

    def embed(self, inputs: Tensor, position_ids: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Embed tokens and positions, before dropout: [tokens, d_model]; never scaled, as in transformers."""
        return embed_tokens(inputs, position_ids, self.embed_tokens, self.embed_positions.table)
