"""Size of the KV cache on a GPU: free memory minus the measured peak of encoding and decoding."""

import gc
from typing import Any

import torch

from ...kernels.attention.kv_cache import PAGE_SIZE
from ...scheduler.inputs import pack_inputs
from ...scheduler.request import Request
from ..config import DEFAULT_MEMORY_FRACTION, EngineConfig
from .warm_up import noise

# The longest recording is encoded to measure it up to so many budgets; beyond, its memory is extrapolated.
_MAX_MEASURED_BUDGETS = 4


def fitting_pages(model: Any, front_end: Any, max_seconds: float, num_rows: int, config: EngineConfig) -> int:
    """Pages that fit beside everything else that an engine needs.

    Args:
        model: on its GPU.
        front_end: its feature extractor.
        max_seconds: of the longest recording.
        num_rows: hypotheses decoded at once.
        config: the share of the free memory, the reserve and the budget of encoding.
    """
    layers, heads, head_dim = model.cache_shape
    page_bytes = 2 * layers * heads * head_dim * PAGE_SIZE * model.dtype.itemsize
    encoding = encoding_bytes(model, front_end, max_seconds, config.encode_budget, config.usual_seconds)
    free, _ = torch.cuda.mem_get_info(model.device)
    decoding = decoding_bytes(num_rows, model.config.get_text_config().vocab_size, model.max_length)
    decoding += config.reserved_gpu_bytes
    fraction = config.memory_fraction or DEFAULT_MEMORY_FRACTION
    return pages_in(free, fraction, page_bytes, encoding=encoding, decoding=decoding)


def pages_in(free: int, fraction: float, page_bytes: int, *, encoding: int, decoding: int) -> int:
    """Pages in a fraction of `free` bytes minus the peak of encoding and decoding.

    At least a quarter of that fraction: encoding that runs out of memory only makes the batches smaller.
    """
    usable = int(free * fraction)
    return max(usable - encoding - decoding, usable // 4) // page_bytes


def decoding_bytes(num_rows: int, vocab_size: int, max_length: int) -> int:
    """Upper bound of the memory of decode steps, in bytes.

    For each row scores in a few forms and tables of tokens; twice, as CUDA graphs have memory of their own.
    """
    return 2 * num_rows * (24 * vocab_size + 24 * max_length)


def encoding_bytes(
    model: Any, front_end: Any, max_seconds: float, budget: int, usual_seconds: float = 20.0
) -> int:
    """Peak memory of encoding the largest batch, in bytes: a whole budget, or the longest recording.

    Measured on a batch of noise; halved until it fits, and extrapolated from there in proportion.
    """
    rate = front_end.sampling_rate

    def positions(seconds: float) -> int:
        return int(model.encoder_length(front_end.frame_count(int(seconds * rate))))

    longest = positions(max_seconds)
    if budget < longest <= _MAX_MEASURED_BUDGETS * budget:
        lengths = [max_seconds]
    else:
        usual = min(max_seconds, usual_seconds)
        lengths = [usual] * -(-budget // positions(usual))
    while True:
        peak = _peak_of_encoding(model, front_end, [int(seconds * rate) for seconds in lengths])
        if peak is not None or len(lengths) == 1:
            break
        lengths = lengths[: len(lengths) // 2]
    measured = sum(map(positions, lengths))
    free, _ = torch.cuda.mem_get_info(model.device)
    return free if peak is None else int(peak * max(longest, budget, measured) / measured)


@torch.inference_mode()
def _peak_of_encoding(model: Any, front_end: Any, lengths: list[int]) -> int | None:
    """Peak memory of encoding noise of so many samples each, in bytes; None where memory runs out."""
    device = model.device
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    requests = [Request(index, noise(samples)) for index, samples in enumerate(lengths)]
    try:
        encoded, _ = model.encode(*pack_inputs(requests, front_end, device))
        key_values = model.cross_key_values(encoded)
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_reserved(device) - before
        del encoded, key_values
    except torch.OutOfMemoryError:
        peak = None
    torch.cuda.empty_cache()
    return peak
