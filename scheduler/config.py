"""Tunables of the scheduler and the runner."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunnerConfig:
    """Numbers that trade memory, latency and throughput; none of them changes a result."""

    # Steps that a GPU is given before the results of the first are waited for: Python reads earlier results
    # and plans the next step meanwhile.
    ahead_on_gpu: int = 2
    # Bounds of what `generate` sizes by itself: a cache for some thousand seconds of audio in a small model,
    # and the hypotheses decoded at once.
    default_cache_bytes: int = 2 << 30
    default_num_slots: int = 256
    # Encoder positions that one core encodes at a time. The inner half of a small model's layer takes 4 MB
    # for 512, which stay in a core's cache.
    max_chunk_tokens: int = 512
    decode_cost: int = 600  # of a request's step beside its encoder positions, in those; balances the cores
    max_recorded_steps: int = 256  # CUDA graphs: each takes memory, and users' options make new ones
    # Seconds after which a thread of the CPU pool asks for Python's interpreter; Python's own 5 ms made steps
    # a tenth longer.
    switch_interval: float = 5e-4
