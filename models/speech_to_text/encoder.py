"""Speech2Text's encoder: frames to hidden states, padded or packed."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.embedding import add_positions
from ...kernels.runtime.packing import index_table, positions_within, unpack
from ..core.attention import HeadMask, StackAttention, head_masks
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.layers import EncoderLayer, embedding_scale, run_layers
from ..core.outputs import BaseModelOutput
from ..core.padding import mask_of, pack_features, pad_weights, unpack_all
from ..core.speech_encoder import SpeechEncoder
from .config import Speech2TextConfig
from .layers import Conv1dSubsampler, SinusoidalPositions

FRAMES_MASK = {"attention_mask": "[batch, frames], 1 for real frames; all of them by default."}


class Speech2TextEncoder(SpeechEncoder):
    """Speech2Text's encoder: convolutional subsampler, sinusoidal positions and transformer layers."""

    config_class = Speech2TextConfig
    base_prefix = ("model.encoder.", "encoder.")
    computed_keys = ("embed_positions.weights",)
    main_input_name = "input_features"
    input_shape = "features [batch, frames, features]"
    # The inner activations of a feed-forward network, 2,048 values per token, then take 8 MB.
    max_chunk_tokens = 1024

    forward = declare_forward(
        "Encode a padded batch; each row's result is what it would be alone.",
        f"input_features attention_mask head_mask {OUTPUT_FLAGS}",
        FRAMES_MASK,
    )

    def __init__(self, config: Speech2TextConfig) -> None:
        super().__init__(config)
        self.conv = Conv1dSubsampler(config)
        self.embed_positions = SinusoidalPositions(
            config.max_source_positions, config.d_model, config.pad_token_id
        )
        self.layers = nn.ModuleList(EncoderLayer(config, index) for index in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.d_model)
        self.initialize()

    def forward_named(
        self,
        *,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        head_mask: HeadMask | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> BaseModelOutput:
        """Implement `forward`, with keyword arguments only."""
        config = self.config
        features, cu_frames = pack_features(input_features, attention_mask)
        lengths = [self.length(frames) for frames in cu_frames.diff().tolist()]
        mask = mask_of(lengths, self.padded_length(input_features.shape[1]), features.device)
        masks = head_masks(head_mask, config.encoder_layers, config.encoder_attention_heads, "head_mask")
        states: list[Tensor] | None = [] if output_hidden_states else None
        hidden, attention = self._run(features, cu_frames, states, head_mask=masks, record=output_attentions)
        return BaseModelOutput(
            last_hidden_state=unpack(hidden, mask),
            hidden_states=unpack_all(states, mask),
            attentions=pad_weights(attention.weights, mask, mask),
        )

    @property
    def inputs_per_token(self) -> int:
        """Frames per encoder token."""
        return int(2**self.config.num_conv_layers)

    def length(self, inputs: int) -> int:
        """Number of encoder tokens for `inputs` frames.

        Raises:
            ValueError: more tokens than positions; the message gives both numbers.
        """
        limit = self.embed_positions.limit
        tokens = self.padded_length(inputs)
        if tokens > limit:
            raise ValueError(
                f"{inputs} frames are {tokens} encoder positions, and the model has {limit} "
                f"(about {limit * self.inputs_per_token / 100:.0f} s); split the recording"
            )
        return tokens

    def padded_length(self, inputs: int) -> int:
        """Number of tokens of a padded output for `inputs` frames; it may exceed the number of positions."""
        return self.conv.length(inputs)

    def run_packed(self, inputs: Tensor, cu_inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Encode packed frames in one pass, without splitting them into chunks."""
        hidden, attention = self._run(inputs, cu_inputs)
        return hidden, attention.cu_query

    def _run(
        self, features: Tensor, cu_frames: Tensor, states: list[Tensor] | None = None, **options: Any
    ) -> tuple[Tensor, StackAttention]:
        config = self.config
        hidden, cu_tokens = self.conv(features.to(self.layer_norm.weight.dtype), cu_frames)
        positions = self._positions(cu_tokens, hidden.shape[0])
        hidden = add_positions(hidden, positions, self.embed_positions.weights, embedding_scale(config))
        hidden = F.dropout(hidden, config.dropout, self.training)
        dropout = config.attention_dropout if self.training else 0.0
        attention = StackAttention(cu_tokens, cu_tokens, dropout=dropout, **options)
        layerdrop = config.encoder_layerdrop if self.training else 0.0
        return run_layers(self.layers, self.layer_norm, hidden, attention, layerdrop, states), attention

    def _positions(self, cu_tokens: Tensor, total: int) -> Tensor:
        padding = self.embed_positions.padding_idx
        if padding == 0:
            # transformers derives positions from a padding mask in which real frames are 0; if the padding
            # token is 0 too, it treats every frame as padding, which gets the zero vector.
            return torch.zeros(total, dtype=torch.int64, device=cu_tokens.device)
        return index_table(_table_rows, cu_tokens, total=total, first=padding + 1)


def _table_rows(cu_tokens: Tensor, *, total: int, first: int) -> Tensor:
    """Row of the position-embedding table for each packed token; `first` is that of a sequence's first."""
    return positions_within(cu_tokens, total) + first
