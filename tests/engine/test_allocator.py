"""The allocator's settings: freed memory is kept, and settings from the environment stay."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource
from tritone.engine.allocator import keep_freed_memory
import torch
if {keep}:
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(3 << 20) + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def faults(keep: bool, **environment: str) -> int:
    """Page faults of 20 sums of 12 MB in a process of its own."""
    found = subprocess.run(
        [sys.executable, "-c", COUNT.format(keep=keep)],
        env={"PATH": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt's options are glibc's")
def test_memory_of_freed_tensors_is_kept_unless_the_environment_says_otherwise():
    assert faults(keep=True) < 5_000
    assert faults(keep=True, MALLOC_MMAP_THRESHOLD_="1000000") > 20_000
