"""One process a core with one thread each, and where kernels run: a GPU, or Triton's interpreter."""

import importlib
import os
import pkgutil
from collections.abc import Iterator

import numpy as np
import pytest
import torch

# Every core has a worker, so each, and each process that it starts, takes one.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# Whether functions are interpreted is settled when they are defined, so the variable must be there before
# triton is imported for the first time. It is taken away again so that the CPU paths stay what tests of CPU
# tensors get, here and in processes that tests start; the fixture `kernels_on` brings it back for a test.
INTERPRETED = not torch.cuda.is_available()
if INTERPRETED:
    os.environ["TRITON_INTERPRET"] = "1"
    package = importlib.import_module("tritone.kernels")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    del os.environ["TRITON_INTERPRET"]

    import triton.language as tl
    from triton.runtime import interpreter
    from triton.runtime.interpreter import GridExecutor, InterpretedFunction, InterpreterBuilder, TensorHandle

    def create_dot(self, a, b, d, input_precision, max_num_imprecise_acc):
        """A product whose every element is summed in the order of k, as on a GPU: NumPy's BLAS gives a row
        other bits at another place in the tile."""
        left, right = a.data.astype(d.data.dtype), b.data.astype(d.data.dtype)
        total = np.einsum("...mk,...kn->...mn", left, right, optimize=False)
        return TensorHandle(total + d.data, d.dtype.scalar)

    InterpreterBuilder.create_dot = create_dot

    patched: set[int] = set()  # modules whose members the interpreter has replaced in this launch
    launch = GridExecutor.__call__

    def launch_with_language(self, *arguments, **constants):
        patched.clear()
        patched.add(id(tl))
        return launch(self, *arguments, **constants)

    def call_device_function(self, *arguments, **constants):
        """Call a device function from a kernel.

        Triton's own replaces the members of triton.language in every call, which takes 0.4 ms: a third of the
        time of kernels with many device functions. Once a launch suffices.
        """
        languages = {id(value) for value in self.fn.__globals__.values() if value is tl or value is tl.core}
        if not languages <= patched:
            interpreter._patch_lang(self.fn)
            patched.update(languages)
        return self.rewrite()(*arguments, **constants)

    GridExecutor.__call__ = launch_with_language
    InterpretedFunction.__call__ = call_device_function


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Workers of `-n auto`: the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that run kernels, which takes long in the interpreter: `make fast` leaves them out."""
    for item in items:
        on_kernels = "kernels_on" in getattr(item, "fixturenames", ())
        if on_kernels or ("callspec" in vars(item) and item.callspec.params.get("device") == "kernels"):
            item.add_marker("kernels")


@pytest.fixture
def kernels_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The device whose tensors go to the kernels in this test; memory not written to is NaN there."""
    if INTERPRETED:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    filled = torch.utils.deterministic.fill_uninitialized_memory
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield "cpu" if INTERPRETED else "cuda"
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    torch.utils.deterministic.fill_uninitialized_memory = filled


@pytest.fixture(params=["float32", "float16", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """The types that kernels are compiled for."""
    on_kernels = request.node.callspec.params.get("device") != "cpu"
    if INTERPRETED and request.param == "bfloat16" and on_kernels:
        pytest.skip("Triton's interpreter multiplies bfloat16 as bit patterns; a GPU is needed")
    return getattr(torch, request.param)
