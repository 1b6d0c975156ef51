"""Times of a window's tokens: dynamic time warping over the cross-attention of alignment heads.

As openai-whisper and transformers 5.23 define them: the decoder reads the window's tokens once more, the
weights of the alignment heads are normalized over tokens, smoothed by a median over frames and averaged, and
the monotonic path of the largest sum through them gives each token its frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.attention.head_weights import head_weights
from ...kernels.runtime.packing import cumulative
from ..core.attention import PackedAttention, StackAttention
from ..core.layers import all_key_values, run_layers
from .windows import TIME_SECONDS

_ROWS = 64  # tokens whose probabilities are computed at once
_DIAGONAL, _DOWN, _RIGHT = range(3)  # steps to a cell: of both a token and a frame, a token, a frame

Heads = Sequence[tuple[int, int]]  # pairs of a layer's number and a head's, from 0


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """Times of a window's tokens.

    Attributes:
        seconds: when the model has done with each token, from the window's beginning; they never fall.
        probabilities: of each token among those of text, 0 for one that is no text; empty if not asked for.
    """

    seconds: tuple[float, ...]
    probabilities: tuple[float, ...] = ()


class _WeighedAttention(PackedAttention):
    """Attention of a teacher-forced pass that keeps the cross-attention weights of named heads.

    Attributes:
        weights: for each layer that has such heads, float32 [its heads, tokens, encoder positions].
    """

    def __init__(
        self, own: StackAttention, cross: StackAttention, keys: list[tuple[Tensor, Tensor]], heads: Heads
    ) -> None:
        super().__init__(own, cross, keys)
        self.heads = {layer: [head for other, head in heads if other == layer] for layer, _ in heads}
        self.weights: dict[int, Tensor] = {}

    def cross_attention(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Cross-attention as ever, after the weights of the layer's named heads."""
        if layer in self.heads:
            assert self.cross_key_values is not None
            key, numbers = self.cross_key_values[layer][0], self.heads[layer]
            offsets = self.cross.cu_query, self.cross.cu_key
            self.weights[layer] = head_weights(query, key, *offsets, numbers, key.shape[0], scale=scale)
        return super().cross_attention(layer, query, scale)


