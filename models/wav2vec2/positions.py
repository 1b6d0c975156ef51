"""Convolutional positional embedding of wav2vec 2.0, with weight or batch normalization."""

from typing import cast

import torch
from torch import Tensor, nn

from ...kernels.conv.positional import positional_conv
from ...kernels.runtime.weight_cache import cached
from .config import SpeechEncoderConfig


class WeightNormConvolution(nn.Module):
    """Parameters of a grouped convolution with weight normalization (arXiv 1602.07868), one norm per tap.

    Parameter names are those of torch's parametrization, as in checkpoints since torch 2.0; older ones have
    weight_g and weight_v. The effective weight is cached until one of the two parameters changes.
    """

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        plain = nn.Conv1d(width, width, kernel, groups=groups)
        length = plain.weight.detach().norm(dim=(0, 1), keepdim=True)
        parts = nn.ParameterDict({"original0": length, "original1": plain.weight.detach()})
        self.groups = groups
        self.bias = cast(nn.Parameter, plain.bias)
        self.parametrizations = nn.ModuleDict({"weight": parts})

    def initialize(self) -> None:
        """Initialize the parameters randomly, distributed as in transformers."""
        parts = cast(nn.ParameterDict, self.parametrizations["weight"])
        width, _, kernel = parts["original1"].shape
        nn.init.normal_(parts["original1"], std=2 * (kernel * width) ** -0.5)
        with torch.no_grad():
            parts["original0"].copy_(parts["original1"].norm(dim=(0, 1), keepdim=True))
        nn.init.zeros_(self.bias)

    @property
    def weight(self) -> Tensor:
        """Effective weight of the convolution, [width, width / groups, kernel]."""
        parts = cast(nn.ParameterDict, self.parametrizations["weight"])
        return cached(_scaled, parts["original0"], parts["original1"])


def _scaled(length: Tensor, direction: Tensor) -> Tensor:
    wide = direction.to(torch.promote_types(direction.dtype, torch.float32))
    norm = torch.linalg.vector_norm(wide, dim=(0, 1), keepdim=True)
    return direction * (length / norm).to(direction.dtype)


class PositionalConvolution(nn.Module):
    """Positional embedding: a wide grouped convolution over each token's neighbors.

    Args:
        config: configuration with width, kernel size, groups and activation.
        stride: stride of the convolution in tokens.
        batch_norm: batch-normalize the input instead of weight-normalizing the convolution (HuBERT's option).
    """

    def __init__(self, config: SpeechEncoderConfig, stride: int = 1, batch_norm: bool = False) -> None:
        super().__init__()
        width, kernel = config.hidden_size, config.num_conv_pos_embeddings
        groups = config.num_conv_pos_embedding_groups
        self.conv: WeightNormConvolution | nn.Conv1d
        if batch_norm:
            self.batch_norm: nn.BatchNorm1d | None = nn.BatchNorm1d(width)
            self.conv = nn.Conv1d(width, width, kernel, groups=groups)
        else:
            self.batch_norm = None
            self.conv = WeightNormConvolution(width, kernel, groups)
        self.stride = stride
        self.activation = config.feat_extract_activation

    def forward(self, hidden: Tensor, cu_tokens: Tensor, residual: Tensor | None = None) -> Tensor:
        """Position embeddings of tokens [tokens, width], plus `residual`; strides above 1 give fewer."""
        if self.batch_norm is not None:
            hidden = _batch_normalized(self.batch_norm, hidden)
        return positional_conv(
            hidden,
            cu_tokens,
            self.conv.weight,
            self.conv.bias,
            groups=self.conv.groups,
            stride=self.stride,
            activation=self.activation,
            residual=residual,
        )


def _batch_normalized(norm: nn.BatchNorm1d, hidden: Tensor) -> Tensor:
    if norm.training:
        return cast(Tensor, norm(hidden))
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    return (hidden - mean) * ((variance + norm.eps).rsqrt() * norm.weight) + norm.bias
