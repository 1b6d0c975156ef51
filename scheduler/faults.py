"""Isolation of faults: a computation that failed is repeated in halves, down to the culprit."""

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

from .batch import RunningRequest
from .device.cuda_graphs import recording

T = TypeVar("T")
Result = TypeVar("Result")

_log = logging.getLogger(__name__)

# As torch's allocators, CUDA and cuBLAS word it in errors that have no type of their own.
_MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


class DeviceLostError(RuntimeError):
    """Error after which no computation on a device succeeds in this process, such as a failed assertion."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Error of an attempt, without its traceback."""

    error: Exception
    out_of_memory: bool


@dataclass(slots=True)
class Isolated(Generic[Result]):
    """Outcome of a computation for several requests, after retries in parts where it failed as a whole."""

    # Parts that succeeded, in the order of the requests; the whole where no attempt failed.
    parts: list[tuple[list[RunningRequest], Result]] = field(default_factory=list)
    failed: list[tuple[RunningRequest, Exception]] = field(default_factory=list)
    first: Failure | None = None  # failure of the whole
    out_of_memory: bool = False  # memory ran out in an attempt

    @property
    def requests(self) -> list[RunningRequest]:
        """Requests that succeeded."""
        return [running for part, _ in self.parts for running in part]


def attempt(function: Callable[[T], Result], part: T, device: torch.device) -> Result | Failure:
    """Call `function(part)` and return its result or failure.

    Raises:
        DeviceLostError: the device cannot be used any more, so that no retry has a chance.
        KeyboardInterrupt, SystemExit: as raised in the call, since they are no faults.
    """
    try:
        return function(part)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as raised:  # Rust extensions panic with a BaseException
        error = without_traceback(raised)
    _check_device(device, error)
    out_of_memory, failure = ran_out_of_memory(error), as_exception(error)
    if out_of_memory:
        torch.cuda.empty_cache()
    return Failure(failure, out_of_memory)


def isolate(
    function: Callable[[list[RunningRequest]], Result],
    requests: list[RunningRequest],
    device: torch.device,
    first: Failure | None = None,
) -> Isolated[Result]:
    """Compute requests together, and after a failure in halves, so that one cannot fail the others.

    A request fails only after a second attempt: alone, after one in company or one alone. So an error that
    passes fails no request.

    Args:
        function: computation of several requests, which may be repeated after it has failed.
        requests: at least one request.
        device: device of the computation.
        first: failure of all requests together, where that has been attempted already.

    Raises:
        DeviceLostError: the device cannot be used any more.
    """
    found: Isolated[Result] = Isolated()
    if first is None:
        result = attempt(function, requests, device)
        if not isinstance(result, Failure):
            found.parts.append((requests, result))
            return found
        first = result
    found.first, found.out_of_memory = first, first.out_of_memory
    left = _halves(requests)
    while left:
        part = left.pop()
        result = attempt(function, part, device)
        if not isinstance(result, Failure):
            found.parts.append((part, result))
            continue
        found.out_of_memory |= result.out_of_memory
        if len(part) == 1:
            found.failed.append((part[0], result.error))
        else:
            left += _halves(part)
    return found


def ran_out_of_memory(error: BaseException) -> bool:
    """Check whether an error says that the memory of the host or of a device was exhausted."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY_MESSAGES)


def without_traceback(error: BaseException) -> BaseException:
    """An error without its traceback, which is logged for debugging.

    Its frames and their callers' would keep the tensors of the computation alive, and the model as long as a
    user keeps the error.
    """
    _log.debug("a computation failed", exc_info=error)
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        one = chain.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)  # also of frames in circles, which would wait for gc
            one.__traceback__ = None
            chain += [one.__cause__, one.__context__]
    return error


def as_exception(error: BaseException) -> Exception:
    """An error as an Exception, wrapped in a RuntimeError where it is not one or would end an iterator."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _halves(requests: list[RunningRequest]) -> list[list[RunningRequest]]:
    """Split into two halves, the first one last; a single request is its own half."""
    middle = len(requests) // 2
    return [half for half in (requests[middle:], requests[:middle]) if half]


def _check_device(device: torch.device, error: BaseException) -> None:
    """Raise DeviceLostError where an error has ended the use of a device in this process."""
    lost: BaseException | None = None
    if device.type == "cuda":
        try:
            with recording:
                torch.cuda.synchronize(device)  # repeats an error that cannot be recovered from, and no other
        except RuntimeError as again:
            lost = again
    elif isinstance(error, torch.AcceleratorError) and not ran_out_of_memory(error):
        lost = error
    if lost is not None:
        raise DeviceLostError(
            f"{device} cannot be used any more in this process after {type(error).__name__}: {error}; start "
            "a new process"
        ) from lost
