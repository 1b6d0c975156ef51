"""Tunables of the scheduler and the runner."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunnerConfig:
    """Numbers that trade memory, latency and throughput; none of them changes a result.

    Args:
        ahead_on_gpu: steps that a GPU is given before the results of the first are waited for. While it works
            on them, Python reads the results of earlier ones and plans the next.
        default_cache_bytes: bound of a cache that `generate` sizes by itself: enough for some thousand
            seconds of audio in a small model.
        default_num_slots: bound of the hypotheses that `generate` decodes at once.
        max_chunk_tokens: encoder positions that one core encodes at a time. The inner half of a small
            model's layer takes 4 MB for 512, which stay in a core's cache.
        decode_cost: cost of a decode step for a request beside its encoder positions, in encoder positions;
            the cores' shares are balanced by it.
        max_recorded_steps: decode steps recorded as CUDA graphs. Each takes memory, and there is one for each
            set of options, which are the users'.
        switch_interval: seconds after which a thread of the CPU pool that waits for Python's interpreter asks
            for it; Python's own 5 ms made steps a tenth longer.
    """

    ahead_on_gpu: int = 2
    default_cache_bytes: int = 2 << 30
    default_num_slots: int = 256
    max_chunk_tokens: int = 512
    decode_cost: int = 600
    max_recorded_steps: int = 256
    switch_interval: float = 5e-4
