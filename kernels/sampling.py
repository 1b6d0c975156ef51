"""From scores over the vocabulary to tokens: log-softmax, warping, draws and beam candidates.

Draws come from Philox 4x32-10 (Salmon et al., SC 2011), a counter-based generator: a number depends on
its key and counter alone, not on which other rows share the launch nor on when it is asked for.
"""

import torch
from torch import Tensor

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF


def philox_uniform(seeds: Tensor, streams: Tensor, steps: Tensor, count: int = 1) -> Tensor:
    """Uniform numbers in (0, 1), 23 bits each, addressed by (seed, stream, step, index).

    Args:
        seeds: int64 [rows], non-negative: the key.
        streams: int64 [rows], such as the index among a request's returned sequences.
        steps: int64 [rows], the position being drawn.
        count: numbers for each row.

    Returns:
        float32 [rows, count].
    """
    counter = (
        torch.arange(count, device=seeds.device)[None],
        steps.long()[:, None],
        streams.long()[:, None],
        torch.zeros_like(seeds)[:, None],
    )
    words = philox_words(counter, ((seeds & _MASK)[:, None], ((seeds >> 32) & _MASK)[:, None]))
    return uniform_from_words(words[0])


def philox_words(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """The generator itself: four words for each counter and key.

    Args:
        counter: four int64 tensors of 32-bit words, broadcast against each other and the key.
        key: two of them.

    Returns:
        four int64 tensors of 32-bit words.
    """
    c0, c1, c2, c3 = counter
    key0, key1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, _M0)
        high1, low1 = _multiply(c2, _M1)
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0, key1 = (key0 + _W0) & _MASK, (key1 + _W1) & _MASK
    return c0, c1, c2, c3


def uniform_from_words(words: Tensor) -> Tensor:
    """32-bit words as float32 in (0, 1), by their upper 23 bits.

    Not 24: half a step above the largest 24-bit number rounds to 1 in float32, and the logarithm of its
    logarithm is infinite.
    """
    return ((words >> 9).float() + 0.5) * 2.0**-23


