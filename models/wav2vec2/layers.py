"""Layers of wav2vec 2.0 (arXiv 2006.11477), on packed batches."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.conv.normalized import normalized_conv
from ...kernels.conv.subsample import conv_subsample, output_length
from ...kernels.conv.waveform import valid_length, waveform_conv
from ...kernels.linear.activation import check_activation
from ...kernels.norm.group_norm import group_norm
from ...kernels.norm.layer_norm import layer_norm
from ...kernels.runtime.packing import offsets_after
from ..core.attention import DecoderAttention, StackAttention
from ..core.chunks import in_chunks
from ..core.layer_mixture import LayerMixture
from ..core.layers import Attention, add_linear, apply_linear, normalize, run_layers
from .config import SpeechEncoderConfig, Wav2Vec2Config
from .positions import PositionalConvolution

# Chunk size of the convolutions on a CPU, in samples: one second at 16 kHz makes 6.5 MB after the first one.
_MAX_CHUNK_SAMPLES = 16_000


class FeatureEncoder(nn.Module):
    """Convolutional feature encoder: waveforms to frames, with group or layer normalization."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(_ConvLayer(config, index) for index in range(len(config.conv_dim)))

    def forward(self, samples: Tensor, cu_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Encode waveforms [samples, 1] to frames [frames, conv_dim[-1]], with their cu_seqlens."""
        if samples.device.type != "cpu":
            return self._run(samples, cu_samples)
        return in_chunks(self._run, samples, cu_samples, _MAX_CHUNK_SAMPLES)

    def length(self, samples: int) -> int:
        """Number of frames of a recording of `samples` samples; 0 where it is too short."""
        for layer in self.conv_layers:
            conv = cast(_ConvLayer, layer).conv
            samples = valid_length(samples, conv.kernel_size[0], conv.stride[0])
        return samples

    def needed(self, frames: int) -> int:
        """Minimum number of samples of a recording that has `frames` frames."""
        for layer in reversed(self.conv_layers):
            conv = cast(_ConvLayer, layer).conv
            frames = (frames - 1) * conv.stride[0] + conv.kernel_size[0]
        return frames

    def _run(self, hidden: Tensor, cu_tokens: Tensor) -> tuple[Tensor, Tensor]:
        if cu_tokens.device.type != "cpu":  # copied there once for all layers
            convolutions = [cast(_ConvLayer, layer).conv for layer in self.conv_layers]
            layers = [(conv.kernel_size[0], conv.stride[0]) for conv in convolutions]
            offsets_after(cu_tokens, valid_length, *layers)
        for layer in self.conv_layers:
            hidden, cu_tokens = layer(hidden, cu_tokens)
        return hidden, cu_tokens


class _ConvLayer(nn.Module):
    """Convolution without padding, then optional group or layer normalization, then an activation."""

    def __init__(self, config: SpeechEncoderConfig, index: int) -> None:
        super().__init__()
        channels = config.conv_dim[index]
        self.activation = config.feat_extract_activation
        check_activation(self.activation)
        self.conv = nn.Conv1d(
            config.conv_dim[index - 1] if index else 1,
            channels,
            config.conv_kernel[index],
            config.conv_stride[index],
            bias=config.conv_bias,
        )
        self.layer_norm: nn.GroupNorm | nn.LayerNorm | None = None
        if config.feat_extract_norm == "layer":
            self.layer_norm = nn.LayerNorm(channels)
        elif not index:
            self.layer_norm = nn.GroupNorm(channels, channels)

    def forward(self, hidden: Tensor, cu_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve [positions, channels] to [fewer positions, output channels], with their cu_seqlens."""
        conv, norm, name = self.conv, self.layer_norm, self.activation
        weight, bias, stride = conv.weight, conv.bias, conv.stride[0]
        if norm is None:
            return waveform_conv(hidden, cu_tokens, weight, bias, stride=stride, activation=name)
        scale, shift, eps = norm.weight, norm.bias, norm.eps
        if isinstance(norm, nn.LayerNorm):
            hidden, cu_tokens = waveform_conv(hidden, cu_tokens, weight, bias, stride=stride)
            return layer_norm(hidden, scale, shift, eps, activation=name), cu_tokens
        if bias is None:
            return normalized_conv(
                hidden, cu_tokens, weight, scale, shift, eps, stride=stride, activation=name
            )
        hidden, cu_tokens = waveform_conv(hidden, cu_tokens, weight, bias, stride=stride)
        return group_norm(hidden, cu_tokens, conv.out_channels, scale, shift, eps, activation=name), cu_tokens


class FeatureProjection(nn.Module):
    """Linear projection of frames to the transformer's width.

    Args:
        config: configuration with widths and dropout rate.
        normalized: apply layer normalization to the frames first.
    """

    def __init__(self, config: SpeechEncoderConfig, normalized: bool = True) -> None:
        super().__init__()
        width = config.conv_dim[-1]
        self.layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps) if normalized else None
        self.projection = nn.Linear(width, config.hidden_size)
        self.dropout = config.feat_proj_dropout

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Project frames [frames, conv_dim[-1]] to [frames, hidden_size]; return normalized frames too."""
        if self.layer_norm is not None:
            frames = normalize(self.layer_norm, frames)
        hidden = apply_linear(self.projection, frames)
        return F.dropout(hidden, self.dropout, self.training), frames


class EncoderLayer(nn.Module):
    """Transformer layer: self-attention within each utterance, then feed-forward, with pre-norm or post-norm.

    Args:
        config: configuration with sizes and dropout rates.
        index: index of the layer, from 0.
        stable: pre-norm ("stable layer norm"): normalize before attention and feed-forward, not after.
    """

    def __init__(self, config: SpeechEncoderConfig, index: int, stable: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.index = index
        self.stable = stable
        self.dropout = config.hidden_dropout
        self.attention = Attention(width, config.num_attention_heads)
        self.layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor, attention: DecoderAttention) -> Tensor:
        """Transform tokens [tokens, hidden_size] to the same shape, in the given attention layout."""
        norm = self.layer_norm if self.stable else None
        mixed = self.attention.attend(hidden, attention, self.index, norm)
        hidden = add_linear(self.attention.output, mixed, hidden, self.dropout, self.training)
        if self.stable:
            return cast(Tensor, self.feed_forward(normalize(self.final_layer_norm, hidden), hidden))
        hidden = normalize(self.layer_norm, hidden)
        return normalize(self.final_layer_norm, self.feed_forward(hidden, hidden))


class FeedForward(nn.Module):
    """Feed-forward network: two linear layers with an activation between them, added to a residual."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.activation = config.hidden_act
        check_activation(self.activation)
        self.activation_dropout = config.activation_dropout
        self.dropout = config.hidden_dropout
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Output [tokens, hidden_size] for `hidden` and `residual` of the same shape."""
        inner = apply_linear(self.intermediate_dense, hidden, self.activation)
        inner = F.dropout(inner, self.activation_dropout, self.training)
        return add_linear(self.output_dense, inner, residual, self.dropout, self.training)


class Encoder(nn.Module):
    """Transformer encoder with a convolutional positional embedding.

    Args:
        config: configuration with sizes and dropout rates.
        stable: normalize before attention and feed-forward, not after.
        batch_norm: use batch normalization in the positional embedding, see `PositionalConvolution`.
    """

    frames_per_token = 1

    def __init__(self, config: SpeechEncoderConfig, stable: bool, batch_norm: bool = False) -> None:
        super().__init__()
        self.config = config
        self.stable = stable
        self.pos_conv_embed = PositionalConvolution(config, batch_norm=batch_norm)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(
            EncoderLayer(config, index, stable) for index in range(config.num_hidden_layers)
        )

    def forward(
        self, hidden: Tensor, cu_frames: Tensor, states: list[Tensor] | None, record: bool
    ) -> tuple[Tensor, Tensor, list[list[Tensor]] | None]:
        """Encode frames [frames, hidden_size] to hidden states of the same shape.

        Args:
            hidden: packed frames.
            cu_frames: int32 [n + 1], their cu_seqlens.
            states: list that receives the first layer's input and each layer's output, not normalized.
            record: return attention weights.

        Returns:
            The output; the cu_seqlens of `states` and attention weights, here `cu_frames`; the attention
            weights, as in `StackAttention`.
        """
        hidden = self.pos_conv_embed(hidden, cu_frames, residual=hidden)
        hidden, weights = run_transformer(self, hidden, cu_frames, states, record)
        return hidden, cu_frames, weights


def run_transformer(
    encoder: Any, hidden: Tensor, cu_tokens: Tensor, states: list[Tensor] | None, record: bool
) -> tuple[Tensor, list[list[Tensor]] | None]:
    """Run an encoder's layers, skipping random ones in training, and return output and attention weights.

    Arguments are those of `Encoder.forward`.
    """
    config, norm, training = encoder.config, encoder.layer_norm, encoder.training
    if not encoder.stable:
        hidden = normalize(norm, hidden)
    hidden = F.dropout(hidden, config.hidden_dropout, training)
    dropout = config.attention_dropout if training else 0.0
    attention = StackAttention(cu_tokens, cu_tokens, dropout=dropout, record=record)
    skipped = states.skip if isinstance(states, LayerMixture) else None
    layerdrop = config.layerdrop if training else 0.0
    hidden = run_layers(encoder.layers, None, hidden, attention, layerdrop, states, skipped=skipped)
    return normalize(norm, hidden) if encoder.stable else hidden, attention.weights


class Adapter(nn.Module):
    """Strided convolutions with gated linear units that shorten the encoder's output for a decoder."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        width = config.output_hidden_size
        self.stride = config.adapter_stride
        self.kernel = config.adapter_kernel_size
        self.layerdrop = config.layerdrop
        narrowed = width != config.hidden_size
        self.proj = nn.Linear(config.hidden_size, width) if narrowed else None
        self.proj_layer_norm = nn.LayerNorm(width) if narrowed else None
        self.layers = nn.ModuleList(_AdapterLayer(config) for _ in range(config.num_adapter_layers))

    def forward(self, hidden: Tensor, cu_tokens: Tensor) -> tuple[Tensor, Tensor, int]:
        """Shorten tokens [tokens, hidden_size] to [fewer tokens, output_hidden_size].

        Returns:
            The tokens, their cu_seqlens, and the number of layers that ran, as training may skip some.
        """
        if self.proj is not None and self.proj_layer_norm is not None:
            hidden = normalize(self.proj_layer_norm, apply_linear(self.proj, hidden))
        ran = 0
        for layer in self.layers:
            if self.training and self.layerdrop and torch.rand(()).item() <= self.layerdrop:
                continue
            conv = cast(_AdapterLayer, layer).conv
            hidden, cu_tokens = conv_subsample(hidden, cu_tokens, conv.weight, conv.bias, stride=self.stride)
            ran += 1
        return hidden, cu_tokens, ran

    def length(self, tokens: int, layers: int | None = None) -> int:
        """Number of tokens that `tokens` become after `layers` adapter layers, by default all of them."""
        for _ in range(len(self.layers) if layers is None else layers):
            tokens = output_length(tokens, self.kernel, self.stride)
        return tokens


class _AdapterLayer(nn.Module):
    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        width = config.output_hidden_size
        self.conv = nn.Conv1d(width, 2 * width, config.adapter_kernel_size, config.adapter_stride, padding=1)
