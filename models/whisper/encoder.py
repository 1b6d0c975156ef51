"""Whisper's encoder: 30 s of log-mel frames to hidden states, padded or packed."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.conv.padded import padded_conv
from ...kernels.conv.subsample import output_length
from ...kernels.embedding import add_positions
from ...kernels.runtime.packing import cumulative, lengths_of, offsets_after, positions_within
from ..core.attention import StackAttention
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.layer_mixture import LayerMixture
from ..core.layers import normalize, run_layers
from ..core.outputs import BaseModelOutput
from ..core.padding import mask_of, pad_weights, unpack_all
from ..core.speech_encoder import SpeechEncoder
from .config import WhisperConfig
from .layers import SourcePositions, WhisperEncoderLayer

FEATURES = {
    "input_features": "[batch, mels, frames], of exactly 2 * max_source_positions frames.",
    "attention_mask": "[batch, frames], accepted and not read: every frame counts, as in transformers. In "
    "training SpecAugment masks frames where it is 1.",
}
_STRIDES = (1, 2)  # of the two convolutions
FRAMES_PER_TOKEN = 2


class WhisperEncoder(SpeechEncoder):
    """Whisper's encoder: two convolutions, sinusoidal positions and pre-norm transformer layers."""

    config_class = WhisperConfig
    base_prefix = ("model.encoder.", "encoder.")
    main_input_name = "input_features"
    input_shape = "features [batch, mels, frames]"
    max_chunk_tokens = 1500  # one recording
    config: Any

    forward = declare_forward(
        "Encode a batch; each row's result is what it would be alone.",
        f"input_features attention_mask {OUTPUT_FLAGS}",
        FEATURES,
    )

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__(config)
        width = config.d_model
        self.conv1 = nn.Conv1d(config.num_mel_bins, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.embed_positions = SourcePositions(config.max_source_positions, width)
        layers = range(config.encoder_layers)
        self.layers = nn.ModuleList(WhisperEncoderLayer(config, index) for index in layers)
        self.layer_norm = nn.LayerNorm(width)
        self.initialize()

    def forward_named(
        self,
        *,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        layer_weights: Tensor | None = None,
    ) -> BaseModelOutput:
        """Implement `forward`, with keyword arguments only.

        Args:
            layer_weights: [layers + 1]; if given, `last_hidden_state` is the hidden states' weighted sum.
            input_features, attention_mask, output_attentions, output_hidden_states: those of `forward`.
        """
        features, cu_frames = self.pack_inputs(input_features)
        states: list[Tensor] | None = [] if output_hidden_states else None
        hidden, attention = self._run(features, cu_frames, states, layer_weights, record=output_attentions)
        batch, tokens = input_features.shape[0], self.config.max_source_positions
        mask = mask_of([tokens] * batch, tokens, hidden.device)
        return BaseModelOutput(
            last_hidden_state=hidden.view(batch, tokens, self.config.d_model),
            hidden_states=unpack_all(states, mask),
            attentions=pad_weights(attention.weights, mask, mask),
        )

    def pack_inputs(self, input_features: Tensor) -> tuple[Tensor, Tensor]:
        """Pack features [batch, mels, frames] to [all frames, mels] and their cu_seqlens.

        Raises:
            ValueError: another shape, or another number of frames than the model reads.
        """
        mels = self.config.num_mel_bins
        if input_features.dim() != 3 or input_features.shape[1] != mels:
            raise ValueError(
                f"input_features must be [batch, {mels}, frames], got {list(input_features.shape)}"
            )
        batch, _, frames = input_features.shape
        self.length(frames)
        packed = input_features.transpose(1, 2).reshape(batch * frames, mels)
        return packed, cumulative([frames] * batch, packed.device)

    @property
    def inputs_per_token(self) -> int:
        """Frames per encoder token."""
        return FRAMES_PER_TOKEN

    def length(self, inputs: int) -> int:
        """Number of encoder tokens for `inputs` frames, always `max_source_positions`.

        Raises:
            ValueError: another number of frames than the model reads; the message gives both.
        """
        tokens: int = self.config.max_source_positions
        wanted = tokens * FRAMES_PER_TOKEN
        if inputs != wanted:
            raise ValueError(
                f"{inputs} frames, and this Whisper model reads exactly {wanted} ({wanted / 100:g} s); pad "
                "or cut the features, as WhisperFeatureExtractor does"
            )
        return tokens

    def run_packed(
        self, inputs: Tensor, cu_inputs: Tensor, layer_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode packed frames in one pass, without splitting them into chunks.

        Args:
            inputs, cu_inputs: packed frames [frames, mels] and their cu_seqlens, as for `forward_packed`.
            layer_weights: [layers + 1]; if given, return the hidden states' weighted sum, not the last ones.
        """
        hidden, attention = self._run(inputs, cu_inputs, layer_weights=layer_weights)
        return hidden, attention.cu_query

    def _run(
        self,
        features: Tensor,
        cu_frames: Tensor,
        states: list[Tensor] | None = None,
        layer_weights: Tensor | None = None,
        record: bool = False,
    ) -> tuple[Tensor, StackAttention]:
        config = self.config
        for frames in lengths_of(cu_frames):
            self.length(frames)
        hidden, cu_tokens = self._convolve(features.to(self.layer_norm.weight.dtype), cu_frames)
        positions = positions_within(cu_tokens, hidden.shape[0])
        hidden = add_positions(hidden, positions, self.embed_positions.weight, 1.0)
        hidden = F.dropout(hidden, config.dropout, self.training)
        dropout = config.attention_dropout if self.training else 0.0
        attention = StackAttention(cu_tokens, cu_tokens, dropout=dropout, record=record)
        layerdrop = config.encoder_layerdrop if self.training else 0.0
        if layer_weights is None:
            return run_layers(self.layers, self.layer_norm, hidden, attention, layerdrop, states), attention
        mixture = LayerMixture(layer_weights, states)
        hidden = run_layers(self.layers, None, hidden, attention, layerdrop, mixture, skipped=mixture.skip)
        mixture.replace_last(normalize(self.layer_norm, hidden))
        return mixture.total(), attention

    def _convolve(self, features: Tensor, cu_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve frames [frames, mels] to [tokens, d_model], half as many, with their cu_seqlens."""
        convolutions = list(zip((self.conv1, self.conv2), _STRIDES, strict=True))
        if cu_frames.device.type != "cpu":  # copied there once for both
            offsets_after(cu_frames, output_length, *((3, stride) for stride in _STRIDES))
        for conv, stride in convolutions:
            options: dict[str, Any] = {"stride": stride, "activation": "gelu"}
            features, cu_frames = padded_conv(features, cu_frames, conv.weight, conv.bias, **options)
        return features, cu_frames
