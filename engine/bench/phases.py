"""CPU time and work of the phases of an engine's steps, and their shares of the processor's rates."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from time import thread_time
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ...scheduler.batch import RunningRequest
from ...scheduler.device.phases import Phase
from .rates import Rates

PHASES: tuple[Phase, ...] = ("features", "encode", "prefill", "decode")


@dataclass(slots=True)
class PhaseTotals:
    """Sums over the calls of one phase."""

    calls: int = 0
    requests: int = 0
    units: int = 0  # encoder positions of features and encode, hypotheses of prefill and decode
    seconds: float = 0.0  # CPU time of the threads that computed it
    cached_positions: int = 0  # positions whose keys and values decode steps read


@dataclass(slots=True)
class PhaseWork:
    """Work of the calls of one phase."""

    calls: int = 0
    units: int = 0
    operations: int = 0  # multiplications and additions in products; of prefill and decode, of one row
    weight_bytes: int = 0  # of the weights of products


class PhaseClock:
    """Observer that sums the CPU time of each phase. A thread's time leaves other processes' out.

    Times are right where a phase is one thread's work, as on a CPU with a batch for each core.
    """

    def __init__(self) -> None:
        self._totals: dict[Phase, PhaseTotals] = {name: PhaseTotals() for name in PHASES}
        self._steps: Counter[int] = Counter()  # decode steps so far, by request
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, name: Phase, requests: Sequence[RunningRequest]) -> Iterator[None]:
        start = thread_time()
        try:
            yield
        finally:
            seconds = thread_time() - start
            positions = self._positions(requests) if name == "decode" else 0
            with self._lock:
                total = self._totals[name]
                total.calls += 1
                total.requests += len(requests)
                total.units += _units(name, requests)
                total.seconds += seconds
                total.cached_positions += positions

    def totals(self) -> dict[Phase, PhaseTotals]:
        """Copy of the sums so far."""
        with self._lock:
            return {name: PhaseTotals(**asdict(total)) for name, total in self._totals.items()}

    def _positions(self, requests: Sequence[RunningRequest]) -> int:
        """Positions that one step reads: the encoder's once a request, its own once a hypothesis."""
        positions = 0
        for running in requests:
            request = running.request
            own = len(running.options.prompt) + self._steps[request.request_id]
            self._steps[request.request_id] += 1
            positions += running.admission.encode_tokens + running.options.hypotheses * own
        return positions


class WorkCounter:
    """Observer that counts the work of each phase, from the shapes of the operations that torch is given."""

    def __init__(self) -> None:
        self.work: dict[Phase, PhaseWork] = {name: PhaseWork() for name in PHASES}
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, name: Phase, requests: Sequence[RunningRequest]) -> Iterator[None]:
        with _Counting(of_weights=name in ("prefill", "decode")) as counting:
            yield
        with self._lock:
            work = self.work[name]
            work.calls += 1
            work.units += _units(name, requests)
            work.operations += counting.operations
            work.weight_bytes += counting.weight_bytes


def _units(name: Phase, requests: Sequence[RunningRequest]) -> int:
    if name in ("prefill", "decode"):
        return sum(running.options.hypotheses for running in requests)
    return sum(running.admission.encode_tokens for running in requests)


class _Counting(TorchDispatchMode):
    """Mode that counts the operations of one thread.

    Args:
        of_weights: True counts those of one row by each weight: few rows are padded to more, and attention
            over the cache, which is counted from its positions, need not be products.
    """

    def __init__(self, of_weights: bool) -> None:
        super().__init__()
        self._of_weights = of_weights
        self.operations = 0
        self.weight_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet in _COUNTED:
            out = func(*args, **kwargs)
            operations, weight = _COUNTED[packet](args, out)
            if weight is not None:
                self.weight_bytes += weight.numel() * weight.element_size()
            if not self._of_weights:
                self.operations += operations
            elif weight is not None:
                self.operations += 2 * weight.numel()
            return out
        if packet in flop_registry:
            out = func(*args, **kwargs)
            if not self._of_weights:
                self.operations += flop_registry[packet](*args, **kwargs, out_val=out)
            return out
        with self:  # a composite operation, such as conv1d, is made of others
            if (out := func.decompose(*args, **kwargs)) is not NotImplemented:
                return out
        return func(*args, **kwargs)