def _multiply(value: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a product of 32-bit numbers, in int64 without overflow."""
    low_part = (value & 0xFFFF) * factor
    middle = (value >> 16) * factor + (low_part >> 16)
    return (middle >> 16) & _MASK, ((middle & 0xFFFF) << 16) | (low_part & 0xFFFF)


def categorical(scores: Tensor, seeds: Tensor, streams: Tensor, steps: Tensor) -> Tensor:
    """One draw for each row from softmax(scores): the inverse of the cumulative distribution at one uniform.

    Args:
        scores: float32 [rows, vocabulary]; -inf is never drawn.
        seeds, streams, steps: int64 [rows], see `philox_uniform`.

    Returns:
        int64 [rows].
    """
    cumulated = scores.double().softmax(-1).cumsum(-1)
    uniform = philox_uniform(seeds, streams, steps).double() * cumulated[:, -1:]
    drawn = torch.searchsorted(cumulated, uniform, right=True)
    # Rounding may not carry the search past the last token that can be drawn.
    places = torch.arange(scores.shape[1], device=scores.device)
    last = torch.where(scores > float("-inf"), places, 0).amax(-1)
    return torch.minimum(drawn[:, 0], last)


def top_candidates(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row, in descending order; equal ones by the lowest index.

    torch.topk promises no order among equal values, so a tie at the border is settled by a stable sort.

    Args:
        scores: float32 [rows, n], count <= n.

    Returns:
        values [rows, count] and indices int64 [rows, count].
    """
    values, indices = scores.topk(count, dim=-1)
    border = values[:, -1:]
    ambiguous = (scores >= border).sum(-1) > count
    if bool(ambiguous.any()):
        rows = ambiguous.nonzero()[:, 0]
        sorted_values, order = scores[rows].sort(dim=-1, descending=True, stable=True)
        values[rows], indices[rows] = sorted_values[:, :count], order[:, :count]
    indices, by_index = indices.sort(dim=-1)
    values, by_value = values.gather(-1, by_index).sort(dim=-1, descending=True, stable=True)
    return values, indices.gather(-1, by_value)


def draw_candidates(
    scores: Tensor, count: int, seeds: Tensor, streams: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor]:
    """`count` draws without replacement from each row's softmax, by the Gumbel-top-k trick.

    Args:
        scores: float32 [rows, n].
        count: draws for each row.
        seeds, streams, steps: int64 [rows], see `philox_uniform`.

    Returns:
        their scores [rows, count] and indices int64 [rows, count], in the order drawn.
    """
    uniform = philox_uniform(seeds, streams, steps, scores.shape[1])
    _, indices = top_candidates(scores - (-uniform.log()).log(), count)
    return scores.gather(-1, indices), indices


def warp(
    scores: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, keep: int = 1
) -> Tensor:
    """Temperature, then top-k, then top-p, as transformers orders them.

    Args:
        scores: float32 [rows, vocabulary].
        temperature: divides the scores.
        top_k: scores below the k-th largest become -inf; 0 keeps all.
        top_p: the least likely tokens that together have at most 1 - top_p become -inf; 1 keeps all.
        keep: tokens that always stay.

    Returns:
        [rows, vocabulary].
    """
    if temperature != 1.0:
        scores = scores / temperature
    if top_k:
        border = scores.topk(min(max(top_k, keep), scores.shape[1]), dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < border, float("-inf"))
    if top_p < 1.0:
        ascending, order = scores.sort(dim=-1, stable=True)
        removed = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        removed[:, -keep:] = False
        scores = scores.masked_fill(removed.scatter(-1, order, removed), float("-inf"))
    return scores


def penalise_repetition(scores: Tensor, tokens: Tensor, lengths: Tensor, penalty: float) -> Tensor:
    """Scores of tokens already there, divided by `penalty` where positive and multiplied where negative.

    Args:
        scores: float32 [rows, vocabulary].
        tokens: int [rows, longest].
        lengths: int [rows], how many of them are there, at least 1.
    """
    places = torch.arange(tokens.shape[1], device=tokens.device)[None]
    seen = torch.where(places < lengths[:, None], tokens, tokens[:, :1]).long()
    old = scores.gather(-1, seen)
    return scores.scatter(-1, seen, torch.where(old < 0, old * penalty, old / penalty))


def ban_repeated_ngrams(scores: Tensor, tokens: Tensor, lengths: Tensor, size: int) -> Tensor:
    """-inf for every token that would complete an n-gram of `size` tokens that is already there.

    Args:
        scores: float32 [rows, vocabulary].
        tokens: int [rows, longest].
        lengths: int [rows].
    """
    longest = tokens.shape[1]
    if longest < size:
        return scores
    windows = tokens.unfold(1, size, 1).long()  # [rows, starts, size]
    offsets = lengths.long()[:, None] - (size - 1) + torch.arange(size - 1, device=tokens.device)[None]
    recent = tokens.gather(1, offsets.clamp(min=0)).long()  # the last size - 1 tokens
    starts = torch.arange(windows.shape[1], device=tokens.device)[None]
    inside = starts + size <= lengths[:, None]
    repeated = (
        (windows[:, :, : size - 1] == recent[:, None]).all(-1) & inside & (lengths[:, None] >= size - 1)
    )
    banned = torch.zeros_like(scores, dtype=torch.int32).scatter_add_(-1, windows[:, :, -1], repeated.int())
    return scores.masked_fill(banned > 0, float("-inf"))


def ban_sequence(scores: Tensor, tokens: Tensor, lengths: Tensor, sequence: tuple[int, ...]) -> Tensor:
    """-inf for the last token of `sequence` in the rows that end with all of it but that.

    As transformers 5.23 does, the start token counts: a word may begin with it.
    """
    *prefix, last = sequence
    if not prefix:
        ends = torch.ones_like(lengths, dtype=torch.bool)
    else:
        offsets = (
            lengths.long()[:, None] - len(prefix) + torch.arange(len(prefix), device=tokens.device)[None]
        )
        recent = tokens.gather(1, offsets.clamp(min=0)).long()
        wanted = torch.tensor(prefix, device=tokens.device)[None]
        ends = (recent == wanted).all(-1) & (lengths >= len(prefix))
    scores = scores.clone()
    scores[:, last] = scores[:, last].masked_fill(ends, float("-inf"))
    return scores
