"""The cost of a fixed tile: the same product timed with every tile of a list.

A kernel here may not choose its tile by the number of rows, or a row's bits would depend on its neighbors.
Only a benchmark may measure such a choice.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tritone.kernels.runtime.launch import Case, recorded

NAMES = ("BLOCK_M", "BLOCK_N", "BLOCK_K", "num_warps", "num_stages")
TILES = (
    (16, 32, 128, 4, 4),
    (16, 64, 128, 4, 4),
    (16, 128, 64, 4, 4),
    (32, 64, 64, 4, 4),
    (32, 128, 64, 4, 4),
    (64, 64, 64, 4, 4),
    (64, 128, 64, 4, 4),
    (64, 256, 64, 8, 3),
    (128, 64, 64, 4, 4),
    (128, 128, 64, 4, 4),
    (128, 128, 64, 8, 4),
    (128, 256, 64, 8, 3),
    (256, 128, 64, 8, 3),
)


@dataclass(frozen=True, slots=True)
class Best:
    """The fastest tile of the list."""

    tile: tuple[int, ...]  # in the order of `NAMES`
    seconds: float
    failed: dict[str, str]  # tiles that did not run, with the error


def best_tile(call: Callable[[], object], time: Callable[[], float]) -> Best | None:
    """Time a call with each tile in place of the declared one; None without a declared tile, or if none runs.

    Args:
        call: launches a kernel with a tile once.
        time: seconds of that call.
    """
    with recorded() as launched:
        call()
    declared = next(
        (case for case in launched if set(NAMES[:3]) <= {name for name, _ in case.constants}), None
    )
    if declared is None:
        return None
    seconds: dict[tuple[int, ...], float] = {}
    failed = {}
    for tile in TILES:
        with replaced(declared, tile):
            try:
                seconds[tile] = time()
            except Exception as error:  # too much shared memory, for instance
                failed[str(tile)] = f"{type(error).__name__}: {error}".splitlines()[0]
    if not seconds:
        return None
    fastest = min(seconds, key=seconds.__getitem__)
    return Best(fastest, seconds[fastest], failed)


@contextmanager
def replaced(declared: Case, tile: tuple[int, ...]) -> Iterator[None]:
    """Launch this tile in place of `declared`."""
    *blocks, warps, stages = tile
    constants = dict(declared.constants) | dict(zip(NAMES[:3], blocks, strict=True))
    other = replace(declared, constants=tuple(constants.items()), num_warps=warps, num_stages=stages)
    cases, key = declared.kernel.cases, (declared.architecture, declared.key)
    cases[key] = other
    try:
        yield
    finally:
        cases[key] = declared