@torch.inference_mode()
def token_times(
    model: Any,
    encoded: Tensor,
    prompt: Sequence[int],
    tokens: Sequence[int],
    heads: Heads,
    *,
    frames: int | None = None,
    text_tokens: int | None = None,
    from_prompt: bool = False,
) -> TokenTimes:
    """Times of a window's tokens, and their probabilities.

    A word goes from the time of the token before its
    first to that of its last.

    Args:
        model: `WhisperForConditionalGeneration`.
        encoded: encoder output of the window, [positions, d_model].
        prompt: tokens before the first generated one.
        tokens: generated tokens; the last has the time of the one before it, as in transformers.
        heads: alignment heads, each a layer and a head.
        frames: number of frames that are of the recording; None for all.
        text_tokens: number of token ids of text, which come first, for probabilities among these; None for
            no probabilities, which takes fewer layers.

        from_prompt: weigh the prompt's last token too, as openai's word times do and transformers does not:
            the path's beginning, at 0, is then that token's time, and the first one's is its own.

    Raises:
        ValueError: a head that the model does not have.
    """
    check_heads(heads, model.config.decoder_layers, model.config.decoder_attention_heads)
    if not tokens:
        return TokenTimes(())
    ids = torch.tensor([*prompt, *tokens[:-1]], device=encoded.device)
    weights, hidden = _teacher_forced(model.model.decoder, ids, encoded, heads, text_tokens is None)
    weights = weights[:, len(prompt) - from_prompt :]
    if frames is not None:
        weights = weights[:, :, : max(frames // 2, 0)]
    times = _times(weights, model.config.median_filter_width)[from_prompt:]
    times += times[-1:] or [0.0]
    if text_tokens is None:
        return TokenTimes(tuple(times))
    wanted = torch.tensor(tokens, device=hidden.device)
    found = list[Tensor]()
    # In parts, since those of a window of 448 tokens take 360 MB.
    for part, own in zip(hidden[len(prompt) - 1 :].split(_ROWS), wanted.split(_ROWS), strict=True):
        scores = model.logits(part)[:, :text_tokens].float().softmax(-1)
        found.append(scores.gather(1, own.clamp(max=text_tokens - 1)[:, None])[:, 0])
    probabilities = torch.cat(found).where(wanted < text_tokens, 0.0)
    return TokenTimes(tuple(times), tuple(probabilities.tolist()))


def check_heads(heads: Heads, layers: int, heads_of_layer: int) -> None:
    """Check that there are alignment heads, and that the model has them.

    Raises:
        ValueError: no heads, or one that there is not.
    """
    known = [(layer, head) for layer in range(layers) for head in range(heads_of_layer)]
    unknown = [pair for pair in heads if pair not in known]
    if unknown or not heads:
        raise ValueError(
            f"alignment_heads {list(heads)} must be pairs of one of {layers} layers and one of "
            f"{heads_of_layer} heads; correct them in generation_config.json"
        )


def _teacher_forced(
    decoder: Any, ids: Tensor, encoded: Tensor, heads: Heads, only_weights: bool
) -> tuple[Tensor, Tensor]:
    """Weights [heads, tokens, positions] of one sequence in the order of `heads`, and hidden states.

    Args:
        only_weights: stop after the last layer with such a head; hidden states then mean nothing.
    """
    layers, norm = decoder.layer_stack, decoder.final_norm
    if only_weights:
        layers, norm = layers[: max(layer for layer, _ in heads) + 1], None
    cu_tokens = cumulative([len(ids)], ids.device)
    cu_source = cumulative([len(encoded)], ids.device)
    attention = _WeighedAttention(
        decoder.packed_attention(cu_tokens, cu_tokens),
        StackAttention(cu_tokens, cu_source),
        all_key_values([layer.cross for layer in layers], encoded),
        heads,
    )
    embedded = decoder.embed(ids, decoder.positions.of_sequences(ids, cu_tokens))
    hidden = run_layers(layers, norm, embedded, attention, 0.0)
    taken = dict.fromkeys(attention.weights, 0)
    rows = []
    for layer, _ in heads:
        rows.append(attention.weights[layer][taken[layer]])
        taken[layer] += 1
    return torch.stack(rows), hidden


def _times(weights: Tensor, width: int) -> list[float]:
    """Times at which the tokens of weights [heads, tokens, positions] begin, in seconds."""
    if not weights.shape[1] or not weights.shape[2]:
        return [0.0] * weights.shape[1]
    deviation = weights.std(1, keepdim=True, unbiased=False)
    # A frame that all tokens weigh alike, such as a lone token's, tells nothing; transformers has NaN there.
    normalized = ((weights - weights.mean(1, keepdim=True)) / deviation).where(deviation > 0, 0.0)
    mean = median_filter(normalized, width).mean(0)
    rows, columns = warping_path(-mean.cpu().double().numpy())
    begins = np.diff(rows, prepend=-1) > 0
    return [float(column) * TIME_SECONDS for column in columns[begins]]


def median_filter(rows: Tensor, width: int) -> Tensor:
    """Median of the `width` values around each, mirrored at both ends, along the last dimension.

    Args:
        rows: [rows, tokens, positions]; returned as they are if shorter than half a width.
        width: odd number of values.

    Raises:
        ValueError: an even width.
    """
    if width % 2 == 0:
        raise ValueError(f"median_filter_width must be odd, got {width}")
    half = width // 2
    if rows.shape[-1] <= half:
        return rows
    mirrored = F.pad(rows, (half, half), mode="reflect")
    return mirrored.unfold(-1, width, 1).sort()[0][..., half]


def warping_path(costs: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Monotonic path of the least sum from the first to the last cell of a matrix, by dynamic time warping.

    Cells of one antidiagonal do not depend on each other and are computed at once. Sums are rounded to
    float32 at each step, and ties go to the right, then down, as in transformers, so that the path is the
    same.

    Args:
        costs: [rows, columns], at least one of each.

    Returns:
        Row and column of each cell of the path.
    """
    rows, columns = costs.shape
    steps = np.empty((rows + columns + 1, rows + 1), dtype=np.int8)  # by antidiagonal and row, both from 1
    before, latest = _unreached(rows), _unreached(rows)  # sums of the last two antidiagonals, by row
    before[0] = 0.0
    skewed = np.zeros((rows + columns + 1, rows), dtype=costs.dtype)
    for row in range(rows):
        skewed[row + 2 : row + 2 + columns, row] = costs[row]
    for diagonal in range(2, rows + columns + 1):
        first, stop = max(1, diagonal - columns), min(rows, diagonal - 1) + 1
        both, down, right = before[first - 1 : stop - 1], latest[first - 1 : stop - 1], latest[first:stop]
        is_both, is_down = (both < down) & (both < right), (down < both) & (down < right)
        steps[diagonal, first:stop] = np.where(is_both, _DIAGONAL, np.where(is_down, _DOWN, _RIGHT))
        least = np.where(is_both, both, np.where(is_down, down, right))
        before, latest = latest, _unreached(rows)
        latest[first:stop] = skewed[diagonal, first - 1 : stop - 1] + least
    return _traced(steps, rows, columns)


def _unreached(rows: int) -> npt.NDArray[np.float32]:
    return np.full(rows + 1, np.inf, dtype=np.float32)


def _traced(
    steps: npt.NDArray[np.int8], row: int, column: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Path that ends in a cell, both counted from 1, by the step that leads to each cell."""
    path = []
    while row > 0 or column > 0:
        path.append((row - 1, column - 1))
        step = _RIGHT if row == 0 else _DOWN if column == 0 else steps[row + column, row]
        row -= step != _RIGHT
        column -= step != _DOWN
    cells = np.array(path[::-1], dtype=np.int64)
    return cells[:, 0], cells[:, 1]
