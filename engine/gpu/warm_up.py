"""Warm-up on a GPU: run every kernel on noise, so that none is compiled once the engine is ready."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...scheduler.loop import GenerationLoop
from ...scheduler.request import GenerationOptions, Request
from ...scheduler.scheduler import CapacityError

_log = logging.getLogger(__name__)

_MAX_LENGTH = 6  # tokens: the first, the last, and a few between within a page
_LONG, _SHORT = 60.0, 1.0  # seconds; attention splits the keys of the long recording


def noise(samples: int) -> Tensor:
    """Gaussian noise as a waveform, float32 [samples], always with the same values."""
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0))


def warm_up_options(options: GenerationOptions, num_rows: int) -> list[GenerationOptions]:
    """Generation options that together launch every kernel of decoding.

    Args:
        options: default options of the checkpoint.
        num_rows: maximum number of hypotheses decoded at once, a limit for the beams.
    """
    greedy = replace(
        options,
        max_length=_MAX_LENGTH,
        min_length=0,
        num_beams=1,
        num_return_sequences=1,
        do_sample=False,
        top_k=5,
        top_p=0.9,
    )
    plain = [greedy, replace(greedy, num_beams=min(5, num_rows)), replace(greedy, do_sample=True)]
    ruled = [replace(one, min_length=3, repetition_penalty=1.1, renormalize_logits=True) for one in plain]
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
