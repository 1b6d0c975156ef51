"""Philox 4x32-10 (Salmon et al., SC 2011): a counter-based random number generator.

A random number depends on its key and counter alone, not on other rows of a launch nor on the order of calls.
"""

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import kernel
from ..runtime.optional_triton import tl, triton

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF


def philox_uniform(seeds: Tensor, sequence_index: Tensor, steps: Tensor, count: int = 1) -> Tensor:
    """Uniform random numbers in (0, 1), 23 bits each, keyed by (seed, sequence, step, index).

    Args:
        seeds: int64 [rows], non-negative.
        sequence_index: int64 [rows], index among a request's returned sequences.
        steps: int [rows], position of the drawn token.
        count: number of random numbers for each row.

    Returns:
        float32 [rows, count].
    """
    return _philox_uniform(seeds, sequence_index, steps, count)


def philox_uniform_reference(seeds: Tensor, sequence_index: Tensor, steps: Tensor, count: int = 1) -> Tensor:
    """Reference implementation of `philox_uniform` in plain torch."""
    counter = (
        torch.arange(count, device=seeds.device)[None],
        steps.long()[:, None],
        sequence_index.long()[:, None],
        torch.zeros_like(seeds)[:, None],
    )
    words = philox_words(counter, ((seeds & _MASK)[:, None], ((seeds >> 32) & _MASK)[:, None]))
    return uniform_from_words(words[0])


def philox_words(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four random words for each counter and key, by ten rounds of the generator.

    Args:
        counter: four int64 tensors of 32-bit words, broadcast against each other and the key.
        key: two such tensors.

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
    """Uniform float32 numbers in (0, 1) from the upper 23 bits of 32-bit words.

    With 24 bits, half a step above the largest number would round to 1, whose Gumbel noise is infinite.
    """
    return ((words >> 9).float() + 0.5) * 2.0**-23


def _multiply(value: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a product of 32-bit integers, in int64 without overflow."""
    low_part = (value & 0xFFFF) * factor
    middle = (value >> 16) * factor + (low_part >> 16)
    return (middle >> 16) & _MASK, ((middle & 0xFFFF) << 16) | (low_part & 0xFFFF)


def philox_uniform_triton(seeds: Tensor, sequence_index: Tensor, steps: Tensor, count: int = 1) -> Tensor:
    """Uniform random numbers in one launch, bit for bit the reference's: integers until the last step."""
    out = torch.empty(seeds.shape[0], count, dtype=torch.float32, device=seeds.device)
    case = philox_kernel.case(seeds.device)
    grid = seeds.shape[0], case.block_count("BLOCK", count)
    case.launch(grid, *philox_keys(seeds, sequence_index, steps), out, count)
    return out


def philox_keys(seeds: Tensor, sequence_index: Tensor, steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Seeds and sequence indices as int64 [rows], and steps as int32, as kernels take them."""
    return seeds.long(), sequence_index.long(), steps.int()


_philox_uniform = Operation(philox_uniform_reference, triton=philox_uniform_triton)


@kernel()
def philox_kernel(
    seeds_ptr,  # [rows]
    sequence_index_ptr,  # [rows]
    steps_ptr,  # [rows]
    out_ptr,  # [rows, count]
    count: tl.int32,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    numbers = uniform(
        tl.load(seeds_ptr + row), tl.load(sequence_index_ptr + row), tl.load(steps_ptr + row), index
    )
    tl.store(out_ptr + row.to(tl.int64) * count + index, numbers, mask=index < count)


@triton.jit
def uniform(seed, sequence, step, index):
    """Uniform random numbers at int32 indices, float32 in (0, 1); int64 seed and sequence, int32 step."""
    nothing = tl.zeros_like(index)
    words = tl.philox(seed, index, nothing + step.to(tl.int32), nothing + sequence.to(tl.int32), nothing)[0]
    return ((words >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07


KEY_TYPES = {"seeds_ptr": torch.int64, "sequence_index_ptr": torch.int64, "steps_ptr": torch.int32}


philox_kernel.declare_all(pointers=KEY_TYPES, BLOCK=512)
