"""Packed batches cut up for a processor, so that it finds one layer's output in its cache for the next."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ...kernels.runtime.packing import check_cu_seqlens, cumulative


def in_chunks(
    run: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], rows: Tensor, cu_rows: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """`run(rows, cu_rows)`, a few sequences at a time, where no sequence's result depends on the others.

    Args:
        run: packed rows and their cu_seqlens to the same of what they become.
        rows: [rows, ...], packed, on the CPU.
        cu_rows: int32 [n + 1].
        most: rows at a time; one longer sequence is taken alone.

    Raises:
        ValueError: offsets that do not fit.
    """
    check_cu_seqlens(cu_rows, rows.shape[0], "cu_seqlens")
    results, lengths = [], list[int]()
    for begin, ends in chunks(cu_rows.tolist(), most):
        part = torch.tensor([begin, *ends], dtype=torch.int32)
        result, cu_result = run(rows[begin : ends[-1] if ends else begin], part - begin)
        results.append(result)
        lengths += cu_result.diff().tolist()
    return (results[0] if len(results) == 1 else torch.cat(results)), cumulative(lengths)


def chunks(offsets: list[int], most: int) -> Iterator[tuple[int, list[int]]]:
    """Consecutive sequences of at most `most` rows together, or one longer one: (begin, the end of each)."""
    begin, ends = offsets[0], list[int]()
    for end in offsets[1:]:
        if ends and end - begin > most:
            yield begin, ends
            begin, ends = ends[-1], []
        ends.append(end)
    yield begin, ends
