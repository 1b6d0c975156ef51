"""Direct launches of compiled kernels: the one place that uses Triton's private interface.

Triton's `kernel[grid](...)` takes 15 microseconds to find a kernel that it has compiled: it binds the
arguments, makes a key of them and asks for hooks. A declared case has one kernel on a device, which is kept
and launched by Triton's C function with addresses and plain numbers, once a function written for the case has
checked them.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .optional_triton import triton

# Parameters of a launcher's `__call__` from Triton 3.6 on; 3.6 has the others in *args.
_LAUNCHER = ("gridX", "gridY", "gridZ", "stream", "function")
_OTHERS = ("kernel_metadata", "launch_metadata", "launch_enter_hook", "launch_exit_hook")
# torch's functions without their Python wrappers.
_TORCH = ("_cuda_getCurrentRawStream", "_cuda_getDevice")

# Launches over a grid with the kernel's arguments; False, and no launch, if one of them does not fit.
DirectLaunch = Callable[..., bool]


def direct_launch(
    compiled: Any,
    device: int,
    pointers: Sequence[tuple[str, torch.dtype]],
    numbers: Sequence[tuple[str, int]],
    constants: Sequence[Any],
) -> DirectLaunch | None:
    """Make the direct launch of a compiled kernel; None where Triton's interface is not the expected one.

    None also while a profiler listens, since it may have had the kernel compiled in its own way.

    Args:
        compiled: result of `kernel[grid](...)` on this device.
        device: index of the CUDA device.
        pointers: names of the leading parameters, and element types of their tensors.
        numbers: names of the next ones; 0 for a float, else the integer that the number is a multiple of.
        constants: values of the compile-time parameters, which come last.
    """
    if device < 0 or hooked() or not all(hasattr(torch._C, name) for name in _TORCH):
        return None
    try:
        run, function, metadata = compiled.run, compiled.function, compiled.packed_metadata
        parameters = tuple(inspect.signature(run).parameters)
    except (AttributeError, TypeError, ValueError):
        return None
    expected = parameters in ((*_LAUNCHER, "args"), (*_LAUNCHER, *_OTHERS, "args"))
    if not expected or not isinstance(metadata, tuple) or not isinstance(function, int):
        return None
    known = {
        "run": run,
        "function": function,
        "metadata": metadata,
        "device": device,
        "constants": tuple(constants),
        "hooked": hooked,
        "stream": torch._C._cuda_getCurrentRawStream,
        "current": torch._C._cuda_getDevice,
        "on": torch.cuda.device,
        **{f"type_{name}": dtype for name, dtype in pointers},
    }
    exec(source(pointers, numbers), known)
    return known["launch"]  # type: ignore[no-any-return]


def source(pointers: Sequence[tuple[str, torch.dtype]], numbers: Sequence[tuple[str, int]]) -> str:
    """Source of a case's launch function: a loop over the arguments would take a microsecond more.

    None stands for a tensor that the kernel does not read: the address before it takes its place.
    """
    names = [name for name, _ in (*pointers, *numbers)]
    lines = [f"def launch(grid, {', '.join(names)}):", " if hooked(): return False"]
    before = None
    for name, _ in pointers:
        unfit = (
            f"{name}.dtype is not type_{name} or {name}.get_device() != device or not {name}.is_contiguous()"
        )
        lines += [
            f" if {name} is None:",
            f"  {name} = {before}" if before else "  return False",
            f" elif {unfit}:",
            "  return False",
            " else:",
            f"  {name} = {name}.data_ptr()",
            f"  if {name} & 15: return False",
        ]
        before = name
    for name, step in numbers:
        kinds = ("int", "bool") if step else ("float", "int")
        unfit = " and ".join(f"{name}.__class__ is not {kind}" for kind in kinds)
        if step:
            unfit = f"({unfit}) or not {-(2**31)} <= {name} < {2**31}"
        lines.append(f" if {unfit}{f' or {name} % {step}' if step > 1 else ''}: return False")
    call = (
        f"run(x, y, z, stream(device), function, metadata, None, None, None, {', '.join(names)}, *constants)"
    )
    lines += [
        " x, y, z = (*grid, 1, 1)[:3]",
        " if current() == device:",
        f"  {call}",
        " else:",
        f"  with on(device): {call}",
        " return True",
    ]
    return "\n".join(lines)


def hooked() -> bool:
    """True if a profiler listens to launches, or Triton's hooks are not the expected ones."""
    runtime = triton.knobs.runtime
    before, after = runtime.launch_enter_hook, runtime.launch_exit_hook
    try:
        return bool(before.calls or after.calls)
    except AttributeError:
        return before is not None or after is not None
