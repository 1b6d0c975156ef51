"""Sizes of an engine on a GPU, from its multiprocessors and memory: encode budget, rows, and cache pages.

The cache gets the free memory minus the measured peak of encoding and decoding.
"""

import gc
from dataclasses import dataclass
from typing import Any

import torch

from ...kernels.attention.kv_cache import PAGE_SIZE
from ...scheduler.inputs import pack_inputs
from ...scheduler.model_protocol import generates
from ...scheduler.request import Request
from ..config import DEFAULT_MEMORY_FRACTION, EngineConfig
from .warm_up import noise

# The longest recording is measured if it has at most this many budgets of positions, else extrapolated.
_MAX_MEASURED_BUDGETS = 4


@dataclass(frozen=True, slots=True)
class EncodeSize:
    """Encoder positions of a step, and the peak memory of encoding them, in bytes."""

    budget: int
    peak: int


def encode_size(
    model: Any, front_end: Any, max_seconds: float, budget: int | None, config: EngineConfig
) -> EncodeSize:
    """Encode budget of a model on its GPU, and the memory that it takes.

    By default the positions that fill all multiprocessors, or fewer where those take more than `gpu_share` of
    the free memory.

    Args:
        model: model on its GPU.
        front_end: feature extractor of the model.
        max_seconds: duration of the longest accepted recording.
        budget: budget to take in place of the default.
        config: configuration with `positions_per_multiprocessor`, `gpu_share` and `usual_seconds`.
    """
    free, _ = torch.cuda.mem_get_info(model.device)
    chosen = budget or filling_budget(model.device, config)
    peak = encoding_bytes(model, front_end, max_seconds, chosen, config.usual_seconds)
    share = config.gpu_share * free
    if budget is not None or peak <= share:
        return EncodeSize(chosen, peak)
    smaller = max(int(chosen * share / peak), 1)
    longest = model.encoder_length(front_end.frame_count(int(max_seconds * front_end.sampling_rate)))
    return EncodeSize(smaller, peak * max(smaller, longest) // max(chosen, longest))


def filling_budget(device: torch.device, config: EngineConfig) -> int:
    """Encoder positions that fill all multiprocessors of a GPU."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return int(processors * config.positions_per_multiprocessor)


def fitting_rows(model: Any, config: EngineConfig) -> int:
    """Number of hypotheses to decode at once on a GPU: `rows_on_gpu`, or as many as `gpu_share` holds."""
    free, _ = torch.cuda.mem_get_info(model.device)
    one = decoding_bytes(1, model.config.get_text_config().vocab_size, model.max_length)
    return max(min(config.rows_on_gpu, int(config.gpu_share * free) // one), 1)


def fitting_pages(model: Any, num_rows: int, encoding: int, config: EngineConfig, kept_width: int = 0) -> int:
    """Number of key-value cache pages that fit in GPU memory beside encoding and decoding.

    Args:
        model: generative model, loaded on its GPU.
        num_rows: maximum number of hypotheses decoded at once.
        encoding: peak memory of encoding in bytes, of `encode_size`.
        config: configuration with the fraction of free memory and the reserve.
        kept_width: width of encoder outputs that requests keep beside their pages; 0 where none are kept.
    """
    layers, heads, head_dim = model.cache_shape
    # A request that keeps its encoder output has a page for every PAGE_SIZE positions of it, and more.
    page_bytes = (2 * layers * heads * head_dim + kept_width) * PAGE_SIZE * model.dtype.itemsize
    free, _ = torch.cuda.mem_get_info(model.device)
    decoding = decoding_bytes(num_rows, model.config.get_text_config().vocab_size, model.max_length)
    decoding += config.reserved_gpu_bytes
    fraction = config.memory_fraction or DEFAULT_MEMORY_FRACTION
    return pages_in(free, fraction, page_bytes, encoding=encoding, decoding=decoding)


def pages_in(free: int, fraction: float, page_bytes: int, *, encoding: int, decoding: int) -> int:
    """Number of cache pages that fit in a fraction of `free` bytes, minus the peak of encoding and decoding.

    Pages get at least a quarter of that fraction: encoding that runs out of memory makes batches smaller.
    """
    usable = int(free * fraction)
    return max(usable - encoding - decoding, usable // 4) // page_bytes


def decoding_bytes(num_rows: int, vocab_size: int, max_length: int) -> int:
    """Upper bound of the memory of decode steps, in bytes.

    Each row holds its scores in a few forms and token tables; doubled, as CUDA graphs have their own memory.
    """
    return 2 * num_rows * (24 * vocab_size + 24 * max_length)


def encoding_bytes(
    model: Any, front_end: Any, max_seconds: float, budget: int, usual_seconds: float = 20.0
) -> int:
    """Peak memory in bytes of encoding the largest batch: a full budget, or the longest recording.

    Measured on a batch of noise, which is halved until it fits; the peak is then scaled to the full size.
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
    """Peak memory in bytes of encoding noise with these lengths in samples; None where memory runs out."""
    device = model.device
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    requests = [Request(index, noise(samples)) for index, samples in enumerate(lengths)]
    try:
        with torch.cuda.device(device):
            inputs = pack_inputs(requests, front_end, device, model.dtype)
            if generates(model):
                encoded: Any = model.encode(*inputs)
                results: Any = model.cross_key_values(encoded[0])
            else:
                encoded, results = None, model.predict(*inputs)
            torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_reserved(device) - before
        del inputs, encoded, results
    except torch.OutOfMemoryError:
        peak = None
    torch.cuda.empty_cache()
    return peak
