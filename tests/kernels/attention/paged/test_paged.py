"""One decode step's attention over pages, shared and by origin."""

import pytest
import torch
from torch import Tensor

from tritone.kernels.attention.kv_cache import PAGE_SIZE
from tritone.kernels.attention.paged.reference import (
    paged_attention,
    paged_attention_cpu,
    paged_attention_reference,
)
from tritone.kernels.runtime.packing import cumulative

NAN = float("nan")
RUNS = [paged_attention, paged_attention_reference, paged_attention_cpu]
SIZES = [(1, 1), (4, 36), (3, 5), (2, 64)]  # heads, head_dim
LENGTHS = [[1], [15], [16], [17], [32], [1, 47, 16], [33, 2, 7, 48]]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


class Pages:
    """A pool that is NaN wherever no request has written, and what each request holds in it.

    Args:
        lengths: positions of each request.
        hypotheses: rows of each request; each has pages of its own, whose positions are all written.
        shared: one set of pages a request instead, as cross-attention has.
        order: "consecutive" pages, or "scattered" over the pool.
    """

    def __init__(
        self,
        lengths: list[int],
        hypotheses: list[int],
        heads: int,
        width: int,
        *,
        shared: bool = False,
        order: str = "scattered",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        holders = [request for request, k in enumerate(hypotheses) for _ in range(1 if shared else k)]
        blocks = [-(-lengths[request] // PAGE_SIZE) for request in holders]
        count = sum(blocks) + 5
        numbers = list(range(2, 2 + sum(blocks)))
        if order == "scattered":
            numbers = torch.randperm(count, generator=generator)[: sum(blocks)].tolist()
        self.keys = torch.full((count, PAGE_SIZE, heads, width), NAN, dtype=dtype)
        self.values = torch.full((count, PAGE_SIZE, heads, width), NAN, dtype=dtype)
        self.tables = torch.full((len(holders), max(blocks)), 0, dtype=torch.int32)
        self.key_rows: list[Tensor] = []  # [length, heads, width] of each holder
        self.value_rows: list[Tensor] = []
        for holder, request in enumerate(holders):
            length = lengths[request]
            key = torch.randn(length, heads, width, generator=generator).to(dtype)
            value = torch.randn(length, heads, width, generator=generator).to(dtype)
            self.key_rows.append(key)
            self.value_rows.append(value)
            for block in range(blocks[holder]):
                page, start = numbers.pop(0), block * PAGE_SIZE
                self.tables[holder, block] = page
                rows = key[start : start + PAGE_SIZE]
                self.keys[page, : len(rows)] = rows
                self.values[page, : len(rows)] = value[start : start + PAGE_SIZE]
        self.lengths = torch.tensor(lengths, dtype=torch.int32)
        self.cu_rows = cumulative(hypotheses)
        self.query = torch.randn(sum(hypotheses), heads, width, generator=generator).to(dtype)
        self.origin: Tensor | None = None
        if not shared:
            self.origin = torch.zeros(sum(hypotheses), max(lengths), dtype=torch.int32)
            row = 0
            for k in hypotheses:
                self.origin[row : row + k] = torch.randint(0, k, (k, max(lengths)), generator=generator)
                row += k

    def run(self, function=paged_attention, **changes) -> Tensor:
        given = {
            "query": self.query,
            "keys": self.keys,
            "values": self.values,
            "block_tables": self.tables,
            "lengths": self.lengths,
            "cu_rows": self.cu_rows,
            "scale": 0.3,
            "origin": self.origin,
            **changes,
        }
        return function(**given)

    def naive(self) -> Tensor:
        """Each row alone: gather its own keys and values, then softmax, in float64."""
        out = torch.zeros(self.query.shape, dtype=torch.float64)
        offsets = self.cu_rows.tolist()
        for request, length in enumerate(self.lengths.tolist()):
            for row in range(offsets[request], offsets[request + 1]):
                if self.origin is None:
                    key, value = self.key_rows[request], self.value_rows[request]
                else:
                    holders = [offsets[request] + int(self.origin[row, place]) for place in range(length)]
                    key = torch.stack([self.key_rows[holder][place] for place, holder in enumerate(holders)])
                    value = torch.stack(
                        [self.value_rows[holder][place] for place, holder in enumerate(holders)]
                    )
                scores = torch.einsum("hd,thd->ht", self.query[row].double(), key.double()) * 0.3
                out[row] = torch.einsum("ht,thd->hd", scores.softmax(-1), value.double())
        return out


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_all_rows_of_a_request_read_its_pages_and_nothing_stale(lengths, size, dtype, run):
    hypotheses = [1 + index % 3 for index in range(len(lengths))]
    pages = Pages(lengths, hypotheses, *size, shared=True, dtype=dtype)
    tolerance = TOLERANCE[dtype]
    out = pages.run(run)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), pages.naive(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("beams", [1, 2, 5])
def test_a_row_reads_at_each_position_the_hypothesis_that_its_origin_names(beams, lengths, size, dtype, run):
    hypotheses = [beams if index % 2 == 0 else 1 for index in range(len(lengths))]
    pages = Pages(lengths, hypotheses, *size, dtype=dtype)
    tolerance = TOLERANCE[dtype]
    out = pages.run(run)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), pages.naive(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("run", RUNS)
def test_memory_of_other_requests_and_earlier_owners_changes_no_bit(run):
    for shared in (True, False):
        pages = Pages([17, 33], [2, 3], 2, 7, shared=shared)
        clean = pages.run(run)
        holders_of_first = 1 if shared else 2
        for stale in (0.0, 1e30, float("inf")):
            for pool in (pages.keys, pages.values):
                pool.masked_fill_(pool.isnan(), stale)
            assert torch.equal(pages.run(run), clean)
            assert bool(clean.isfinite().all())
        others = pages.tables[holders_of_first:].flatten().long()
        pages.keys[others], pages.values[others] = NAN, NAN
        assert torch.equal(pages.run(run)[:2], clean[:2])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_consecutive_pages_and_scattered_ones_give_the_same_bits(size, shared):
    given = ([1, 16, 47, 33], [3, 1, 2, 1], *size)
    consecutive = Pages(*given, shared=shared, order="consecutive", seed=5)
    scattered = Pages(*given, shared=shared, order="scattered", seed=5)
    scattered.query, scattered.origin = consecutive.query, consecutive.origin
    for holder, (key, value) in enumerate(zip(consecutive.key_rows, consecutive.value_rows, strict=True)):
        for place in range(len(key)):
            page = int(scattered.tables[holder, place // PAGE_SIZE])
            scattered.keys[page, place % PAGE_SIZE] = key[place]
            scattered.values[page, place % PAGE_SIZE] = value[place]
    assert not torch.equal(scattered.tables, consecutive.tables)
    assert torch.equal(scattered.run(), consecutive.run())


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_request_has_the_same_bits_alone_first_in_the_middle_and_last(size, shared):
    lengths, hypotheses = [16, 1, 49, 7, 33], [1, 5, 2, 3, 1]
    pages = Pages(lengths, hypotheses, *size, shared=shared)
    query = pages.query.split(hypotheses)
    tables = pages.tables.split([1] * 5 if shared else hypotheses)
    origin = None if pages.origin is None else pages.origin.split(hypotheses)

    def run(order: list[int]) -> list[Tensor]:
        chosen = [hypotheses[index] for index in order]
        out = pages.run(
            query=torch.cat([query[index] for index in order]),
            block_tables=torch.cat([tables[index] for index in order]),
            lengths=pages.lengths[order],
            cu_rows=cumulative(chosen),
            origin=None if origin is None else torch.cat([origin[index] for index in order]),
        )
        return list(out.split(chosen))

    alone = [run([index])[0] for index in range(5)]
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [1, 4]):
        for index, out in zip(order, run(order), strict=True):
            assert torch.equal(out, alone[index])


def test_a_wider_table_and_a_longer_origin_change_nothing():
    pages = Pages([17, 5], [2, 1], 2, 8)
    assert pages.origin is not None
    wider = torch.nn.functional.pad(pages.tables, (0, 3), value=1)
    longer = torch.nn.functional.pad(pages.origin, (0, 40), value=1)
    for function in RUNS:
        assert torch.equal(pages.run(function, block_tables=wider, origin=longer), pages.run(function))


def test_a_gradient_goes_to_the_reference_and_reaches_queries_keys_and_values():
    pages = Pages([3, 17], [2, 1], 2, 3)
    for pool in (pages.keys, pages.values):
        pool.masked_fill_(pool.isnan(), 0.0)
    given = [tensor.clone().requires_grad_() for tensor in (pages.query, pages.keys, pages.values)]
    out = pages.run(query=given[0], keys=given[1], values=given[2])
    gradients = torch.autograd.grad(out.square().sum(), given)
    step = 1e-2
    for tensor, gradient in zip(given, gradients, strict=True):
        direction = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
        moved = []
        for sign in (step, -step):
            shifted = [t.detach() + (sign * direction if t is tensor else 0.0) for t in given]
            moved.append(
                pages.run(query=shifted[0], keys=shifted[1], values=shifted[2]).double().square().sum()
            )
        slope = (moved[0] - moved[1]) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=2e-2, abs=1e-3)


@pytest.mark.parametrize(("shared", "rows", "needed"), [(True, 3, 2), (False, 2, 3)])
def test_tables_of_another_number_of_rows_are_refused(shared, rows, needed):
    pages = Pages([3, 17], [2, 1], 2, 3, shared=shared)
    tables = torch.zeros(rows, 2, dtype=torch.int32)
    with pytest.raises(ValueError, match=f"block_tables has {rows} rows, but there are {needed} to serve"):
        pages.run(block_tables=tables)
