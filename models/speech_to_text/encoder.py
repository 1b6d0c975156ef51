"""Speech2Text's encoder: frames to hidden states, padded or packed."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.embedding import add_positions
from ...kernels.runtime.packing import positions_within, unpack
from ..core.attention import HeadMask, StackAttention, head_masks
from ..core.config import PretrainedConfig
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.layers import EncoderLayer, embedding_scale, run_layers
from ..core.outputs import BaseModelOutput
from ..core.padding import mask_of, pack_features, pad_weights, unpack_all
from ..core.speech_encoder import SpeechEncoder
from .config import Speech2TextConfig
from .layers import Conv1dSubsampler, SinusoidalPositions

FRAMES_MASK = {"attention_mask": "[batch, frames], 1 for real frames; all of them by default."}


class Speech2TextEncoder(SpeechEncoder):
    """Subsampler, positions and encoder layers.

    Args:
        config: sizes and constants; weights are fresh.
    """

    config_class: ClassVar[type[PretrainedConfig]] = Speech2TextConfig
    base_prefix: ClassVar[str | tuple[str, ...]] = ("model.encoder.", "encoder.")
    computed_keys: ClassVar[tuple[str, ...]] = ("embed_positions.weights",)
    main_input_name: ClassVar[str] = "input_features"
    input_shape: ClassVar[str] = "features [batch, frames, features]"
    # The inner half of a layer, 2,048 numbers a token, then takes 8 MB.
    max_chunk_tokens: ClassVar[int] = 1024

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
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutput:
        """`forward` with its arguments by name.

        Raises:
            ValueError: inputs that do not fit, or a recording longer than the model's positions.
        """
        config = self.config
        features, cu_frames = pack_features(input_features, attention_mask)
        lengths = [self.length(frames) for frames in cu_frames.diff().tolist()]
        mask = mask_of(lengths, self.padded_length(input_features.shape[1]), features.device)
        masks = head_masks(head_mask, config.encoder_layers, config.encoder_attention_heads, "head_mask")
        record = config.output_attentions if output_attentions is None else output_attentions
        keep = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        states: list[Tensor] | None = [] if keep else None
        hidden, attention = self._run(features, cu_frames, states, head_mask=masks, record=record)
        return BaseModelOutput(
            last_hidden_state=unpack(hidden, mask),
            hidden_states=unpack_all(states, mask),
            attentions=pad_weights(attention.weights, mask, mask),
        )

    @property
    def inputs_per_token(self) -> int:
        """Frames from one token to the next."""
        return int(2**self.config.num_conv_layers)

    def length(self, inputs: int) -> int:
        """Encoder tokens for so many frames.

        Raises:
            ValueError: more than there are positions for, with both numbers.
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
        """Tokens of a padded output, which may be longer than there are positions for."""
        return self.conv.length(inputs)

    def run_packed(self, inputs: Tensor, cu_inputs: Tensor) -> tuple[Tensor, Tensor]:
        """All packed frames at once."""
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
            # transformers reads positions off a padding mask in which real frames are 0; with 0 as the
            # padding token every frame looks like padding to it and gets the zero vector.
            return torch.zeros(total, dtype=torch.int64, device=cu_tokens.device)
        return positions_within(cu_tokens, total) + padding + 1
