"""Triton kernels launched only in cases that their files declare, and that compile ahead of time.

    @kernel(sizes=("N",))
    def scale_kernel(hidden_ptr, out_ptr, N: tl.int32, factor: tl.float32, BLOCK: tl.constexpr): ...

    scale_kernel.declare_all(DTYPES, ALIGNMENTS, BLOCK=1024)

    case = scale_kernel.case(hidden.device, hidden.dtype, alignment(hidden.numel()))
    case.launch((case.block_count("BLOCK", hidden.numel()),), hidden, out, hidden.numel(), 0.5)

A case is one specialization of a kernel: types, constants, warps, stages, and sizes that are multiples of
16. Nothing else is ever compiled, so `python -m tritone.kernels` compiles ahead of time, without a GPU, all
that can run on one. Triton by itself would compile anew for an argument of 1 or a multiple of 16; here
pointers are always multiples of 16, sizes where the case says so, and other values have no influence.
"""

import inspect
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any

import torch
from torch import Tensor

from .direct_launch import DirectLaunch, direct_launch
from .optional_triton import tl, triton

# Targets that kernels are declared for. The configurations of sm_80 keep below 99 KiB of shared memory, which
# consumer cards (8.6, 8.9, 12.x) have too.
ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "gfx942")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # of kernels; float64 runs without them
ALIGNMENTS = ("aligned", "any")  # results of `alignment`, part of most keys
_TYPE_NAMES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float64: "fp64",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.bool: "u1",
}
DTYPE_OF = {name: dtype for dtype, name in _TYPE_NAMES.items()}
_NUMBERS = {tl.int32: "i32", tl.float32: "fp32"}
_ALIGNMENT = 16

if torch.version.hip is not None:
    # On AMD's GPUs Triton would also compile anew for each pointer to less than 2 GiB.
    triton.knobs.amd.use_buffer_ops = False

KERNELS: list["Kernel"] = []  # all kernels of the modules imported so far, in import order

_architectures: dict[torch.device, str] = {}  # results of `architecture_of`, which every launch asks for


class UndeclaredCaseError(RuntimeError):
    """Error for a launch that no declared case covers."""


