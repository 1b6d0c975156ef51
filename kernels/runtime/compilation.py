"""Ahead-of-time compilation of declared kernel cases without a GPU, and their machine code's resources."""

import hashlib
import importlib
import pkgutil
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .launch import DTYPE_OF, KERNELS, Case
from .machine_code import of_amdgcn, of_sass
from .optional_triton import MISSING, triton

# Triton's targets: backend, architecture, threads of a warp.
Target = tuple[str, int | str, int]
TARGETS: dict[str, Target] = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}
# Shared memory that a program may have, in bytes. sm_80's is that of the consumer cards it stands for.
SHARED_LIMITS = {"sm_80": 99 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}
# Of one multiprocessor, from the vendors' tables for 8.0, 9.0 and 10.0. For gfx942 registers are left out.
_REGISTERS = {"sm_80": 65_536, "sm_90": 65_536, "sm_100": 65_536}
_SHARED_MEMORY = {"sm_80": 164 << 10, "sm_90": 228 << 10, "sm_100": 228 << 10, "gfx942": 64 << 10}
_RESERVED_SHARED = 1 << 10  # bytes that CUDA takes for itself in each program
_MAX_THREADS = 2048


@dataclass(frozen=True, slots=True)
class Resources:
    """Registers, shared memory and spills of one compiled kernel case."""

    label: str  # `Case.label`
    architecture: str
    registers: int  # per thread
    shared: int  # bytes of shared memory per program
    stack: int  # bytes per thread spilled from registers to memory; likewise `local`
    local: int
    matrix_unit: str  # the instruction that multiplies matrices, "" for none
    asynchronous: bool  # copies to shared memory run beside the arithmetic
    threads: int  # per program
    copy_bytes: int  # as of `CodeFigures`
    loop_instructions: int
    loop_waits: int

    @property
    def programs(self) -> int:
        """Programs that one multiprocessor holds at a time, by its registers, memory and threads."""
        limits = [_MAX_THREADS // self.threads]
        if self.architecture in _REGISTERS and self.registers:
            per_warp = -(-self.registers * 32 // 256) * 256  # registers are given out 256 at a time
            limits.append(_REGISTERS[self.architecture] // (per_warp * (self.threads // 32)))
        if self.shared:
            limits.append(_SHARED_MEMORY[self.architecture] // (self.shared + _RESERVED_SHARED))
        return min(limits)

    @property
    def complaint(self) -> str | None:
        """Description of the resource limit that this case exceeds, or None."""
        limit = SHARED_LIMITS[self.architecture]
        if self.shared > limit:
            return f"{self.shared} bytes of shared memory, and {self.architecture} has {limit}"
        if self.architecture == "sm_90" and (self.stack or self.local):
            return f"{self.stack} bytes of stack and {self.local} of local memory: registers ran out"
        return None


def declared_cases() -> list[Case]:
    """List every declared case of every kernel in `tritone.kernels`, importing all of its modules."""
    package = importlib.import_module("tritone.kernels")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return [case for kernel in KERNELS for case in kernel.cases.values()]


def compile_all(cases: Iterable[Case], jobs: int) -> Iterator[Resources]:
    """Compile cases in `jobs` processes (1: in this one), and yield their resources in the given order."""
    check_compiler()
    if jobs == 1:
        yield from map(compile_case, cases)
        return
    numbers = {id(case): number for number, case in enumerate(declared_cases())}
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_compile_number, [numbers[id(case)] for case in cases], chunksize=4)


@cache
def _numbered() -> list[Case]:
    return declared_cases()


def _compile_number(number: int) -> Resources:
    """Compile a case in a worker process by its index: cases hold functions, which cannot be pickled."""
    return compile_case(_numbered()[number])


def check_compiler() -> None:
    """Raise RuntimeError, with the remedy, if Triton is missing or set to interpret kernels."""
    if MISSING is not None:
        raise RuntimeError(
            f"Triton cannot be imported ({MISSING}); install it: it runs on Linux"
        ) from MISSING
    if triton.knobs.runtime.interpret:
        raise RuntimeError(
            "TRITON_INTERPRET=1 is set, and interpreted functions cannot be compiled; unset it"
        )


def compile_case(case: Case) -> Resources:
    """Compile a case as a launch on its architecture would, and return its resources."""
    return resources_of(case, compiled_kernel(case))


def compiled_kernel(case: Case) -> Any:
    """Triton's compiled kernel of a case, with its texts in `asm`: ttir, ttgir, llir, ptx, cubin, amdgcn."""
    return compiled_case(case, TARGETS[case.architecture])


def resources_of(case: Case, compiled: Any) -> Resources:
    """Resources of a case, from Triton's compiled kernel."""
    if case.architecture.startswith("gfx"):
        return _of_amdgcn(case, compiled.asm["amdgcn"], compiled.metadata.shared)
    return _of_cubin(case, compiled.asm["cubin"], compiled.asm["ptx"], compiled.metadata.shared)


def compiled_case(case: Case, target: Target) -> Any:
    """Triton's compiled kernel of a case, from its disk cache or made anew, under the key of a launch."""
    with _as_launched(target):
        return triton.compile(_source(case, target), target=_gpu(target), options=case.options)


def is_compiled(case: Case, target: Target) -> bool:
    """True if Triton's disk cache holds a case; False also where Triton does not let one look."""
    try:
        from triton.compiler.compiler import get_cache_invalidating_env_vars, get_cache_key, make_backend
        from triton.runtime.cache import get_cache_manager
    except ImportError:
        return False
    source = _source(case, target)
    backend = make_backend(_gpu(target))
    with _as_launched(target):
        variables = get_cache_invalidating_env_vars()
    key = get_cache_key(source, backend, backend.parse_options(dict(case.options)), variables)
    group = get_cache_manager(hashlib.sha256(key.encode()).hexdigest()).get_group(f"{source.name[:150]}.json")
    return bool(group)


def _gpu(target: Target) -> Any:
    from triton.backends.compiler import GPUTarget

    return GPUTarget(*target)


@contextmanager
def _as_launched(target: Target) -> Iterator[None]:
    """Settings of a launch, which are part of Triton's key: on AMD those of launch.py, elsewhere none."""
    with triton.knobs.amd.scope():
        if target[0] == "hip":
            triton.knobs.amd.use_buffer_ops = False
        yield


def _source(case: Case, target: Target) -> Any:
    """Triton's source of a case, with the key that a launch has."""
    from triton.compiler import ASTSource

    function, signature, attributes = specialization(case)
    constants = dict(case.constants)
    try:
        asked = _asked(case, function, target)
    except (AttributeError, ImportError, TypeError):  # another interface: a launch may compile once more
        return ASTSource(function, signature, constants, attributes)
    if (asked[0], {place: found for place, found in asked[2].items() if found}) != (signature, attributes):
        raise RuntimeError(f"Triton would specialize {case.label} otherwise than it is declared: {asked}")
    return ASTSource(function, *asked)


def _asked(case: Case, function: Any, target: Target) -> tuple[dict[str, str], Any, Any]:
    """Types, constants and attributes that Triton itself gives a launch of a case.

    Its key holds attributes that are empty, which change nothing: those of string constants in 3.6, of all
    constants in 3.9. Without them a launch would not find what was compiled ahead of time.
    """
    from triton.compiler.compiler import make_backend
    from triton.runtime.jit import create_function_from_signature

    backend = make_backend(_gpu(target))
    bind = create_function_from_signature(function.signature, function.params, backend)
    arguments = [example(case, name, kind) for name, kind in case.types]
    bound, special, options = bind(*arguments, **dict(case.constants), **case.options)
    _, *asked = function._pack_args(backend, dict(case.options), bound, special, options)
    return tuple(asked)  # type: ignore[return-value]


def example(case: Case, name: str, kind: str) -> torch.Tensor | float:
    """Argument that a launch of a case may have: aligned tensor, float, or integer of its multiple."""
    if kind.startswith("*"):
        return torch.empty(16, dtype=DTYPE_OF[kind[1:]])
    return 0.5 if kind == "fp32" else 16 if name in case.multiples else 3


def variant(case: Case, changes: Mapping[str, Any]) -> Case:
    """Copy of a case with other constants, num_warps or num_stages.

    Raises:
        ValueError: a name that the case does not have.
    """
    constants = dict(case.constants)
    options: dict[str, Any] = {"num_warps": case.num_warps, "num_stages": case.num_stages}
    for name, value in changes.items():
        if name not in constants and name not in options:
            known = ", ".join([*constants, *options])
            raise ValueError(f"{case.label} has no constant or option {name}; it has {known}")
        (options if name in options else constants)[name] = value
    return replace(case, constants=tuple(constants.items()), **options)


def disassembly(cubin: bytes) -> str:
    """SASS of a cubin, as text."""
    return _cuobjdump(cubin, "--dump-sass")


def specialization(case: Case) -> tuple[Any, dict[str, str], dict[tuple[int], list[list[Any]]]]:
    """Triton's specialization of a case: function, parameter types, and divisibility attributes."""
    function = case.kernel.aligned if case.aligned else case.kernel.plain
    types = dict(case.types) | dict.fromkeys(dict(case.constants), "constexpr")
    signature = {name: types[name] for name in function.arg_names}
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(function.arg_names)
        if name in case.multiples
    }
    return function, signature, attributes


def _of_cubin(case: Case, cubin: bytes, ptx: str, shared: int) -> Resources:
    listing = _cuobjdump(cubin, "--dump-resource-usage", "--dump-sass")
    usage = {name: int(count) for name, count in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", listing)}
    units = [unit for unit in ("tcgen05", "wgmma", "mma.sync") if re.search(rf"\b{unit}", ptx)]
    return Resources(
        case.label,
        case.architecture,
        registers=usage["REG"],
        shared=shared,
        stack=usage["STACK"],
        local=usage["LOCAL"],
        matrix_unit=units[0] if units else "",
        asynchronous="cp.async" in ptx,
        threads=32 * case.num_warps,
        **asdict(of_sass(listing)),
    )


def _cuobjdump(cubin: bytes, *options: str) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, *options, file.name], capture_output=True, text=True, check=True).stdout


def _of_amdgcn(case: Case, text: str, shared: int) -> Resources:
    """Resources in the metadata of AMD assembly, whose register count covers two register files."""

    def figure(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", text)
        return int(found[1]) if found else 0

    return Resources(
        case.label,
        case.architecture,
        registers=figure("vgpr_count"),
        shared=shared,
        stack=figure("private_segment_fixed_size"),
        local=4 * figure("vgpr_spill_count"),
        matrix_unit="mfma" if "v_mfma" in text else "",
        asynchronous=False,
        threads=64 * case.num_warps,
        **asdict(of_amdgcn(text)),
    )
