"""The cache of compiled cases' figures: hits, misses and damaged files."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tritone.kernels import __main__ as command
from tritone.kernels.runtime import compile_cache, launch
from tritone.kernels.runtime.compilation import Resources
from tritone.kernels.runtime.launch import Case, Kernel

SOURCE = '''
import torch
import triton
import triton.language as tl

SHIFT = tl.constexpr(1)

@triton.jit
def shifted(value):
    """Add the shift."""
    return value + SHIFT  # of the module

def shifting_kernel(values_ptr, BLOCK: tl.constexpr):
    values = tl.load(values_ptr + tl.arange(0, BLOCK))
    tl.store(values_ptr + tl.arange(0, BLOCK), shifted(values))
'''


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("TRITONE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def declared(tmp_path: Path, source: str = SOURCE, num_warps: int = 4, block: int = 16) -> Case:
    """The case of a kernel in a module of this source."""
    path = tmp_path / f"shifting{len(list(tmp_path.iterdir()))}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("shifting", path)
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kernel = Kernel(module.shifting_kernel)
    launch.KERNELS.remove(kernel)
    pointers = {"values_ptr": module.torch.float32}
    kernel.declare(architecture="sm_90", pointers=pointers, num_warps=num_warps, BLOCK=block)
    return kernel.cases["sm_90", ()]


def figures(case: Case, stack: int = 0) -> Resources:
    sizes = {"registers": 20, "shared": 0, "stack": stack, "local": 0, "threads": 128}
    code = {"copy_bytes": 0, "loop_instructions": 0, "loop_waits": 0}
    return Resources(case.label, case.architecture, **sizes, **code, matrix_unit="", asynchronous=False)


def test_figures_are_found_again_whatever_comments_say_and_wherever_the_function_stands(tmp_path):
    first = declared(tmp_path)
    assert compile_cache.load(first) is None
    compile_cache.save(first, figures(first))
    moved = "\n\n# Moved.\n" + SOURCE.replace("Add the shift.", "Other words.").replace(
        "  # of the module", ""
    )
    assert compile_cache.load(declared(tmp_path, moved)) == figures(first)


@pytest.mark.parametrize(
    "change",
    [
        {"source": SOURCE.replace("shifted(values)", "shifted(values) * 2")},
        {"source": SOURCE.replace("value + SHIFT", "value - SHIFT")},
        {"source": SOURCE.replace("constexpr(1)", "constexpr(2)")},
        {"num_warps": 8},
        {"block": 32},
    ],
    ids=["kernel", "called function", "constant of the module", "warps", "block"],
)
def test_a_change_of_source_or_options_is_compiled_anew(change, tmp_path):
    first = declared(tmp_path)
    compile_cache.save(first, figures(first))
    assert compile_cache.load(declared(tmp_path, **change)) is None


def test_another_version_of_triton_is_compiled_anew(tmp_path, monkeypatch):
    case = declared(tmp_path)
    compile_cache.save(case, figures(case))
    compile_cache.mark_complete()
    monkeypatch.setattr(compile_cache.triton, "__version__", "0.0")
    assert compile_cache.load(case) is None
    assert not compile_cache.is_complete()


@pytest.mark.parametrize("damaged", ["", "{", "[]", "{}", '{"label": "a"}', "\x00"])
def test_a_damaged_file_is_ignored_and_written_anew(damaged, tmp_path, cache, monkeypatch):
    case = declared(tmp_path)
    compile_cache.save(case, figures(case))
    (file,) = cache.iterdir()
    file.write_text(damaged)
    monkeypatch.setattr(compile_cache, "compile_all", lambda cases, jobs: map(figures, cases))
    assert list(compile_cache.compile_cached([case], 1)) == [(figures(case), False)]
    assert list(compile_cache.compile_cached([case], 1)) == [(figures(case), True)]


def test_changed_cases_are_those_not_cached_since_all_of_them_compiled(tmp_path, monkeypatch, capsys):
    compiled: list[Case] = []
    stack = 0

    def compile_all(cases: list[Case], jobs: int) -> Iterator[Resources]:
        compiled.extend(cases)
        return iter([figures(case, stack) for case in cases])

    cases = [declared(tmp_path, block=block) for block in (16, 32)]
    monkeypatch.setattr(compile_cache, "compile_all", compile_all)
    monkeypatch.setattr(command, "declared_cases", lambda: cases)

    def ran(*arguments: str) -> tuple[int, list[Case]]:
        compiled.clear()
        return command.main([*arguments, "--jobs", "1"]), list(compiled)

    assert ran("--changed") == (0, cases[1:])  # a sample, as long as there was no complete run
    assert ran("--changed") == (0, [])
    stack = 8
    assert ran() == (1, cases[:1])
    assert ran() == (1, cases[:1])  # what is wrong is not cached
    stack = 0
    assert ran() == (0, cases[:1])
    assert ran("--changed") == (0, [])
    cases[0] = declared(tmp_path, SOURCE.replace("+ SHIFT", "- SHIFT"))
    assert ran("--changed") == (0, cases[:1])
    assert "2 cases of 1 kernels: 1 compiled, 1 from the cache" in capsys.readouterr().out
