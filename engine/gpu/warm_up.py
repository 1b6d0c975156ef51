"""What an engine does on a GPU before it is ready: some of everything, so that nothing compiles later."""

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

_TOKENS = 6  # of a sequence: enough for a first and a last one and a page's row or two between
# Long enough that attention goes through its keys in several parts, and the usual short one.
_LONG, _SHORT = 60.0, 1.0


def noise(samples: int) -> Tensor:
    """float32 [samples], always the same."""
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0))


def ways_of_decoding(options: GenerationOptions, rows: int) -> list[GenerationOptions]:
    """Options that together take every kernel that decoding has.

    Args:
        options: of the checkpoint.
        rows: hypotheses that there is room for.
    """
    plain = replace(
        options,
        max_length=_TOKENS,
        min_length=0,
        num_beams=1,
        num_return_sequences=1,
        do_sample=False,
        top_k=5,
        top_p=0.9,
    )
    ways = [plain, replace(plain, num_beams=min(5, rows)), replace(plain, do_sample=True)]
    ways += [replace(way, min_length=3, repetition_penalty=1.1, renormalize_logits=True) for way in ways]
    return [*ways, replace(plain, num_beams=min(2, rows), do_sample=True)]


def warm_up(
    loop: GenerationLoop, front_end: Any, max_seconds: float, ways: Iterable[GenerationOptions | None]
) -> None:
    """Transcribe noise once in each way, the first time a long piece of it.

    What fails here fails again where somebody waits for it, so a warning is all that comes of it.

    Args:
        loop: which nobody has given work yet.
        front_end: the model's feature extractor.
        max_seconds: of the longest recording.
        ways: options; None of a model that has none.
    """
    for number, options in enumerate(ways):
        for seconds in (_LONG, _SHORT) if number == 0 else (_SHORT,):
            samples = int(min(seconds, max_seconds) * front_end.sampling_rate)
            try:
                loop.warm_up([Request(0, noise(samples), options)])
            except CapacityError:
                continue  # a cache too small for it will never see the like
            except Exception as error:
                _log.warning("an engine's warming up failed, it goes on without: %s", error)
                return
