"""Reader of Keras' HDF5 files: h5py locates the tensors, which are copied from the mapped file."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from .extras import require_package
from .mapped_file import MAX_TENSORS, MappedFile

_SCRIPT = Path(__file__).with_name("keras_h5_table.py")
_TIMEOUT = 600  # seconds for a file's table, on a slow disk


def read_h5(path: Path) -> dict[str, Tensor]:
    """Read every tensor of an HDF5 file, by the path of groups that leads to it.

    Only contiguous datasets are read, as Keras writes them. Links to other files, data in other files, and
    compressed data, which may unpack to any size, are refused. h5py runs in a process of its own, since its C
    library does not survive every damaged file.

    Raises:
        ImportError: h5py is not installed.
        ValueError: a damaged file, or one with data of a kind that is not read.
    """
    require_package(path, "h5py", "h5py", "tensorflow")
    tensors: dict[str, Tensor] = {}
    with MappedFile(path) as file:
        for name, dtype, shape, offset, size in _table(file):
            file.check_name(name, len(tensors))
            if name in tensors:
                raise file.damaged(f"it has {name!r} twice")
            tensors[name] = file.tensor(name, dtype, tuple(shape), offset, size)
    return tensors


def _table(file: MappedFile) -> list[list[Any]]:
    """Name, dtype, shape, offset and size in bytes of each tensor, from the script `keras_h5_table`."""
    request = {
        "path": os.path.abspath(file.path),
        "max_names": 2 * MAX_TENSORS,  # groups have names too
        "import_from": [os.path.abspath(entry) for entry in sys.path if entry],
    }
    try:
        run = subprocess.run(
            [sys.executable, "-I", "-S", os.fspath(_SCRIPT)],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise file.damaged(f"HDF5's library did not finish in {_TIMEOUT} s") from None
    if run.returncode != 0:
        lines = run.stderr.decode(errors="replace").splitlines()
        reason = lines[-1][:300] if lines else f"code {run.returncode}"
        if run.returncode < 0:
            reason = signal.strsignal(-run.returncode) or reason
        raise file.damaged(f"HDF5's library fails on it: {reason}")
    answer = json.loads(run.stdout)
    if "refused" in answer:
        raise ValueError(f"{file.path}: {answer['refused']}")
    if "damaged" in answer:
        raise file.damaged(answer["damaged"])
    return list(answer["tensors"])