class Kernel:
    """Triton function with its declared cases.

    Names of pointer parameters end in `_ptr`; compile-time constants are annotated `tl.constexpr`, other
    parameters `tl.int32` or `tl.float32`.

    Args:
        function: Python function, not yet compiled by Triton.
        sizes: parameters that are multiples of 16 in aligned cases, so that rows can be read in vectors.
        outputs: pointer parameters that the kernel writes.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        sizes: tuple[str, ...] = (),
        outputs: tuple[str, ...] = ("out_ptr",),
    ) -> None:
        self.name = function.__name__
        self.sizes, self.outputs = sizes, outputs
        self.types: dict[str, str | None] = {}  # run-time parameters: a number's type, None for a pointer
        self.constants: list[str] = []  # compile-time parameters
        for parameter in inspect.signature(function).parameters.values():
            if parameter.annotation is tl.constexpr:
                self.constants.append(parameter.name)
            else:
                pointer = parameter.name.endswith("_ptr")
                self.types[parameter.name] = None if pointer else _NUMBERS[parameter.annotation]
        numbers = [name for name, kind in self.types.items() if kind is not None]
        order = [name for name in self.types if name not in numbers] + numbers + self.constants
        self.pointers_first = order == list(inspect.signature(function).parameters)  # and constants last
        self.plain = triton.jit(function, do_not_specialize=numbers)
        self.aligned = triton.jit(function, do_not_specialize=[name for name in numbers if name not in sizes])
        self.cases: dict[tuple[str, tuple[Hashable, ...]], Case] = {}
        KERNELS.append(self)

    def declare_all(
        self,
        *choices: Iterable[Hashable],
        pointers: Mapping[str, torch.dtype] | None = None,
        blocks: Callable[..., dict[str, Any]] | None = None,
        **constants: Any,
    ) -> None:
        """Declare a case for each architecture and each combination of choices, which is its key.

        The key's first dtype sets the constant PRECISION, unless `blocks` does; "aligned" in it makes `sizes`
        multiples of 16.

        Args:
            choices: alternatives for each part of the key.
            pointers: element types of pointers that do not have the key's first dtype.
            blocks: function from architecture and key to a case's own constants, num_warps and num_stages.
            constants: constants of all cases.
        """
        for architecture, key in product(ARCHITECTURES, list(product(*choices))):
            dtype = next((part for part in key if isinstance(part, torch.dtype)), torch.float32)
            given = dict(constants, **blocks(architecture, *key) if blocks else {})
            if "PRECISION" in self.constants:
                given.setdefault("PRECISION", precision(dtype, architecture))
            self.declare(
                *key,
                architecture=architecture,
                pointers=dict.fromkeys(self.types, dtype) | dict(pointers or {}),
                aligned="aligned" in key,
                **given,
            )

    def declare(
        self,
        *key: Hashable,
        architecture: str,
        pointers: Mapping[str, torch.dtype],
        num_warps: int = 4,
        num_stages: int = 2,
        aligned: bool = False,
        **constants: Any,
    ) -> None:
        """Declare one case, which `case` finds by its architecture and `key`.

        Args:
            pointers: element type of each pointer parameter.
            num_warps, num_stages: compiler options. They depend on the key alone, never on the number of rows
                of a launch: another configuration may round differently.
            aligned: the kernel's `sizes` are multiples of 16.
            constants: value of each compile-time parameter.
        """
        types = tuple(
            (name, f"*{_TYPE_NAMES[pointers[name]]}" if kind is None else kind)
            for name, kind in self.types.items()
        )
        case = Case(self, architecture, key, types, tuple(constants.items()), aligned, num_warps, num_stages)
        if self.cases.setdefault((architecture, key), case) is not case:
            raise ValueError(f"{self.name} declares {key} for {architecture} twice")

    def case(self, device: torch.device, *key: Hashable) -> "Case":
        """Declared case with this key for the device's architecture.

        Raises:
            UndeclaredCaseError: no such case is declared.
        """
        found = self.cases.get((_architectures.get(device, ""), key))
        if found is None:
            architecture = _architectures[device] = architecture_of(device)
            found = self.cases.get((architecture, key))
        if found is None:
            known = [str(other) for arch, other in self.cases if arch == architecture]
            raise UndeclaredCaseError(
                f"{self.name} has no case {key} for {architecture}, only {', '.join(known)}; "
                "declare it beside the kernel, so that it is checked ahead of time too"
            )
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Declared specialization of a kernel: types, constants and compiler options."""

    kernel: Kernel
    architecture: str  # one of `ARCHITECTURES`
    key: tuple[Hashable, ...]  # as given to `Kernel.case`
    types: tuple[tuple[str, str], ...]  # run-time parameters in order, Triton's type names ("*fp16", "i32")
    constants: tuple[tuple[str, Any], ...]  # compile-time parameters
    aligned: bool  # the kernel's sizes are multiples of 16
    num_warps: int
    num_stages: int
    # Compiled kernels by the index of their device, from the first launch on.
    _direct: dict[int, DirectLaunch] = field(init=False, repr=False, default_factory=dict)
    _values: dict[str, Any] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._values.update(self.constants)

    @property
    def label(self) -> str:
        """Name of the kernel and key of the case, for printing."""
        parts = [_TYPE_NAMES[part] if isinstance(part, torch.dtype) else str(part) for part in self.key]
        return " ".join([self.kernel.name.removesuffix("_kernel"), *parts])

    @property
    def options(self) -> dict[str, Any]:
        """Triton's compiler options.

        Fused multiply-adds are set, since a later Triton has another default, with other results.
        """
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}

    @property
    def multiples(self) -> list[str]:
        """Names of parameters that are multiples of 16: all pointers, and the sizes of an aligned case."""
        sizes = self.kernel.sizes if self.aligned else ()
        return [name for name, kind in self.types if kind.startswith("*") or name in sizes]

    def constant(self, name: str) -> Any:
        """Value of the compile-time parameter `name`."""
        return self._values[name]

    def block_count(self, name: str, size: int) -> int:
        """Number of blocks that cover `size`, each as large as the constant `name`: one grid dimension."""
        return -(-size // int(self._values[name]))

    def launch(self, grid: tuple[int, ...], *arguments: Tensor | float | None) -> None:
        """Launch the kernel over `grid`, unless one of its dimensions is 0.

        Args:
            arguments: run-time parameters in order. Inputs are copied unless contiguous and aligned
                (`ready`); outputs must be both. None replaces a tensor that the kernel does not read, for
                which another tensor is passed. True is passed as 1.

        Raises:
            UndeclaredCaseError: arguments that would make Triton compile another specialization.
        """
        if 0 in grid:
            return
        if self._direct and not _records and isinstance(arguments[0], Tensor):
            direct = self._direct.get(arguments[0].get_device())
            if direct is not None and len(arguments) == len(self.types) and direct(grid, *arguments):
                return
        self._launch(grid, arguments)

    def _launch(self, grid: tuple[int, ...], arguments: Sequence[Tensor | float | None]) -> None:
        """Launch in Triton's own way, which compiles the case if need be, and keep the compiled kernel."""
        given = self.prepare(arguments)
        for record in _records:
            record.append(self)
        if _dry:
            return
        run = self.kernel.aligned if self.aligned else self.kernel.plain
        device = next(argument for argument in given if isinstance(argument, Tensor)).get_device()
        with torch.cuda.device(device):
            compiled = run[grid](*given, **self._values, **self.options)
        if device not in self._direct and self.kernel.pointers_first:
            pointers = [(name, DTYPE_OF[kind[1:]]) for name, kind in self.types if kind.startswith("*")]
            numbers = [(name, self._step(name, kind)) for name, kind in self.types[len(pointers) :]]
            constants = [self._values[name] for name in self.kernel.constants]
            direct = direct_launch(compiled, device, pointers, numbers, constants)
            if direct is not None:
                self._direct[device] = direct

    def _step(self, name: str, kind: str) -> int:
        if kind == "fp32":
            return 0
        return _ALIGNMENT if self.aligned and name in self.kernel.sizes else 1

    def prepare(self, arguments: Sequence[Tensor | float | None]) -> list[Tensor | float]:
        """Convert the arguments of `launch` to what Triton gets; errors as there."""
        if len(arguments) != len(self.types):
            raise TypeError(f"{self.label} takes {len(self.types)} arguments, got {len(arguments)}")
        pairs = list(zip(self.types, arguments, strict=True))
        devices = {argument.device for argument in arguments if isinstance(argument, Tensor)}
        if len(devices) > 1:
            raise ValueError(other_devices(devices))
        stand_ins = {kind: argument for (_, kind), argument in pairs if isinstance(argument, Tensor)}
        prepared: list[Tensor | float] = []
        for (name, kind), argument in pairs:
            if argument is None:
                argument = stand_ins.get(kind)
            if argument is None and devices:
                argument = _blank(DTYPE_OF[kind[1:]], *devices)
            if argument is None:
                raise UndeclaredCaseError(f"{self.label} got no tensor that can stand in for {name}")
            if isinstance(argument, Tensor) and name not in self.kernel.outputs:
                argument = ready(argument)
            prepared.append(int(argument) if isinstance(argument, bool) else argument)
        self._check(prepared)
        return prepared

    def _check(self, arguments: list[Tensor | float]) -> None:
        for (name, kind), argument in zip(self.types, arguments, strict=True):
            if isinstance(argument, Tensor):
                given = f"*{_TYPE_NAMES.get(argument.dtype, argument.dtype)}"
                fits = given == kind and argument.data_ptr() % _ALIGNMENT == 0 and argument.is_contiguous()
            elif kind == "fp32":
                given, fits = "number", True
            else:
                given = str(argument)
                multiple = not self.aligned or name not in self.kernel.sizes or argument % _ALIGNMENT == 0
                whole = kind == "i32" and hasattr(argument, "__index__")
                fits = whole and -(2**31) <= argument < 2**31 and multiple
            if not fits:
                if isinstance(argument, Tensor):
                    past = argument.data_ptr() % _ALIGNMENT
                    given += f" of shape {list(argument.shape)}, {past} bytes past a multiple of {_ALIGNMENT}"
                multiple_of = f", a multiple of {_ALIGNMENT}" if name in self.multiples else ""
                raise UndeclaredCaseError(
                    f"{self.label} is declared with {name} as {kind}{multiple_of}; got {given}"
                )


def kernel(
    *, sizes: tuple[str, ...] = (), outputs: tuple[str, ...] = ("out_ptr",)
) -> Callable[[Callable[..., Any]], Kernel]:
    """Decorator that turns a function into a `Kernel`; arguments as there."""
    return lambda function: Kernel(function, sizes, outputs)


@cache
def _blank(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Tensor that stands in for None where a launch has no other of the type."""
    with torch.inference_mode(False):
        return torch.zeros(4, dtype=dtype, device=device)


def other_devices(devices: Iterable[torch.device]) -> str:
    """Error message for tensors of one operation on several devices."""
    names = ", ".join(sorted(map(str, devices)))
    return f"all tensors of an operation must be on one device, got {names}; move them with .to(device)"


def ready(tensor: Tensor) -> Tensor:
    """Contiguous tensor that begins at a multiple of 16 bytes, as kernels need: `tensor` or a copy."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone()


def alignment(*sizes: int) -> str:
    """Alignment in a case's key: "aligned" if all sizes are multiples of 16 (vector loads), else "any"."""
    for size in sizes:  # `any` would take half a microsecond more, in most launches
        if size % _ALIGNMENT:
            return "any"
    return "aligned"


def architecture_of(device: torch.device) -> str:
    """Architecture, of `ARCHITECTURES`, whose cases a device runs; Hopper's in the interpreter."""
    return "sm_90" if device.type != "cuda" else _architecture(device.index or 0)


@cache
def _architecture(index: int) -> str:
    if torch.version.hip is not None:
        return "gfx942"
    major, minor = torch.cuda.get_device_capability(index)
    families = {8: "sm_80", 9: "sm_90", 10: "sm_100", 11: "sm_80", 12: "sm_80"}
    if major not in families:
        raise RuntimeError(
            f"{torch.cuda.get_device_name(index)} has compute capability {major}.{minor}; the kernels need "
            "8.0 or newer: run on the CPU instead (device='cpu')"
        )
    return families[major]


def precision(dtype: torch.dtype, architecture: str) -> str:
    """Triton's `input_precision` of a matrix product: that of float32, rather than Triton's default, tf32.

    tf32x3 splits float32 numbers in two for three products on NVIDIA's matrix units, with an error of about
    2^-21 of a product; without matrix units (ieee) a product takes some ten times as long.
    """
    if dtype != torch.float32:
        return "tf32"
    return "ieee" if architecture == "gfx942" else "tf32x3"


def interpreting() -> bool:
    """True if kernels run on CPU tensors in Triton's interpreter (TRITON_INTERPRET=1)."""
    return bool(triton.knobs.runtime.interpret)


_compiled: list[str] = []


def compiled() -> int:
    """Number of kernels that Triton has compiled in this process or read from its cache on disk.

    All threads and libraries count; it stays 0 in the interpreter.
    """
    return len(_compiled)


def _count_compilations() -> None:
    """Install a Triton hook that counts compilations: it also counts a case that a launch compiles twice."""
    earlier = triton.knobs.runtime.jit_post_compile_hook

    def count(*arguments: Any, **named: Any) -> bool | None:
        _compiled.append(str(named.get("repr", "")))  # append is atomic, so that threads lose no count
        return None if earlier is None else earlier(*arguments, **named)

    triton.knobs.runtime.jit_post_compile_hook = count


_count_compilations()

_records: list[list[Case]] = []
_dry = False


@contextmanager
def recorded(*, dry: bool = False) -> Iterator[list[Case]]:
    """Context manager that collects every case launched inside it, in order.

    Args:
        dry: launch nothing and leave outputs uninitialized, for models too large to run here.
    """
    global _dry
    cases: list[Case] = []
    before, _dry = _dry, dry or _dry
    _records.append(cases)
    try:
        yield cases
    finally:
        _records.remove(cases)
        _dry = before
