"""Chunks of packed batches, small enough that a CPU's cache still holds a layer's output for the next."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ...kernels.runtime.packing import check_cu_seqlens, cumulative


def in_chunks(
    run: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], rows: Tensor, cu_rows: Tensor, max_rows: int
) -> tuple[Tensor, Tensor]:
    """Result of `run(rows, cu_rows)`, a few sequences at a time; no result may depend on other sequences.

    Args:
        run: maps packed rows and their cu_seqlens to packed results and theirs.
        rows: [rows, ...], packed, on the CPU.
        cu_rows: int32 [n + 1].
        max_rows: rows of a chunk; a longer sequence is a chunk of its own.

    Raises:
        ValueError: offsets that do not fit.
    """
    check_cu_seqlens(cu_rows, rows.shape[0], "cu_seqlens")
    results, lengths = [], list[int]()
    for begin, ends in chunks(cu_rows.tolist(), max_rows):
        part = torch.tensor([begin, *ends], dtype=torch.int32)
        result, cu_result = run(rows[begin : ends[-1] if ends else begin], part - begin)
        results.append(result)
        lengths += cu_result.diff().tolist()
    return (results[0] if len(results) == 1 else torch.cat(results)), cumulative(lengths)


def chunks(offsets: list[int], max_rows: int) -> Iterator[tuple[int, list[int]]]:
    """Begin and ends of consecutive sequences: `max_rows` rows together at most, or one longer sequence."""
    begin, ends = offsets[0], list[int]()
    for end in offsets[1:]:
        if ends and end - begin > max_rows:
            yield begin, ends
            begin, ends = ends[-1], []
        ends.append(end)
    yield begin, ends
