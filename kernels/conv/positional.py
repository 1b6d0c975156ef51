"""Convolutional positional embedding of wav2vec2: a grouped 1-D convolution over packed utterances."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..linear.activation import activate, activate_, check_activation
from ..runtime.dispatch import Operation
from ..runtime.packing import check_cu_seqlens, index_table, lengths_of, offsets_after, spans
from ..runtime.weight_cache import cached
from .implicit_gemm import implicit_gemm, window_starts
from .waveform import check_stride, flattened


def positional_conv(
    hidden: Tensor,
    cu_tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    groups: int,
    stride: int = 1,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Grouped convolution of each utterance: `activation(conv1d(hidden) + bias) + residual`.

    Each utterance is padded with `kernel // 2` zeros at both ends, and an even kernel's last output is
    dropped. From wav2vec 2.0 (arXiv 2006.11477), with the stride of SEW.

    Args:
        hidden: [tokens, C], packed.
        cu_tokens: int32 [n + 1], offsets of the utterances.
        weight: [C, C / groups, kernel], as in `torch.nn.Conv1d`.
        bias: [C], or None.
        groups: number of equal groups of channels; a group's outputs depend on its inputs alone.
        stride: tokens from one output to the next.
        activation: one of `ACTIVATIONS`.
        residual: [tokens', C], added after the activation.

    Returns:
        [tokens', C], `positional_length` tokens of each utterance: as many as in `hidden` if the stride is 1.

    Raises:
        ValueError: shapes or offsets that do not fit, channels that `groups` does not divide, a stride below
            1, or an unknown activation.
    """
    check_cu_seqlens(cu_tokens, hidden.shape[0], "cu_tokens")
    channels, members, kernel = weight.shape
    if groups < 1 or channels % groups:
        raise ValueError(f"{channels} channels cannot be divided into {groups} equal groups")
    if channels != members * groups:
        raise ValueError(
            f"positional_conv in {groups} groups takes weights [{channels}, {channels // groups}, kernel], "
            f"got {list(weight.shape)}"
        )
    if hidden.dim() != 2 or hidden.shape[1] != channels:
        raise ValueError(f"positional_conv takes [tokens, {channels}], got {list(hidden.shape)}")
    check_stride(stride)
    check_activation(activation)
    if residual is not None:
        rows = hidden.shape[0] if stride == 1 else sum(_lengths(cu_tokens, kernel, stride))
        if list(residual.shape) != [rows, channels]:
            raise ValueError(
                f"positional_conv adds a residual of [{rows}, {channels}], got {list(residual.shape)}"
            )
    options = {"groups": groups, "stride": stride, "activation": activation, "residual": residual}
    return _positional_conv(hidden, cu_tokens, weight, bias, **options)


