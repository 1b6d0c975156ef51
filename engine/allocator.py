"""Settings of the C library's allocator for steps on a CPU."""

import ctypes
import os
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of mallopt
_KEPT_BYTES = 1 << 29  # freed memory at an arena's end that is not given back
_LARGEST_IN_ARENA = 1 << 25  # glibc accepts no larger limit


@cache
def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors for the next ones, in the whole process.

    By its defaults it gives the memory of an encoder layer's tensors back to the system and asks for it again
    at the next layer: 20,000 page faults for each 30 s of audio by Whisper's smallest model, some 5 % of its
    time. Settings from the environment (MALLOC_..., GLIBC_TUNABLES) stay as they are, and other C libraries
    too.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  only glibc numbers the options of mallopt so
        mallopt = library.mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_IN_ARENA)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
