"""`triton` and `triton.language`, or stand-ins where Triton cannot be imported, for use on the CPU alone.

Kernel modules import both names from here. With the stand-ins they can be imported, and a launch raises.
"""

from types import SimpleNamespace
from typing import Any

try:
    import triton
    import triton.language as tl

    MISSING: ImportError | None = None
except ImportError as error:
    MISSING = error

    def _refuse(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError(
            f"Triton cannot be imported ({MISSING}), and kernels on a GPU need it: install it with "
            "`pip install 'triton>=3.6,<3.10'` (Linux), or run on the CPU with device='cpu'"
        ) from MISSING

    class _Uncompiled:
        """Stand-in for a jitted function; a launch, `function[grid](...)`, raises RuntimeError."""

        def __init__(self, function: Any) -> None:
            self.function = function

        __getitem__ = __call__ = _refuse

    def _jit(function: Any = None, **options: Any) -> Any:
        return _Uncompiled if function is None else _Uncompiled(function)

    class _Constant:
        """Stand-in for `tl.constexpr`, as an annotation or as a module's constant."""

        def __init__(self, value: Any) -> None:
            self.value = value

    knobs = SimpleNamespace(
        runtime=SimpleNamespace(interpret=False, jit_post_compile_hook=None), amd=SimpleNamespace()
    )
    triton = SimpleNamespace(jit=_jit, cdiv=_refuse, next_power_of_2=_refuse, knobs=knobs)
    tl = SimpleNamespace(
        constexpr=_Constant, int32="int32", int64="int64", float32="float32", uint32="uint32"
    )

__all__ = ["MISSING", "tl", "triton"]
