"""Chunks of packed batches, so small that the CPU's cache still holds a layer's output for the next layer."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ...kernels.runtime.packing import check_cu_seqlens, cumulative


def in_chunks(
    run: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], rows: Tensor, cu_rows: Tensor, max_rows: int
) -> tuple[Tensor, Tensor]:
    """Result of `run(rows, cu_rows)`, computed in chunks of a few sequences each.

    Args:
        run: function from packed rows and their cu_seqlens to packed results and theirs; a sequence's result
            must not depend on the others.
        rows: [rows, ...], packed, on the CPU.
        cu_rows: int32 [n + 1], cu_seqlens of the rows.
        max_rows: maximum number of rows of a chunk; a longer sequence is a chunk of its own.

    Raises:
        ValueError: cu_rows that does not fit the rows.
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
    """Sequence offsets (begin, ends) of each chunk of at most `max_rows` rows or of one longer sequence."""
    begin, ends = offsets[0], list[int]()
    for end in offsets[1:]:
        if ends and end - begin > max_rows:
            yield begin, ends
            begin, ends = ends[-1], []
        ends.append(end)
    yield begin, ends
