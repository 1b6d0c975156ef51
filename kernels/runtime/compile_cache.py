"""Disk cache of compiled cases' resources, so that only cases of changed kernels are compiled again."""

import ast
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from .compilation import Resources, check_compiler, compile_all
from .launch import Case, Kernel
from .optional_triton import tl, triton

_VERSION = 2  # of `compile_case`: raise it when its options or results change


def cache_folder() -> Path:
    """Folder of the disk cache: `$TRITONE_CACHE`, or `tritone/kernels` in the user's cache folder."""
    if given := os.environ.get("TRITONE_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tritone" / "kernels"


def compile_cached(cases: Sequence[Case], jobs: int) -> Iterator[tuple[Resources, bool]]:
    """Yield each case's resources, in the given order, and True if they come from the cache.

    Other cases are compiled by `jobs` processes, and cached unless they exceed a limit.
    """
    check_compiler()
    found = [load(case) for case in cases]
    compiled = compile_all([case for case, old in zip(cases, found, strict=True) if old is None], jobs)
    for case, old in zip(cases, found, strict=True):
        resources = old or next(compiled)
        if old is None and resources.complaint is None:
            save(case, resources)
        yield resources, old is not None


def load(case: Case) -> Resources | None:
    """Read a case's resources from the cache; None if there are none or their file is damaged."""
    try:
        return Resources(**json.loads((cache_folder() / case_key(case)).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def save(case: Case, resources: Resources) -> None:
    """Write a case's resources to the cache, atomically."""
    path = cache_folder() / case_key(case)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(asdict(resources)))
    partial.replace(path)


def case_key(case: Case) -> str:
    """Digest of all that determines a case's machine code: specialization, options, sources and Triton.

    Comments, docstrings and a function's position in its file do not count.
    """
    parts = (case.architecture, case.label, case.types, case.constants, case.multiples, case.options)
    text = repr((_VERSION, triton.__version__, parts, _sources(case.kernel)))
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _sources(kernel: Kernel) -> list[tuple[str, str]]:
    """Names and sources of a kernel's function and the Triton functions and constants that it uses."""
    found: dict[str, str] = {}

    def visit(jitted: Any) -> None:
        function = jitted.fn
        name = f"{function.__module__}.{function.__qualname__}"
        if name in found:
            return
        tree = ast.parse(jitted.src)
        if ast.get_docstring(tree.body[0]) is not None:  # type: ignore[arg-type]  # a function
            tree.body[0].body.pop(0)  # type: ignore[attr-defined]
        found[name] = ast.dump(tree)
        for used in function.__code__.co_names:
            value = function.__globals__.get(used)
            if hasattr(value, "fn") and hasattr(value, "src"):
                visit(value)
            elif isinstance(value, (int, float, str, tl.constexpr)):
                found[f"{function.__module__}.{used}"] = repr(value)

    visit(kernel.plain)
    return sorted(found.items())


def mark_complete() -> None:
    """Record that every declared case has compiled with this version of Triton."""
    path = _complete()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def is_complete() -> bool:
    """True once every declared case has compiled with this Triton: uncached cases have changed since."""
    return _complete().exists()


def _complete() -> Path:
    return cache_folder() / f"complete-{_VERSION}-{triton.__version__}"
