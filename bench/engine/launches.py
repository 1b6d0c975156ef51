"""Host time of an operation's launches, on GPUs that take no time (`bench.fake_gpu`).

Sizes are small, since host time does not depend on them. Times are the thread's own, medians of rounds of
calls.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..common.output import markdown

HEADS, HEAD_DIM, WIDTH, ROWS, VOCABULARY, PAGE = 4, 64, 256, 48, 512, 16


@dataclass(frozen=True, slots=True)
class Launches:
    """Host time of one call of an operation, in microseconds."""

    operation: str
    launches: int
    total: float
    launching: float  # part of the total in `Case.launch`: checks, and Triton's launcher
    driver: float | None  # part of that in Triton's launcher; None where it is not called directly

    @property
    def per_launch(self) -> float:
        return self.total / self.launches


def measure_launches(rounds: int = 60, calls: int = 100) -> list[Launches]:
    """Host time of each operation of `operations`.

    Args:
        rounds: the result is the median of so many.
        calls: calls in a round.
    """
    with torch.inference_mode():
        return [_measure(name, call, rounds, calls) for name, call in operations().items()]


def table(measured: list[Launches]) -> str:
    """Markdown table of the measurements."""
    rows = [
        [
            one.operation,
            str(one.launches),
            f"{one.total:.1f}",
            f"{one.total - one.launching:.1f}",
            f"{one.launching if one.driver is None else one.launching - one.driver:.1f}",
            "" if one.driver is None else f"{one.driver:.1f}",
            f"{one.per_launch:.1f}",
        ]
        for one in measured
    ]
    head = ["operation", "launches", "total, µs", "dispatch and outputs", "check", "launcher", "µs a launch"]
    return markdown(head, rows, padded=True)


def operations() -> dict[str, Callable[[], object]]:
    """Operations of a decode step and of an encoder, in half precision, on the fake GPU."""
    from tritone.kernels.attention.flash import flash_attention
    from tritone.kernels.attention.kv_cache import store
    from tritone.kernels.attention.paged.reference import paged_attention
    from tritone.kernels.embedding import embedding
    from tritone.kernels.linear.gemm import linear
    from tritone.kernels.norm.layer_norm import layer_norm
    from tritone.kernels.runtime.packing import cumulative
    from tritone.kernels.sampling.candidates import top_candidates
    from tritone.kernels.sampling.draw import draw, greedy
    from tritone.kernels.sampling.softmax import log_softmax
    from tritone.kernels.sampling.warping import warp

    device = torch.device("cuda", 0)

    def ones(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
        return torch.ones(shape, dtype=dtype, device=device)

    hidden, weight, bias = ones(ROWS, WIDTH), ones(WIDTH, WIDTH), ones(WIDTH)
    heads = ones(ROWS, HEADS, HEAD_DIM)
    pages = ones(ROWS * 2, PAGE, HEADS, HEAD_DIM)
    cu_rows = cumulative([1] * ROWS, device)
    cu_tokens = cumulative([ROWS // 2, ROWS - ROWS // 2], device)
    tables = ones(ROWS, 2, dtype=torch.int32)
    lengths, slots = ones(ROWS, dtype=torch.int32), ones(ROWS, dtype=torch.int64)
    logits, scores = ones(ROWS, VOCABULARY), ones(ROWS, VOCABULARY, dtype=torch.float32)
    running = ones(ROWS, dtype=torch.float32)
    embeddings = ones(VOCABULARY, WIDTH)
    scale = HEAD_DIM**-0.5
    return {
        "linear": lambda: linear(hidden, weight, bias, phase="decode"),
        "linear, GELU and residual": lambda: linear(
            hidden, weight, bias, activation="gelu", residual=hidden, phase="decode"
        ),
        "layer norm": lambda: layer_norm(hidden, bias, bias),
        "layer norm, residual": lambda: layer_norm(hidden, bias, bias, residual=hidden),
        "flash attention": lambda: flash_attention(heads, heads, heads, cu_tokens, cu_tokens),
        "paged attention": lambda: paged_attention(
            heads, pages, pages, tables, lengths, cu_rows, scale=scale
        ),
        "page store": lambda: store(pages, pages, heads, heads, slots),
        "embedding": lambda: embedding(slots, slots, embeddings, embeddings, 16.0),
        "greedy": lambda: greedy(logits),
        "log softmax": lambda: log_softmax(logits),
        "warp": lambda: warp(scores, temperature=0.7, top_k=5, top_p=0.9),
        "draw": lambda: draw(logits, scores, slots, slots, slots),
        "top candidates": lambda: top_candidates(logits, 4, running=running),
    }


def _measure(name: str, call: Callable[[], object], rounds: int, calls: int) -> Launches:
    from tritone.kernels.runtime import launch

    call()  # compiles
    launched: list[tuple[Any, tuple[int, ...], tuple[Any, ...]]] = []
    ordinary = launch.Case.launch

    def record(case: Any, grid: tuple[int, ...], *arguments: Any) -> None:
        launched.append((case, grid, arguments))
        ordinary(case, grid, *arguments)

    launch.Case.launch = record  # type: ignore[method-assign]
    try:
        call()
    finally:
        launch.Case.launch = ordinary  # type: ignore[method-assign]
    launching = sum(
        _median(partial(case.launch, grid, *arguments), rounds, calls) for case, grid, arguments in launched
    )
    drivers = [_driver(*one) for one in launched]
    driver = None if None in drivers else sum(_median(run, rounds, calls) for run in drivers if run)
    return Launches(name, len(launched), _median(call, rounds, calls), launching, driver)


def _driver(case: Any, grid: tuple[int, ...], arguments: tuple[Any, ...]) -> Callable[[], object] | None:
    """Triton's launcher with the arguments of a launch."""
    direct = getattr(case, "_direct", {}).get(0)
    if direct is None:
        return None
    known = direct.__globals__
    plain = [value.data_ptr() if isinstance(value, torch.Tensor) else value or 0 for value in arguments]
    call = (*(*grid, 1, 1)[:3], 0, known["function"], known["metadata"], None, None, None, *plain)
    return lambda: known["run"](*call, *known["constants"])


def _median(call: Callable[[], object], rounds: int, calls: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        for _ in range(calls):
            call()
        times.append((time.thread_time() - start) / calls * 1e6)
    return statistics.median(times)
