"""Observer of the phases of a step, for measurements; without one a phase costs a look at a variable."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ..batch import RunningRequest

# "features" and "encode" of a chunk, "prefill" of its prompts, "decode" of one step of a batch.
Phase = Literal["features", "encode", "prefill", "decode"]
Observer = Callable[[Phase, "Sequence[RunningRequest]"], AbstractContextManager[object]]

_nothing = nullcontext()
_observer: Observer | None = None


def phase(name: Phase, requests: "Sequence[RunningRequest]") -> AbstractContextManager[object]:
    """Context of a phase of some requests, in the thread that computes it."""
    return _nothing if _observer is None else _observer(name, requests)


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Context in which `observer` is called for every phase of all engines of the process, in their threads.

    It must not raise, since its error would be that of the requests.
    """
    global _observer
    before, _observer = _observer, observer
    try:
        yield
    finally:
        _observer = before
