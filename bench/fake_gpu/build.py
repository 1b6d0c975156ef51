"""Compilation of the fake GPU's two libraries by g++, once for each torch and Python."""

import hashlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import torch

from tritone.kernels.runtime.compile_cache import cache_folder

_SOURCES = ("libcuda.c", "tensors.cpp")


def build() -> Path:
    """Compile the libraries, unless an earlier run has, and return their folder.

    Raises:
        RuntimeError: g++ or Python's headers are missing, or the compiler's errors.
    """
    here = Path(__file__).parent
    digest = hashlib.sha256(repr((torch.__version__, sysconfig.get_config_var("SOABI"))).encode())
    for name in _SOURCES:
        digest.update((here / name).read_bytes())
    folder = cache_folder().parent / "fake_gpu" / digest.hexdigest()[:16]
    if (folder / "fake_tensors.so").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        _compile(here, partial)
        partial.rename(folder)
    except OSError:  # another process was faster
        if not (folder / "fake_tensors.so").exists():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _compile(here: Path, folder: Path) -> None:
    import triton

    headers = Path(triton.__file__).parent / "backends" / "nvidia" / "include"
    root = Path(torch.__file__).parent
    shared = ["-shared", "-fPIC", "-w"]
    includes = [root / "include", root / "include/torch/csrc/api/include", sysconfig.get_paths()["include"]]
    _run(
        os.environ.get("CC", "gcc"), "-O2", *shared, "-Wl,-soname,libcuda.so.1", f"-I{headers}",
        str(here / "libcuda.c"), "-o", str(folder / "libcuda.so.1"), "-lpthread",
    )  # fmt: skip
    _run(
        os.environ.get("CXX", "g++"), "-O1", "-std=c++20", *shared, *(f"-I{path}" for path in includes),
        str(here / "tensors.cpp"), "-o", str(folder / "fake_tensors.so"),
        f"-L{folder}", "-l:libcuda.so.1", f"-L{root / 'lib'}", "-lc10", "-ltorch_cpu",
    )  # fmt: skip


def _run(*command: str) -> None:
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"the fake GPU needs {command[0]} and Python's headers; install a C++ compiler")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")
