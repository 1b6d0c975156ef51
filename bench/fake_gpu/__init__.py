"""GPUs that take no time: a stand-in for NVIDIA's driver and torch's CUDA tensors, for machines without one.

    from bench import fake_gpu
    fake_gpu.install()  # before the first use of CUDA in the process; for good

Then `device="cuda"` works with a CPU build of torch, as two H200s. torch's operations on CUDA tensors compute
on the CPU, so that bookkeeping stays right; gradients are not supported. Triton uses its own CUDA driver and
compiles for sm_90 as usual, but `libcuda.so.1` is ours: a launch is counted and leaves its outputs as they
are, zeros at first. So host time, launches, waits, streams and what a CUDA graph would record can be seen;
the results of kernels cannot.

- `libcuda.c`: the driver library, as far as Triton uses it
- `tensors.cpp`: memory, operations and copies of CUDA tensors; guards and hooks of torch
- `torch_cuda.py`: streams, events, graphs and the functions of `torch.cuda`
- `build.py`: compiles the two libraries once, by g++
"""

import ctypes
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .build import build

_ROOT = Path(__file__).resolve().parents[2]
_SHOWN = 6  # lines of a wait

_libcuda: Any = None
_tensors: Any = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Work given to the fake GPUs so far by all threads."""

    launches: int  # of Triton's kernels
    operations: int  # torch's kernels, without views, allocations, and copies between host and device
    copies: int  # between host and device
    blocking: (
        int  # operations and copies that wait for the device: items, copies of memory that is not pinned
    )
    waits: int  # `synchronize` of a device, stream or event
    replays: int  # of CUDA graphs

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, name) - getattr(other, name) for name in self.__slots__))


@dataclass(slots=True)
class Launch:
    """One launch of a Triton kernel."""

    kernel: str
    device: int
    stream: int  # 0 for the default stream


@dataclass(slots=True)
class Log:
    """Names of the work inside `recording`."""

    launches: list[Launch] = field(default_factory=list)
    operations: list[str] = field(
        default_factory=list
    )  # torch's; one that waits appears as "blocking ..." too


def install() -> None:
    """Install the fake GPUs in this process; a second call does nothing.

    Raises:
        RuntimeError: a torch with CUDA, a process that interprets kernels, or no compiler.
    """
    global _libcuda, _tensors
    if _libcuda is not None:
        return
    if torch.version.cuda is not None or torch.version.hip is not None:
        raise RuntimeError(f"the fake GPU needs a CPU build of torch, got {torch.__version__}")
    import triton

    if triton.knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET=1 is set, and kernels would be interpreted; unset it")
    folder = build()
    # Triton's modules name the library by its soname, which finds the one that is loaded.
    _libcuda = ctypes.CDLL(str(folder / "libcuda.so.1"), mode=ctypes.RTLD_GLOBAL)
    for name in ("stream", "new_stream", "launched", "logged_stream"):
        getattr(_libcuda, f"fake_{name}").restype = ctypes.c_uint64
    _libcuda.fake_logged_kernel.restype = ctypes.c_char_p
    _libcuda.fake_set_stream.argtypes = [ctypes.c_int, ctypes.c_uint64]
    _libcuda.fake_set_capturing.argtypes = [ctypes.c_uint64, ctypes.c_int]
    _libcuda.fake_capturing.argtypes = [ctypes.c_uint64]
    _tensors = _load("fake_tensors", str(folder / "fake_tensors.so"))
    _tensors.begin()
    from . import torch_cuda

    torch_cuda.install(_libcuda, _tensors)
    triton.knobs.nvidia.libcuda_path = str(folder)


def counts() -> Counts:
    """Counts since `install`; the difference of two is the work between them."""
    from .torch_cuda import totals

    return Counts(_libcuda.fake_launched(), *_tensors.counts(), totals["waits"], totals["replays"])


def computing() -> float:
    """CPU seconds that torch's operations on large tensors took, which a GPU would compute by itself."""
    return float(_tensors.computing())


@contextmanager
def recording() -> Iterator[Log]:
    """Context manager that yields a log of all work inside it, by any thread; complete on exit."""
    log = Log()
    _tensors.log(True)
    _libcuda.fake_log(1)
    try:
        yield log
    finally:
        log.operations = _tensors.log(False)
        log.launches = [
            Launch(
                _libcuda.fake_logged_kernel(index).decode(),
                _libcuda.fake_logged_device(index),
                _libcuda.fake_logged_stream(index),
            )
            for index in range(_libcuda.fake_logged())
        ]
        _libcuda.fake_log(0)


@contextmanager
def watching_waits() -> Iterator[list[str]]:
    """Context manager that yields a list of the operations, of any thread, that wait for the device in it.

    Each is the operation's name and the lines of this repository that called it, innermost first. Waits for
    an event or a stream, which a caller asks for, are not among them.
    """
    found: list[str] = []

    def note(name: str) -> None:
        lines = [
            f"{Path(frame.filename).relative_to(_ROOT)}:{frame.lineno} {frame.line}"
            for frame in reversed(traceback.extract_stack()[:-1])
            if Path(frame.filename).is_relative_to(_ROOT)
        ]
        found.append("\n    ".join([f"{name} waits for the device:", *lines[:_SHOWN]]))

    _tensors.on_wait(note)
    try:
        yield found
    finally:
        _tensors.on_wait(None)


def _load(name: str, path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
