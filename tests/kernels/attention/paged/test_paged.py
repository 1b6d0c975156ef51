"""One decode step's attention over pages, shared and by origin: reference, CPU version and kernels."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from kernel_checks import by_device, check_bits, near, refused
from torch import Tensor

from tritone.kernels.attention.kv_cache import PAGE_SIZE
from tritone.kernels.attention.paged import triton as module
from tritone.kernels.attention.paged.reference import (
    paged_attention,
    paged_attention_cpu,
    paged_attention_reference,
)
from tritone.kernels.runtime.launch import recorded
from tritone.kernels.runtime.packing import cumulative

NAN = float("nan")
GARBAGE = torch.iinfo(torch.int32).max
SCALE = 0.3
RUNS = [paged_attention, paged_attention_reference, paged_attention_cpu]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
SIZES = [(1, 1), (3, 5), (2, 64), (4, 36), (2, 80), (1, 123)]  # heads, head_dim
pages_of = pytest.mark.parametrize("shared", [True, False], ids=["shared pages", "own pages"])


class Batch:
    """Requests over one pool that is NaN, or `stale`, wherever none of them has written.

    Each request's numbers depend on its place in `lengths` alone, so that the same request in another order
    or company is the same request.
    """

    def __init__(
        self,
        lengths: list[int],
        hypotheses: list[int],
        heads: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        *,
        shared: bool,
        order: list[int] | None = None,
        blocks: int = 0,  # of the table, at least what the lengths need
        stale: float = NAN,
        poisoned: int | None = None,  # a request whose every number is NaN
        scattered: bool = True,  # over the pool, or page after page
    ) -> None:
        order = list(range(len(lengths))) if order is None else order
        self.order, self.hypotheses = order, [hypotheses[request] for request in order]
        blocks = max([blocks, *(-(-lengths[request] // PAGE_SIZE) for request in order)])
        holders = len(order) if shared else sum(self.hypotheses)
        numbers = torch.arange(holders * blocks + 3)
        if scattered:
            numbers = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(len(order)))
        tables = numbers[: holders * blocks].view(holders, blocks)
        pool = torch.full((len(numbers), PAGE_SIZE, heads, head_dim), stale)
        keys, values = pool, pool.clone()
        queries, origins, holder = [], [], 0
        for request in order:
            generator = torch.Generator().manual_seed(request)
            k, length = hypotheses[request], lengths[request]
            query = torch.randn(k, heads, head_dim, generator=generator)
            owner = torch.full((k, blocks * PAGE_SIZE), GARBAGE)
            owner[:, :length] = torch.randint(0, k, (k, length), generator=generator)
            places = torch.arange(length)
            for table in tables[holder : holder + (1 if shared else k)]:
                rows = torch.randn(2, length, heads, head_dim, generator=generator)
                rows = rows if request != poisoned else rows * NAN
                keys[table[places // PAGE_SIZE], places % PAGE_SIZE] = rows[0]
                values[table[places // PAGE_SIZE], places % PAGE_SIZE] = rows[1]
                holder += 1
            queries.append(query if request != poisoned else query * NAN)
            origins.append(owner)
        self.query = torch.cat(queries).to(device, dtype)
        self.keys, self.values = keys.to(device, dtype), values.to(device, dtype)
        self.tables = tables.to(device, torch.int32)
        self.lengths = torch.tensor([lengths[request] for request in order], dtype=torch.int32, device=device)
        self.cu_rows = cumulative(self.hypotheses, device)
        self.origin = None if shared else torch.cat(origins).to(device, torch.int32)

    def run(self, call: Callable[..., Tensor] = paged_attention, **changes: Any) -> Tensor:
        given = {
            "query": self.query,
            "keys": self.keys,
            "values": self.values,
            "block_tables": self.tables,
            "lengths": self.lengths,
            "cu_rows": self.cu_rows,
            "scale": SCALE,
            "origin": self.origin,
            **changes,
        }
        return call(**given)

    def exact(self) -> Tensor:
        """Each row alone, in float64."""
        out, row = torch.empty(self.query.shape, dtype=torch.float64), 0
        for request, k in enumerate(self.hypotheses):
            places = torch.arange(int(self.lengths[request]))
            for _ in range(k):
                if self.origin is None:
                    table = self.tables[request].cpu()[places // PAGE_SIZE]
                else:
                    first = int(self.cu_rows[request])
                    holders = first + self.origin[row].cpu()[places].long()
                    table = self.tables.cpu()[holders, places // PAGE_SIZE]
                key, value = (
                    pool.cpu()[table.long(), places % PAGE_SIZE].double() for pool in (self.keys, self.values)
                )
                scores = torch.einsum("hd,thd->ht", self.query[row].cpu().double(), key) * SCALE
                out[row] = torch.einsum("ht,thd->hd", scores.softmax(-1), value)
                row += 1
        return out


def check(batch: Batch, call: Callable[..., Tensor] = paged_attention) -> None:
    near(batch.run(call).cpu(), batch.exact(), batch.query.dtype, TOLERANCE)


@pages_of
@pytest.mark.parametrize("size", SIZES, ids=str)
@by_device("call", RUNS, RUNS[:1])
def test_requests_of_different_hypotheses_in_one_call_equal_plain_softmax(call, size, shared, dtype, device):
    check(Batch([16, 1, 47, 33], [1, 3, 1, 5], *size, dtype, device, shared=shared), call)


@pages_of
@pytest.mark.parametrize(
    "lengths",
    [[1], [15], [16], [17, 32], [1, 47, 16], [33, 2, 7, 48], [31, 48, 2], [64, 65, 63]],
    ids=str,
)
@by_device(
    "case",
    [*product(RUNS, [(1, 1), (4, 36), (3, 5), (2, 64)], ["1111", "1231", "2141", "5151"])],
    [(paged_attention, (2, 8), "2141")],
)
def test_any_length_about_pages_and_tiles(case, lengths, shared, dtype, device):
    call, size, digits = case
    hypotheses = [int(digit) for digit in digits[: len(lengths)]]
    check(Batch(lengths, hypotheses, *size, dtype, device, shared=shared, blocks=7), call)


@pages_of
@by_device("call", RUNS, RUNS[:1])
def test_more_hypotheses_than_a_tile_has_rows(call, shared, dtype, device):
    check(Batch([5, 20, 3], [16, 19, 1], 1, 8, dtype, device, shared=shared), call)


@pages_of
def test_long_contexts_are_split_and_combined(shared, dtype, kernels_on, monkeypatch):
    monkeypatch.setattr(module, "SPLIT", 32)
    lengths, hypotheses = [31, 32, 33, 65, 100, 1], [1, 2, 17, 1, 2, 1]
    check(Batch(lengths, hypotheses, 1, 40, dtype, kernels_on, shared=shared))


def test_contexts_about_the_real_split_length(dtype, kernels_on):
    lengths = [module.SPLIT - 1, module.SPLIT, module.SPLIT + 1, 2 * module.SPLIT + 40]
    check(Batch(lengths, [1, 2, 1, 2], 1, 16, dtype, kernels_on, shared=True))


def test_a_second_launch_only_where_the_table_has_room_for_a_second_split(kernels_on):
    for blocks, kernels in ((module.SPLIT // 16, 1), (module.SPLIT // 16 + 1, 2)):
        batch = Batch([3], [1], 1, 8, device=kernels_on, shared=True, blocks=blocks)
        with recorded() as cases:
            batch.run()
        assert len(cases) == kernels


@pages_of
@by_device("size", SIZES, [(2, 24), (1, 5)])
def test_a_request_has_the_same_bits_alone_first_in_the_middle_and_last(
    size, shared, dtype, device, monkeypatch
):
    monkeypatch.setattr(module, "SPLIT", 32)

    def run(order: Sequence[int]) -> Sequence[Tensor]:
        # Alone, a table is as narrow as the request allows: one of up to 32 positions needs no second launch.
        blocks = 9 if len(order) > 1 else 0
        lengths, hypotheses = [16, 1, 33, 50, 32, 7], [1, 5, 2, 3, 1, 4]
        batch = Batch(
            lengths, hypotheses, *size, dtype, device, shared=shared, order=list(order), blocks=blocks
        )
        return batch.run().split(batch.hypotheses)

    check_bits(6, run)


def test_a_short_request_has_the_same_bits_beside_one_of_several_real_splits(kernels_on):
    def run(order: Sequence[int]) -> Sequence[Tensor]:
        lengths, hypotheses = [300, 2 * module.SPLIT + 1], [2, 1]
        batch = Batch(lengths, hypotheses, 1, 16, device=kernels_on, shared=True, order=list(order))
        return batch.run().split(batch.hypotheses)

    check_bits(2, run)


@pytest.mark.filterwarnings("ignore:All-NaN slice")  # NumPy's word for the maximum of nothing but NaN
@pages_of
@by_device("call", RUNS, RUNS[:1])
def test_memory_of_other_requests_and_earlier_owners_changes_no_bit(call, shared, dtype, device, monkeypatch):
    monkeypatch.setattr(module, "SPLIT", 32)
    given = [17, 33, 5], [2, 3, 1], 1, 8, dtype, device
    clean = Batch(*given, shared=shared, stale=0.0).run(call)
    assert bool(clean.isfinite().all())
    for stale in (NAN, float("inf"), 1e30):
        for poisoned in (None, 1):
            found = Batch(*given, shared=shared, stale=stale, poisoned=poisoned).run(call)
            others = [0, 1, 5] if poisoned else range(6)  # rows of requests that are not poisoned
            assert torch.equal(found[others], clean[others])
            assert not poisoned or bool(found[2:5].isnan().all())


@pages_of
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_consecutive_pages_and_scattered_ones_give_the_same_bits(size, shared, device):
    given = ([1, 16, 47, 33], [3, 1, 2, 1], *size, torch.float32, device)
    consecutive, scattered = (Batch(*given, shared=shared, scattered=flag) for flag in (False, True))
    assert not torch.equal(scattered.tables, consecutive.tables)
    assert torch.equal(scattered.run(), consecutive.run())


@by_device("call", RUNS, RUNS[:1])
def test_a_wider_table_and_a_longer_origin_change_nothing(call, device):
    batch = Batch([17, 5], [2, 1], 2, 8, device=device, shared=False)
    wider = torch.nn.functional.pad(batch.tables, (0, 3), value=1)
    longer = torch.nn.functional.pad(batch.origin, (0, 40), value=1)
    assert torch.equal(batch.run(call, block_tables=wider, origin=longer), batch.run(call))


@pytest.mark.parametrize("named", [0, 2])
def test_rows_may_see_nothing_of_most_hypotheses(named, kernels_on):
    batch = Batch([40], [3], 1, 8, device=kernels_on, shared=False)
    batch.origin[:, :40] = named
    check(batch)


def test_large_scores_neither_overflow_nor_vanish(kernels_on):
    batch = Batch([40, 3], [2, 1], 2, 8, device=kernels_on, shared=True)
    batch.query *= 1e4
    check(batch)


def test_views_are_read_by_their_strides(kernels_on):
    batch = Batch([17, 5], [2, 1], 2, 8, device=kernels_on, shared=False)
    wanted = batch.run()
    wide = torch.full((3, 2, 17), NAN, device=kernels_on)
    wide[..., 1:9] = batch.query
    tables = torch.stack([batch.tables, batch.tables + 1], dim=2)[..., 0]
    out = batch.run(query=wide[..., 1:9], block_tables=tables, origin=batch.origin.t().contiguous().t())
    assert torch.equal(out, wanted)
    layers = torch.stack([batch.keys * NAN, batch.keys, batch.values])  # a layer is a slice of the cache
    assert torch.equal(batch.run(keys=layers[1], values=layers[2]), wanted)


def test_heads_wider_than_the_tiles_go_to_the_reference(kernels_on):
    batch = Batch([3], [2], 1, 129, device=kernels_on, shared=True)
    with recorded() as cases:
        check(batch)
    assert not cases


def test_no_rows_give_no_rows(kernels_on):
    batch = Batch([3], [1], 2, 8, device=kernels_on, shared=True)
    nothing = batch.run(
        query=batch.query[:0],
        block_tables=batch.tables[:0],
        lengths=batch.lengths[:0],
        cu_rows=batch.cu_rows[:1],
    )
    assert nothing.shape == (0, 2, 8)


def test_a_gradient_goes_to_the_reference_and_reaches_queries_keys_and_values():
    batch = Batch([3, 17], [2, 1], 2, 3, shared=False, stale=0.0)
    given = [tensor.clone().requires_grad_() for tensor in (batch.query, batch.keys, batch.values)]

    def squares(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return batch.run(query=query, keys=keys, values=values).double().square().sum()

    step = 1e-2
    for tensor, gradient in zip(given, torch.autograd.grad(squares(*given), given), strict=True):
        direction = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
        above, below = (
            squares(*(one.detach() + (sign * direction if one is tensor else 0.0) for one in given))
            for sign in (step, -step)
        )
        slope = float(above - below) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=2e-2, abs=1e-3)


@pytest.mark.parametrize(("shared", "rows", "needed"), [(True, 3, 2), (False, 2, 3)])
def test_tables_of_another_number_of_rows_are_refused(shared, rows, needed):
    batch = Batch([3, 17], [2, 1], 2, 3, shared=shared)
    tables = torch.zeros(rows, 2, dtype=torch.int32)
    problem = f"block_tables has {rows} rows, but there are {needed} to serve"
    refused(problem, batch.run, block_tables=tables)


def test_keys_and_values_that_do_not_fit_are_refused(kernels_on):
    batch = Batch([3], [1], 2, 8, device=kernels_on, shared=True)
    strided = batch.keys.transpose(1, 2).contiguous().transpose(1, 2)
    problem = r"do not fit a query of \[1, 2, 8\]; both must be \[pages, 16, 2, 8\]"
    refused(problem, batch.run, keys=batch.keys[..., :4])
    refused("do not fit a query", batch.run, values=batch.values[1:])
    problem = "one dtype, got torch.float32, torch.float16 and torch.float32"
    refused(problem, batch.run, keys=batch.keys.half())
    refused("a pool must be contiguous", batch.run, keys=strided)