def _linear_work(args: Any, out: Tensor) -> tuple[int, Tensor]:
    """Operations and weight of a product by a weight [N, K], in whatever layout."""
    return 2 * args[0].numel() * out.shape[-1], args[1]


def _attention_work(args: Any, out: Any) -> tuple[int, None]:
    """Operations of attention: query [batch, heads, rows, width], key [batch, heads, positions, width]."""
    query, key, value = args[:3]
    batch, heads, rows, width = query.shape
    return 2 * batch * heads * rows * key.shape[2] * (width + value.shape[3]), None


_aten = torch.ops.aten
_Count = Callable[[Any, Any], tuple[int, Tensor | None]]
_COUNTED: dict[Any, _Count] = {
    _aten.mm: _linear_work,
    _aten.addmm: lambda args, out: _linear_work(args[1:], out),
    _aten._int_mm: _linear_work,
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention_work,
}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # where torch is built with oneDNN
    _COUNTED[torch.ops.mkldnn._linear_pointwise] = _linear_work


@dataclass(frozen=True, slots=True)
class PhaseShare:
    """Share of the CPU time that a phase takes, and shares of the processor's rates that it reaches there.

    Args:
        cpu: of all CPU time of the process.
        products: of the rate of matrix products; None of prompts, and where the rate was not measured.
        memory: of the rate of reading memory: a decode step's weights, keys and values; None for other
            phases. Above 1 where caches hold them.
        milliseconds: CPU time of a call; 0 without one.
        rows: mean number of hypotheses, or encoder positions, of a call.
    """

    cpu: float
    products: float | None
    memory: float | None
    milliseconds: float
    rows: float


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Bytes and operations of attention for one cached position."""

    bytes: int = 0
    operations: int = 0

    @classmethod
    def of(cls, model: Any) -> "CacheShape":
        """Those of a model that generates; 0 for another."""
        if not hasattr(model, "cache_shape"):
            return cls()
        layers, heads, width = model.cache_shape
        numbers = 2 * layers * heads * width
        return cls(numbers * model.dtype.itemsize, 2 * numbers)


def shares(
    totals: dict[Phase, PhaseTotals],
    work: dict[Phase, PhaseWork],
    cache: CacheShape,
    rates: Rates | None,
    cpu_seconds: float,
) -> dict[Phase, PhaseShare]:
    """Shares of the phases that occurred.

    Args:
        totals: sums of a timed run.
        work: work of a run of the same kind, which is scaled by the units of the two.
        cache: shape of the cache's positions.
        rates: rates of the processor; None where they were not measured.
        cpu_seconds: of the process in the timed run.
    """
    found: dict[Phase, PhaseShare] = {}
    for name, total in totals.items():
        if not total.calls:
            continue
        counted = work[name]
        products = memory = None
        if rates is not None and counted.units and total.seconds:
            if name in ("features", "encode"):
                products = counted.operations * total.units / counted.units / total.seconds / rates.operations
            elif name == "decode":
                operations = counted.operations * total.units / counted.calls
                operations += total.cached_positions * cache.operations
                read = counted.weight_bytes * total.calls / counted.calls
                read += total.cached_positions * cache.bytes
                products = operations / total.seconds / rates.operations
                memory = read / total.seconds / rates.bytes
        found[name] = PhaseShare(
            total.seconds / cpu_seconds if cpu_seconds else 0.0,
            products,
            memory,
            1e3 * total.seconds / total.calls,
            total.units / total.calls,
        )
    return found
