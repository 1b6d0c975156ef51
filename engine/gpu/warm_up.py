"""Warm-up on a GPU: run every kernel on noise, so that none is compiled once the engine is ready."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...kernels.runtime.compile_ahead import cases_for, compile_ahead
from ...kernels.runtime.launch import architecture_of
from ...scheduler.loop import GenerationLoop
from ...scheduler.request import GenerationOptions, Request
from ...scheduler.scheduler import CapacityError

_log = logging.getLogger(__name__)

_NEW_TOKENS = 5  # behind the prompt: the last, and a few between within a page
_LONG, _SHORT = 60.0, 1.0  # seconds; attention splits the keys of the long recording


def noise(samples: int) -> Tensor:
    """Gaussian noise as a waveform, float32 [samples], always with the same values."""
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0))


def warm_up_options(options: GenerationOptions, num_rows: int) -> list[GenerationOptions]:
    """Generation options that together launch every kernel of decoding.

    Args:
        options: options of usual requests, whose prompt and rules are kept.
        num_rows: maximum number of hypotheses decoded at once, a limit for the beams.
    """
    prompt = len(options.prompt)
    greedy = replace(
        options,
        max_length=min(prompt + _NEW_TOKENS, options.max_length),
        min_length=0,
        num_beams=1,
        num_return_sequences=1,
        do_sample=False,
        top_k=5,
        top_p=0.9,
    )
    plain = [greedy, replace(greedy, num_beams=min(5, num_rows)), replace(greedy, do_sample=True)]
    rules: dict[str, Any] = {"min_length": prompt + 2, "repetition_penalty": 1.1, "renormalize_logits": True}
    ruled = [replace(one, **rules) for one in plain]
    return [*plain, *ruled, replace(greedy, num_beams=min(2, num_rows), do_sample=True)]


def warm_up(
    loop: GenerationLoop, front_end: Any, max_seconds: float, options: Iterable[GenerationOptions | None]
) -> None:
    """Run short noise through the loop with each of the options, and long noise with the first.

    A failure is logged as a warning: it recurs with the first request, which can report it.

    Args:
        loop: generation loop that has no work.
        front_end: feature extractor of the model.
        max_seconds: duration of the longest accepted recording.
        options: generation options to run; a single None for an encoder-only model.
    """
    for number, one in enumerate(options):
        for seconds in (_LONG, _SHORT) if number == 0 else (_SHORT,):
            samples = int(min(seconds, max_seconds) * front_end.sampling_rate)
            try:
                loop.warm_up([Request(0, noise(samples), one)])
            except CapacityError:
                continue  # a cache that is too small for it gets no such request
            except Exception as error:
                _log.warning("an engine's warming up failed, it goes on without: %s", error)
                return


def compile_kernels(model: Any) -> None:
    """Compile the kernels that a model on a GPU may launch, in parallel, and log the progress.

    Only a first start does: later ones find them in Triton's cache on the disk. A failure is logged as a
    warning: each kernel is compiled when it is launched.
    """
    try:
        cases = cases_for(architecture_of(model.device), model.dtype)
        compile_ahead(cases, model.device, report=_progress("compiling kernels"))
    except Exception as error:
        _log.warning("kernels could not be compiled ahead of need: %s", error)


def record_steps(loop: GenerationLoop, demands: Sequence[tuple[GenerationOptions, int]]) -> None:
    """Record the decode steps of an engine's usual requests as CUDA graphs, and log the progress.

    A failure is logged as a warning: steps are recorded when they come up again.

    Args:
        loop: generation loop that has no work.
        demands: options of such requests, and their numbers of encoder positions.
    """
    try:
        loop.record_steps(demands, _progress("recording decode steps"))
    except Exception as error:
        _log.warning("decode steps could not be recorded ahead of need: %s", error)


def _progress(doing: str) -> Callable[[int, int], None]:
    """Function that logs the numbers done and in all."""
    return lambda done, total: _log.info("%s: %d of %d", doing, done, total)
