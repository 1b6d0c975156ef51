"""How much of a GPU's memory the cache gets: what all else does not need, which is measured."""

import gc
from typing import Any

import torch

from ...kernels.attention.kv_cache import PAGE_SIZE
from ...scheduler.inputs import pack_inputs
from ...scheduler.request import Request
from .warm_up import noise

FRACTION = 0.9  # of the free memory, where nobody says
# For recorded steps, and for what a runtime takes that nobody counts.
_RESERVE = 1 << 29
# Recordings longer than so many steps' worth of encoder positions are not encoded for the sake of measuring:
# what they take is reckoned from those that are.
_MOST_MEASURED = 4


def fitting_pages(
    model: Any, front_end: Any, max_seconds: float, *, rows: int, fraction: float, budget: int
) -> int:
    """Pages that a GPU has room for beside all else that an engine needs.

    Args:
        model: on its GPU.
        front_end: its feature extractor.
        max_seconds: of the longest recording.
        rows: hypotheses decoded at once.
        fraction: of the memory that is free now which may be used.
        budget: encoder positions of a step.
    """
    layers, heads, head_dim = model.cache_shape
    page_bytes = 2 * layers * heads * head_dim * PAGE_SIZE * model.dtype.itemsize
    encoding = encoding_bytes(model, front_end, max_seconds, budget)
    free, _ = torch.cuda.mem_get_info(model.device)
    decoding = decoding_bytes(rows, model.config.get_text_config().vocab_size, model.max_length)
    return pages_in(free, fraction, page_bytes, encoding=encoding, decoding=decoding)


def pages_in(free: int, fraction: float, page_bytes: int, *, encoding: int, decoding: int) -> int:
    """Pages in a fraction of `free` bytes without what encoding and decoding take; in a quarter of that
    fraction at least, since memory that runs out while encoding only makes the batches smaller."""
    usable = int(free * fraction)
    return max(usable - encoding - decoding, usable // 4) // page_bytes


def decoding_bytes(rows: int, vocabulary: int, max_length: int) -> int:
    """What decode steps take at most, reckoned: scores in a few forms, tables of tokens, for each row; the
    same again for recorded steps, which have memory of their own."""
    return 2 * rows * (24 * vocabulary + 24 * max_length) + _RESERVE


def encoding_bytes(model: Any, front_end: Any, max_seconds: float, budget: int) -> int:
    """What the largest batch takes that is encoded at once: a whole budget, or the longest recording.

    Measured by encoding it, or what of it fits; what does not is reckoned in proportion.
    """
    rate = front_end.sampling_rate

    def positions(seconds: float) -> int:
        return int(model.encoder_length(front_end.frame_count(int(seconds * rate))))

    longest = positions(max_seconds)
    if budget < longest <= _MOST_MEASURED * budget:
        lengths = [max_seconds]
    else:
        usual = min(max_seconds, 20.0)
        lengths = [usual] * -(-budget // positions(usual))
    while True:
        taken = _encoded(model, front_end, [int(seconds * rate) for seconds in lengths])
        if taken is not None or len(lengths) == 1:
            break
        lengths = lengths[: len(lengths) // 2]
    measured = sum(map(positions, lengths))
    free, _ = torch.cuda.mem_get_info(model.device)
    return free if taken is None else int(taken * max(longest, budget, measured) / measured)


@torch.inference_mode()
def _encoded(model: Any, front_end: Any, lengths: list[int]) -> int | None:
    """Bytes that encoding noise, of so many samples each, takes at its peak; None where they run out."""
    device = model.device
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    requests = [Request(index, noise(samples)) for index, samples in enumerate(lengths)]
    try:
        encoded, _ = model.encode(*pack_inputs(requests, front_end, device))
        kept = model.cross_key_values(encoded)
        torch.cuda.synchronize(device)
        taken = torch.cuda.max_memory_reserved(device) - before
        del encoded, kept
    except torch.OutOfMemoryError:
        taken = None
    torch.cuda.empty_cache()
    return taken
