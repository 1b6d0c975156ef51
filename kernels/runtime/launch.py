"""The one way to launch a Triton kernel: by a case that its file has declared.

A case is a kernel compiled one way: types, constants, warps, stages, and which sizes are multiples of 16.
Nothing else is ever compiled, so what `python -m tritone.kernels` compiles ahead of time, without a GPU, is
all that can run on one. Triton would by itself compile anew for an argument of 1 or a multiple of 16; here
pointers are always multiples of 16, sizes are where the case says so, and other numbers never count.
"""

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# What kernels are declared for. The configurations of sm_80 keep below 99 KiB of shared memory, which
# consumer cards (8.6, 8.9, 12.x) have too.
ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "gfx942")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # of values; float64 goes to the references
ALIGNMENTS = ("aligned", "any")  # part of most keys, see `alignment`
_TYPE_NAMES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float64: "fp64",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.bool: "i1",
}
_NUMBERS = {tl.int32: "i32", tl.float32: "fp32"}
_ALIGNMENT = 16

if torch.version.hip is not None:
    # On AMD's GPUs Triton would also compile anew for each pointer to less than 2 GiB.
    triton.knobs.amd.use_buffer_ops = False

KERNELS: list["Kernel"] = []  # every kernel of the modules imported so far, in the order of their import


class UndeclaredCaseError(RuntimeError):
    """A launch that no declared case covers."""


class Kernel:
    """A Triton function and the cases that it is compiled for.

    Pointer parameters end in `_ptr`, constants are annotated `tl.constexpr`, other numbers `tl.int32` or
    `tl.float32`.

    Args:
        function: the body, not yet compiled.
        sizes: parameters that are multiples of 16 in aligned cases, so that rows can be read by vectors.
    """

    def __init__(self, function: Callable[..., Any], sizes: tuple[str, ...] = ()) -> None:
        self.name = function.__name__
        self.sizes = sizes
        self.types: dict[str, str | None] = {}  # run-time parameters: a number's type, None for a pointer
        for parameter in inspect.signature(function).parameters.values():
            if parameter.annotation is not tl.constexpr:
                pointer = parameter.name.endswith("_ptr")
                self.types[parameter.name] = None if pointer else _NUMBERS[parameter.annotation]
        numbers = [name for name, kind in self.types.items() if kind is not None]
        self.plain = triton.jit(function, do_not_specialize=numbers)
        self.aligned = triton.jit(function, do_not_specialize=[name for name in numbers if name not in sizes])
        self.cases: dict[tuple[str, tuple[Hashable, ...]], Case] = {}
        KERNELS.append(self)

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
        """Add a case, found again by its architecture and `key`.

        Args:
            pointers: element types, by parameter.
            num_warps, num_stages: of the compiler. Depend on what the key says and on nothing else: not on
                how many rows share a launch.
            aligned: the kernel's `sizes` are multiples of 16.
            constants: by parameter.
        """
        types = tuple(
            (name, f"*{_TYPE_NAMES[pointers[name]]}" if kind is None else kind)
            for name, kind in self.types.items()
        )
        case = Case(self, architecture, key, types, tuple(constants.items()), aligned, num_warps, num_stages)
        if self.cases.setdefault((architecture, key), case) is not case:
            raise ValueError(f"{self.name} declares {key} for {architecture} twice")

    def case(self, device: torch.device, *key: Hashable) -> "Case":
        """The case for this device.

        Raises:
            UndeclaredCaseError: there is none.
        """
        architecture = architecture_of(device)
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
    """A kernel compiled one way.

    Args:
        kernel: of which.
        architecture: one of `ARCHITECTURES`.
        key: what it is for, as `Kernel.case` is asked for it.
        types: run-time parameters in order, with Triton's names of their types ("*fp16", "i32").
        constants: compile-time parameters.
        aligned: the kernel's sizes are multiples of 16.
        num_warps, num_stages: of the compiler.
    """

    kernel: Kernel
    architecture: str
    key: tuple[Hashable, ...]
    types: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: bool
    num_warps: int
    num_stages: int

    @property
    def label(self) -> str:
        """For people: kernel and key."""
        parts = [_TYPE_NAMES[part] if isinstance(part, torch.dtype) else str(part) for part in self.key]
        return " ".join([self.kernel.name.removesuffix("_kernel"), *parts])

    @property
    def options(self) -> dict[str, Any]:
        """The compiler's options; fusing multiplications with additions is said outright, or a newer
        Triton would change results."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}

    @property
    def multiples(self) -> list[str]:
        """Parameters that are multiples of 16: all pointers, and the sizes of an aligned case."""
        sizes = self.kernel.sizes if self.aligned else ()
        return [name for name, kind in self.types if kind.startswith("*") or name in sizes]

    def constant(self, name: str) -> Any:
        """A compile-time parameter, such as the block size that a grid is made of."""
        return dict(self.constants)[name]

    def launch(self, grid: tuple[int, ...], *arguments: Tensor | int | float) -> None:
        """Run over `grid`; nothing where a side of it is 0.

        Args:
            arguments: run-time parameters in order; tensors contiguous and at a multiple of 16 bytes, see
                `ready`.

        Raises:
            UndeclaredCaseError: arguments that would compile another kernel than the one declared.
        """
        if 0 in grid:
            return
        self._check(arguments)
        for record in _records:
            record.append(self)
        if _dry:
            return
        run = self.kernel.aligned if self.aligned else self.kernel.plain
        first = next(argument for argument in arguments if isinstance(argument, Tensor))
        with torch.cuda.device(first.device.index if first.is_cuda else -1):
            run[grid](*arguments, **dict(self.constants), **self.options)

    def _check(self, arguments: tuple[Tensor | int | float, ...]) -> None:
        if len(arguments) != len(self.types):
            raise TypeError(f"{self.label} takes {len(self.types)} arguments, got {len(arguments)}")
        for (name, kind), argument in zip(self.types, arguments, strict=True):
            if isinstance(argument, Tensor):
                given = f"*{_TYPE_NAMES.get(argument.dtype, argument.dtype)}"
                fits = given == kind and argument.data_ptr() % _ALIGNMENT == 0 and argument.is_contiguous()
            elif kind == "fp32":
                given, fits = "number", True
            else:
                given = str(argument)
                multiple = not self.aligned or name not in self.kernel.sizes or argument % _ALIGNMENT == 0
                fits = kind == "i32" and -(2**31) <= argument < 2**31 and multiple
            if not fits:
                if isinstance(argument, Tensor):
                    past = argument.data_ptr() % _ALIGNMENT
                    given += f" of shape {list(argument.shape)}, {past} bytes past a multiple of {_ALIGNMENT}"
                multiple_of = f", a multiple of {_ALIGNMENT}" if name in self.multiples else ""
                raise UndeclaredCaseError(
                    f"{self.label} is declared with {name} as {kind}{multiple_of}; got {given}"
                )


def kernel(*, sizes: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Kernel]:
    """Decorator: make a Triton function a `Kernel`.

    Args:
        sizes: see `Kernel`.
    """
    return lambda function: Kernel(function, sizes)


def ready(tensor: Tensor) -> Tensor:
    """`tensor` as a kernel takes it, contiguous and at a multiple of 16 bytes: a copy where it is not."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone()


