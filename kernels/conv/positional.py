"""Grouped 1-D convolution that tells wav2vec2's encoder where its tokens are, over packed utterances."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..linear.activation import activate, activate_, check_activation
from ..runtime.dispatch import choose
from ..runtime.packing import check_cu_seqlens, cumulative, spans
from ..runtime.weight_cache import cached
from .implicit_gemm import window_product, window_starts


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
    """`activation(conv1d(hidden) + bias) + residual`, with `kernel // 2` zeros on both sides of each
    utterance; of an even kernel the last output is dropped (arXiv 2006.11477, with SEW's stride).

    Args:
        hidden: [tokens, C], utterances end to end.
        cu_tokens: int32 [n + 1], where each utterance begins; first 0, last the number of tokens.
        weight: [C, C / groups, kernel], as in `torch.nn.Conv1d`.
        bias: [C], or None.
        groups: into how many the channels are divided; outputs of a group see its inputs alone.
        stride: tokens from one output to the next.
        activation: one of `ACTIVATIONS`.
        residual: [tokens', C], added after the activation.

    Returns:
        [tokens', C]; utterances have `positional_length` tokens each, with a stride of 1 as many as before.

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
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    check_activation(activation)
    if residual is not None:
        rows = hidden.shape[0]
        if stride > 1:
            rows = sum(positional_length(end - start, kernel, stride) for start, end in spans(cu_tokens))
        if list(residual.shape) != [rows, channels]:
            raise ValueError(
                f"positional_conv adds a residual of [{rows}, {channels}], got {list(residual.shape)}"
            )
    run = choose(
        hidden,
        cu_tokens,
        weight,
        bias,
        residual,
        reference=positional_conv_reference,
        cpu=positional_conv_cpu,
        triton=positional_conv_triton,
    )
    return run(
        hidden,
        cu_tokens,
        weight,
        bias,
        groups=groups,
        stride=stride,
        activation=activation,
        residual=residual,
    )


def positional_length(length: int, kernel: int, stride: int = 1) -> int:
    """Outputs for `length` inputs; none for an empty utterance."""
    return (length + 2 * (kernel // 2) - kernel) // stride + kernel % 2 if length else 0


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
    """The specification, in plain torch: one utterance after the other, in float32 at least."""
    kernel = weight.shape[2]
    # In bfloat16 torch 2.13's grouped convolution gives wrong numbers on processors with AMX.
    wide = torch.promote_types(hidden.dtype, torch.float32)
    weight, bias = weight.to(wide), None if bias is None else bias.to(wide)
    outputs = [hidden[:0]]
    for start, end in spans(cu_tokens):
        count = positional_length(end - start, kernel, stride)
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
    """By Fourier transforms of overlapping blocks, at least twice as long as the kernel: a thirtieth of the
    multiplications for 128 taps and groups of 48 channels, and no copies of windows.

    In float32 at least; one utterance after the other, so that its sums have an order of their own.
    """
    channels, members, kernel = weight.shape
    size = _block(kernel)
    step = size - kernel + 1  # outputs of a block
    spectrum = cached(_spectrum, weight)
    lengths = [end - start for start, end in spans(cu_tokens)]
    counts = [positional_length(length, kernel, stride) for length in lengths]
    out = hidden.new_empty(sum(counts), channels)
    for tokens, place in zip(hidden.split(lengths), out.split(counts), strict=True):
        if not place.shape[0]:
            continue
        blocks = -(-((place.shape[0] - 1) * stride + 1) // step)
        edge = (blocks - 1) * step + size - kernel // 2
        padded = F.pad(tokens.to(_wide(tokens)).T, (kernel // 2, edge - tokens.shape[0]))
        lines = torch.fft.rfft(padded.unfold(1, size, step))  # [channels, blocks, lines]
        lines = lines.view(groups, members, blocks, -1).permute(3, 0, 2, 1).contiguous()
        mixed = (lines @ spectrum).permute(1, 3, 2, 0).contiguous()  # [groups, members, blocks, lines]
        signal = torch.fft.irfft(mixed, size)[..., :step].reshape(channels, blocks * step)
        rows = signal[:, ::stride][:, : place.shape[0]].T.contiguous()
        place.copy_(activate_(rows if bias is None else rows.add_(bias), activation))
    return out if residual is None else out.add_(residual)


def _block(kernel: int) -> int:
    """The next power of two from twice the kernel on: longer blocks would make more of the weights' lines,
    which a short utterance waits for."""
    return 1 << (2 * kernel - 1).bit_length()


def _spectrum(weight: Tensor) -> Tensor:
    """`weight`'s lines as matrices [lines, groups, members, members], conjugate for a sum over the inputs
    from an output's first on."""
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
    """A copy with each group's channels together, zeros between the utterances; then one launch, a GEMM whose
    rows are read where they lie."""
    _, members, kernel = weight.shape
    counts = [positional_length(end - start, kernel, stride) for start, end in spans(cu_tokens)]
    tokens, utterances = hidden.shape[0], len(counts)
    between = kernel - 1  # zeros before and behind an utterance; behind it an even kernel needs one fewer
    begin = cu_tokens[:-1] + between * torch.arange(utterances, dtype=torch.int32, device=hidden.device)
    places = window_starts(begin + kernel // 2, cu_tokens, tokens, 1)
    spread = hidden.new_zeros(groups, tokens + utterances * between, members)
    spread.index_copy_(1, places.long(), hidden.reshape(tokens, groups, members).transpose(0, 1))
    rows = sum(counts)
    first = window_starts(begin, cumulative(counts, hidden.device), rows, stride)
    flat = cached(_flat, weight).view(groups, members, kernel * members)
    return window_product(spread, first, flat, bias, activation=activation, residual=residual)


def _flat(weight: Tensor) -> Tensor:
    """A copy of `weight` as [C, kernel, members]: a window lies token after token."""
    return weight.detach().transpose(1, 2).clone(memory_format=torch.contiguous_format)
