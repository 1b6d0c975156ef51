"""A kernel of the user's in place of the shipped one: its checks, its compiled code, and its time.

    python -m bench.kernels --solution FILE.py:FUNCTION [--operation NAME] [--kernel NAME] [--case WORDS]

FUNCTION has the arguments of the operation's reference and by default its name; it returns NotImplemented for
calls to leave to the shipped kernel. It may launch functions of `triton.jit` or of `tritone.kernels`.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton

from tritone.kernels import use
from tritone.kernels.__main__ import HEADER, table_line
from tritone.kernels.runtime.compilation import TARGETS, compile_case, resources_of
from tritone.kernels.runtime.launch import architecture_of, recorded

from .cases import Case, Setup
from .measure import checked, reason


@dataclass(frozen=True, slots=True)
class Solution:
    """A user's function, and the operation that it implements."""

    function: Callable[..., Any]
    operation: str

    @classmethod
    def load(cls, place: str, operation: str | None) -> "Solution":
        """Import a function by FILE.py:FUNCTION.

        Raises:
            ValueError: another form, or no such file or function.
        """
        file, _, name = place.rpartition(":")
        if not file or not name.isidentifier():
            raise ValueError(f"--solution takes FILE.py:FUNCTION, got {place!r}")
        if not Path(file).is_file():
            raise ValueError(f"--solution: there is no file {file}")
        spec = importlib.util.spec_from_file_location(Path(file).stem, file)
        if spec is None or spec.loader is None:
            raise ValueError(f"--solution: {file} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        if not hasattr(module, name):
            raise ValueError(f"--solution: {file} has no function {name}")
        return cls(getattr(module, name), operation or name)

    def check(self, case: Case, setup: Setup) -> str:
        """Compare the outputs for a case with its reference; returns a line of PASS, FAIL or unused."""
        title = f"{str(setup.dtype).removeprefix('torch.')} {case.kernel}, {case.label}"
        prepared = case.prepare(setup)
        with use(self.operation, self.function) as replacement:
            try:
                error = checked(prepared.ours, prepared)
            except Exception as problem:
                return f"FAIL {title}: {reason(problem)}"
        if not replacement.calls:
            return f"unused {title}: left to the shipped kernel"
        return f"PASS {title}: error {error:.1e}"

    def compiled(self, cases: Sequence[Case], dtype: torch.dtype) -> list[str]:
        """Table of the compiled code of all launches in these cases, without the shipped kernels."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        architecture = architecture_of(device)
        found: dict[str, str] = {}
        with compiling(architecture) as launched, recorded(dry=True) as declared:
            for case in cases:
                prepared = case.prepare(Setup(torch.device("cpu"), dtype, 1))
                with use(self.operation, self.function):
                    prepared.ours.run(0)
        found |= {one.label: table_line(resources_of(one, one.kernel)) for one in launched}
        own = sys.modules[self.function.__module__]
        found |= {
            case.label: table_line(compile_case(case))
            for case in declared
            if case.kernel.plain.fn.__module__ == own.__name__
        }
        return [HEADER, *found.values()]


@dataclass(frozen=True, slots=True)
class Launched:
    """Compiled kernel of a launch, with what `resources_of` asks of a declared case."""

    label: str
    architecture: str
    num_warps: int
    kernel: Any


@contextmanager
def compiling(architecture: str) -> Iterator[list[Launched]]:
    """Context in which launches of `triton.jit` functions compile for an architecture and do nothing else."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler.compiler import make_backend
    from triton.runtime.jit import JITFunction, create_function_from_signature

    target = GPUTarget(*TARGETS[architecture])
    launched: list[Launched] = []

    def run(function: Any, *arguments: Any, grid: Any, warmup: bool = False, **options: Any) -> None:
        backend = make_backend(target)
        bind = create_function_from_signature(function.signature, function.params, backend)
        bound, special, given = bind(*arguments, **options)
        chosen, *asked = function._pack_args(backend, options, bound, special, given)
        kernel = triton.compile(ASTSource(function, *asked), target=target, options=chosen.__dict__)
        types = [kind.removeprefix("*") for kind in asked[0].values() if kind.startswith("*")]
        constants = [str(bound[name]) for name, kind in asked[0].items() if kind == "constexpr"]
        label = " ".join([function.fn.__name__.removesuffix("_kernel"), *dict.fromkeys(types), *constants])
        launched.append(Launched(label, architecture, kernel.metadata.num_warps, kernel))

    shipped = JITFunction.run
    JITFunction.run = run
    try:
        yield launched
    finally:
        JITFunction.run = shipped