def positional_length(length: int, kernel: int, stride: int = 1) -> int:
    """Number of outputs of `positional_conv` for an utterance of `length` tokens; 0 for an empty one."""
    return (length + 2 * (kernel // 2) - kernel) // stride + kernel % 2 if length else 0


def _lengths(cu_tokens: Tensor, kernel: int, stride: int) -> list[int]:
    return [positional_length(length, kernel, stride) for length in lengths_of(cu_tokens)]


def positional_conv_reference(
    hidden: Tensor,
    cu_tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    groups: int,
    stride: int = 1,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Reference implementation of `positional_conv` in plain torch, by utterance, in float32 at least."""
    kernel = weight.shape[2]
    # In bfloat16 torch 2.13's grouped convolution gives wrong results on processors with AMX.
    wide = torch.promote_types(hidden.dtype, torch.float32)
    weight, bias = weight.to(wide), None if bias is None else bias.to(wide)
    outputs = [hidden[:0]]
    for (start, end), count in zip(spans(cu_tokens), _lengths(cu_tokens, kernel, stride), strict=True):
        if count:
            rows = hidden[start:end].T[None].to(wide)
            mixed = F.conv1d(rows, weight, bias, stride=stride, padding=kernel // 2, groups=groups)
            outputs.append(mixed[0].T[:count].to(hidden.dtype))
    out = activate(torch.cat(outputs), activation)
    return out if residual is None else residual + out


def positional_conv_cpu(
    hidden: Tensor,
    cu_tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    groups: int,
    stride: int = 1,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Grouped convolution by Fourier transforms of overlapping blocks (overlap-save), in float32 at least.

    For 128 taps and groups of 48 channels it takes a thirtieth of the multiplications and copies no windows.
    One utterance at a time, so that the order of its sums does not depend on the batch.
    """
    channels, members, kernel = weight.shape
    size = _block(kernel)
    step = size - kernel + 1  # outputs of a block
    spectrum = cached(_spectrum, weight)
    lengths = lengths_of(cu_tokens)
    counts = _lengths(cu_tokens, kernel, stride)
    out = hidden.new_empty(sum(counts), channels)
    for tokens, result in zip(hidden.split(lengths), out.split(counts), strict=True):
        if not result.shape[0]:
            continue
        blocks = -(-((result.shape[0] - 1) * stride + 1) // step)
        edge = (blocks - 1) * step + size - kernel // 2
        padded = F.pad(tokens.to(_wide(tokens)).T, (kernel // 2, edge - tokens.shape[0]))
        lines = torch.fft.rfft(padded.unfold(1, size, step))  # [channels, blocks, frequencies]
        lines = lines.view(groups, members, blocks, -1).permute(3, 0, 2, 1).contiguous()
        mixed = (lines @ spectrum).permute(1, 3, 2, 0).contiguous()  # [groups, members, blocks, frequencies]
        signal = torch.fft.irfft(mixed, size)[..., :step].reshape(channels, blocks * step)
        rows = signal[:, ::stride][:, : result.shape[0]].T.contiguous()
        result.copy_(activate_(rows if bias is None else rows.add_(bias), activation))
    return out if residual is None else out.add_(residual)


def _block(kernel: int) -> int:
    """Length of a Fourier transform's block: the first power of two not below twice the kernel.

    Longer blocks would enlarge the weight's spectrum and slow down short utterances.
    """
    return 1 << (2 * kernel - 1).bit_length()


def _spectrum(weight: Tensor) -> Tensor:
    """Spectrum of a weight [C, members, kernel] as matrices [frequencies, groups, members, members].

    Conjugated, since the convolution of a neural network is a correlation.
    """
    channels, members, kernel = weight.shape
    lines = torch.fft.rfft(weight.detach().to(_wide(weight)), _block(kernel)).conj()
    return lines.reshape(channels // members, members, members, -1).permute(3, 0, 2, 1).contiguous()


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def positional_conv_triton(
    hidden: Tensor,
    cu_tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    groups: int,
    stride: int = 1,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Grouped convolution by one `implicit_gemm` over a copy with zeros between utterances."""
    _, members, kernel = weight.shape
    cu_out = cu_tokens
    if stride > 1:  # else each token has an output
        cu_out = offsets_after(cu_tokens, positional_length, (kernel, stride))[0]
    tokens, utterances = hidden.shape[0], cu_tokens.numel() - 1
    positions = index_table(_token_positions, cu_tokens, rows=tokens, kernel=kernel)
    spread = hidden.new_zeros(groups, tokens + utterances * _between(kernel), members)
    spread.index_copy_(1, positions, hidden.reshape(tokens, groups, members).transpose(0, 1))
    rows = sum(lengths_of(cu_out))
    first = index_table(_first_positions, cu_tokens, cu_out, rows=rows, kernel=kernel, stride=stride)
    flat = cached(flattened, weight).view(groups, members, kernel * members)
    return implicit_gemm(spread, first, flat, bias, activation=activation, residual=residual)


def _between(kernel: int) -> int:
    """Number of zeros between two utterances; an even kernel needs one fewer."""
    return kernel - 1


def _begins(cu_tokens: Tensor, kernel: int) -> Tensor:
    """Position of each utterance's first window among tokens with zeros between utterances, int32 [n]."""
    utterances = torch.arange(len(cu_tokens) - 1, dtype=torch.int32, device=cu_tokens.device)
    return cu_tokens[:-1] + _between(kernel) * utterances


def _token_positions(cu_tokens: Tensor, rows: int, kernel: int) -> Tensor:
    """Position of each token, int64 [rows]."""
    return window_starts(_begins(cu_tokens, kernel) + kernel // 2, cu_tokens, rows, 1).long()


def _first_positions(cu_tokens: Tensor, cu_out: Tensor, rows: int, kernel: int, stride: int) -> Tensor:
    """Position where each output's window begins, int32 [rows]."""
    return window_starts(_begins(cu_tokens, kernel), cu_out, rows, stride)


_positional_conv = Operation(
    positional_conv_reference, cpu=positional_conv_cpu, triton=positional_conv_triton
)
