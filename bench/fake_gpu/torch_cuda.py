"""`torch.cuda` of the fake GPUs: devices, memory, streams, events and graphs, in Python."""

from collections import Counter
from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

import torch

MEMORY = 139 << 30  # bytes of a device
totals: Counter[str] = Counter()  # waits and replays
_libcuda: Any = None
_tensors: Any = None
_pools = count(1)


def _index(device: Any = None) -> int:
    if device is None:
        return int(_tensors.get_device())
    if isinstance(device, int):
        return device
    index = torch.device(device).index
    return int(_tensors.get_device()) if index is None else index


class Event:
    """CUDA event, complete as soon as it is recorded; `stream` is the one it was recorded on."""

    def __init__(
        self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> None:
        self.stream: Stream | None = None

    def record(self, stream: "Stream | None" = None) -> None:
        self.stream = current_stream() if stream is None else stream

    def wait(self, stream: "Stream | None" = None) -> None:
        """Make a stream wait, which takes no time."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        totals["waits"] += 1

    def elapsed_time(self, end: "Event") -> float:
        return 0.0


class Stream:
    """CUDA stream of one device; the driver refuses a launch on it while another device is current."""

    def __init__(self, device: Any = None, priority: int = 0, *, raw: int | None = None, **_: Any) -> None:
        self.device_index = _index(device)
        self.cuda_stream = _libcuda.fake_new_stream(self.device_index) if raw is None else raw
        self.stream_id = self.cuda_stream
        self.device_type = 1  # CUDA's number
        self.priority = priority

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.device_index)

    def wait_event(self, event: Event) -> None:
        event.wait(self)

    def wait_stream(self, stream: "Stream") -> None:
        self.wait_event(stream.record_event())

    def record_event(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        totals["waits"] += 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self.cuda_stream, self.device_index) == (
            other.cuda_stream,
            other.device_index,
        )

    def __hash__(self) -> int:
        return hash((self.cuda_stream, self.device_index))


class CUDAGraph:
    """CUDA graph that counts its nodes; a replay takes no time, and its torch operations do not run again."""

    # Called at each replay, for bookkeeping that a benchmark wants done in place of the graph's kernels.
    replayed: "Callable[[CUDAGraph], None] | None" = None

    def __init__(self, keep_graph: bool = False) -> None:
        self.nodes = 0
        self._pool: Any = None

    def capture_begin(self, pool: Any = None, **_: Any) -> None:
        self._stream, self._pool = current_stream(), pool
        if self._stream.cuda_stream == 0:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream.")
        _libcuda.fake_set_capturing(self._stream.cuda_stream, 1)
        self.nodes = -_nodes()

    def capture_end(self) -> None:
        _libcuda.fake_set_capturing(self._stream.cuda_stream, 0)
        self.nodes += _nodes()

    def replay(self) -> None:
        totals["replays"] += 1
        if CUDAGraph.replayed is not None:
            CUDAGraph.replayed(self)

    def reset(self) -> None:
        self.nodes = 0

    def pool(self) -> Any:
        return self._pool


def _nodes() -> int:
    operations, copies, _ = _tensors.counts()
    return int(_libcuda.fake_launched() + operations + copies)


def current_stream(device: Any = None) -> Stream:
    """Current stream of a device."""
    index = _index(device)
    return Stream(index, raw=_tensors.raw_stream(index))


def _set_stream(device: int, stream: int) -> None:
    _tensors.set_device(device)  # as torch's does
    _libcuda.fake_set_stream(device, stream)


def _synchronize(device: Any = None) -> None:
    totals["waits"] += 1


def _properties(device: Any = None) -> SimpleNamespace:
    return SimpleNamespace(
        name="fake H200",
        major=9,
        minor=0,
        total_memory=MEMORY,
        multi_processor_count=132,
        L2_cache_size=60 << 20,
        warp_size=32,
        max_threads_per_multi_processor=2048,
        regs_per_multiprocessor=65536,
        shared_memory_per_block_optin=227 << 10,
        shared_memory_per_multiprocessor=228 << 10,
    )


def _held(*_: Any) -> int:
    return int(_tensors.memory(False)[0])


def _most_held(*_: Any) -> int:
    return int(_tensors.memory(False)[1])


def install(libcuda: Any, tensors: Any) -> None:
    """Put this module's functions into torch."""
    global _libcuda, _tensors
    _libcuda, _tensors = libcuda, tensors
    inner: dict[str, Any] = {
        "_host_emptyCache": lambda: None,
        "_cuda_getDevice": tensors.get_device,
        "_cuda_setDevice": tensors.set_device,
        "_cuda_exchangeDevice": tensors.exchange_device,
        "_cuda_maybeExchangeDevice": tensors.exchange_device,
        "_cuda_getCurrentRawStream": tensors.raw_stream,
        "_cuda_setStream": lambda stream_id, device_index, device_type=1: _set_stream(
            device_index, stream_id
        ),
    }
    outer: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "_exchange_device": tensors.exchange_device,
        "_maybe_exchange_device": tensors.exchange_device,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda *_, **__: True,
        "device_count": libcuda.fake_device_count,
        "current_device": tensors.get_device,
        "set_device": lambda device: tensors.set_device(_index(device)),
        "get_device_properties": _properties,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: "fake H200",
        "synchronize": _synchronize,
        "current_stream": current_stream,
        "default_stream": lambda device=None: Stream(_index(device), raw=0),
        "set_stream": lambda stream: _set_stream(stream.device_index, stream.cuda_stream),
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": CUDAGraph,
        "graph_pool_handle": lambda: (0, next(_pools)),
        "is_current_stream_capturing": lambda: bool(
            libcuda.fake_capturing(tensors.raw_stream(tensors.get_device()))
        ),
        "empty_cache": lambda: None,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "mem_get_info": lambda device=None: (MEMORY - _held(), MEMORY),
        "reset_peak_memory_stats": lambda device=None: tensors.memory(True),
        **dict.fromkeys(("memory_allocated", "memory_reserved"), _held),
        **dict.fromkeys(("max_memory_allocated", "max_memory_reserved"), _most_held),
    }
    for name, value in inner.items():
        setattr(torch._C, name, value)
    for name, value in outer.items():
        setattr(torch.cuda, name, value)
    for module in (torch.cuda.streams, torch.cuda.graphs, torch.cuda.memory):
        for name in module.__dict__.keys() & outer.keys():
            setattr(module, name, outer[name])
    torch.Tensor.record_stream = lambda self, stream: None  # type: ignore[method-assign]