def alignment(*sizes: int) -> str:
    """Part of a case's key: "aligned" if all of these sizes are multiples of 16, so that rows are read by
    vectors, else "any"."""
    return "any" if any(size % _ALIGNMENT for size in sizes) else "aligned"


def architecture_of(device: torch.device) -> str:
    """Which of `ARCHITECTURES` a device's kernels are declared for; in the interpreter, Hopper's."""
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


def precision(dtype: torch.dtype) -> str:
    """Triton's `input_precision` of a product: float32 as such, never in tf32, which is Triton's default."""
    return "ieee" if dtype == torch.float32 else "tf32"


def interpreting() -> bool:
    """Whether CPU tensors go to the kernels too, in Triton's interpreter (TRITON_INTERPRET=1)."""
    return bool(triton.knobs.runtime.interpret)


_compiled: list[str] = []


def compiled() -> int:
    """Kernels that Triton has got ready in this process so far, compiled or read from its cache on disk: by
    any thread, for any engine, ours or not. Stays 0 in the interpreter, which compiles nothing.
    """
    return len(_compiled)


def _count_compilations() -> None:
    """Have Triton tell of every kernel that it had to get ready in the middle of a launch. Its own hook and
    not a note of which cases were launched: a launch that compiles its case a second time shows too.
    """
    earlier = triton.knobs.runtime.jit_post_compile_hook  # whoever else listens goes on hearing

    def count(*arguments: Any, **named: Any) -> bool | None:
        _compiled.append(str(named.get("repr", "")))  # one step, so that threads lose no count
        return None if earlier is None else earlier(*arguments, **named)

    triton.knobs.runtime.jit_post_compile_hook = count


_count_compilations()

_records: list[list[Case]] = []
_dry = False


@contextmanager
def recorded(*, dry: bool = False) -> Iterator[list[Case]]:
    """Collect every case launched inside, in order.

    Args:
        dry: collect only and launch nothing; outputs are whatever their memory held. For what a model too
            large to run here would launch.
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
