"""Settings of the model runner."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunnerConfig:
    """Settings of the model runner for memory, latency and throughput; none of them changes a result."""

    # Steps launched on a GPU before Python waits for the results of the first: meanwhile it reads earlier
    # results and plans the next step.
    ahead_on_gpu: int = 2
    # Steps from one admission to the next on a GPU, once pages or slots have run out. An encoder's call takes
    # Python as long for 100 recordings as for 20; meanwhile the slots of those that ended, of 1,024 some 25 a
    # step, are idle.
    admit_every_on_gpu: int = 4
    # Limits of the cache size and hypotheses that `generate` chooses by itself. The cache holds some thousand
    # seconds of audio in a small model.
    default_cache_bytes: int = 2 << 30
    default_num_slots: int = 256
    # Encoder positions that one core encodes at a time. For 512, the feed-forward activations of a small
    # model take 4 MB, which stay in a core's cache.
    max_chunk_tokens: int = 512
    # Prompt positions that a GPU decodes at a time when requests join.
    max_prefill_on_gpu: int = 4096
    # Cost of a request's decode step without cross-attention, in encoder positions; balances the cores.
    decode_cost: int = 600
    max_recorded_steps: int = 256  # CUDA graphs: each takes memory, and users' options make new ones
    # Seconds after which a waiting thread of the CPU pool requests the interpreter lock; Python's default of
    # 5 ms made steps a tenth longer.
    switch_interval: float = 5e-4
    # Decode steps during which smaller batches are decoded after memory ran out. Then larger ones are tried
    # again: other programs may have freed some, and a failed attempt takes about as long as a step.
    limited_steps: int = 256
    # Consecutive steps that may fail as a whole, each with all running requests, before the loop fails.
    max_failed_steps: int = 3
