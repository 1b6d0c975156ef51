"""The Triton kernels of paged attention against plain softmax in float64."""

import pytest
import torch
from torch import Tensor

from tritone.kernels.attention.kv_cache import PAGE_SIZE
from tritone.kernels.attention.paged import triton as module
from tritone.kernels.attention.paged.reference import paged_attention
from tritone.kernels.runtime.launch import recorded
from tritone.kernels.runtime.packing import cumulative

NAN = float("nan")
GARBAGE = torch.iinfo(torch.int32).max
SCALE = 0.3
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
SIZES = [(1, 1), (3, 5), (2, 64), (4, 36), (2, 80), (1, 123)]  # heads, head_dim


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
        dtype: torch.dtype,
        device: str,
        *,
        shared: bool,
        order: list[int] | None = None,
        blocks: int = 0,  # of the table, at least what the lengths need
        stale: float = NAN,
        poisoned: int | None = None,  # a request whose every number is NaN
    ) -> None:
        order = list(range(len(lengths))) if order is None else order
        self.order, self.hypotheses = order, [hypotheses[request] for request in order]
        blocks = max([blocks, *(-(-lengths[request] // PAGE_SIZE) for request in order)])
        holders = len(order) if shared else sum(self.hypotheses)
        numbers = torch.randperm(holders * blocks + 3, generator=torch.Generator().manual_seed(len(order)))
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

    def run(self, **changes) -> Tensor:
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
        return paged_attention(**given)

    def by_request(self) -> dict[int, Tensor]:
        """Outputs of `run`, by request."""
        return dict(zip(self.order, self.run().split(self.hypotheses), strict=True))

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


def check(batch: Batch, dtype: torch.dtype) -> None:
    out = batch.run()
    assert out.dtype == dtype
    torch.testing.assert_close(
        out.double().cpu(), batch.exact(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
    )


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shared", [True, False])
def test_requests_of_different_hypotheses_in_one_launch_equal_plain_softmax(shared, size, dtype, kernels_on):
    check(Batch([16, 1, 47, 33], [1, 3, 1, 5], *size, dtype, kernels_on, shared=shared), dtype)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("lengths", [[1], [15], [17, 32], [31, 48, 2], [64, 65, 63]], ids=str)
def test_any_length_about_pages_and_tiles(lengths, shared, dtype, kernels_on):
    hypotheses = [2, 1, 4][: len(lengths)]
    check(Batch(lengths, hypotheses, 2, 8, dtype, kernels_on, shared=shared, blocks=7), dtype)


@pytest.mark.parametrize("shared", [True, False])
def test_more_hypotheses_than_a_tile_has_rows(shared, dtype, kernels_on):
    check(Batch([5, 20, 3], [16, 19, 1], 1, 8, dtype, kernels_on, shared=shared), dtype)


@pytest.mark.parametrize("shared", [True, False])
def test_long_contexts_are_split_and_combined(shared, dtype, kernels_on, monkeypatch):
    monkeypatch.setattr(module, "SPLIT", 32)
    lengths, hypotheses = [31, 32, 33, 65, 100, 1], [1, 2, 17, 1, 2, 1]
    check(Batch(lengths, hypotheses, 1, 40, dtype, kernels_on, shared=shared), dtype)


def test_contexts_about_the_real_split_length(dtype, kernels_on):
    lengths = [module.SPLIT - 1, module.SPLIT, module.SPLIT + 1, 2 * module.SPLIT + 40]
    check(Batch(lengths, [1, 2, 1, 2], 1, 16, dtype, kernels_on, shared=True), dtype)


def test_a_second_launch_only_where_the_table_has_room_for_a_second_split(kernels_on):
    for blocks, kernels in ((module.SPLIT // 16, 1), (module.SPLIT // 16 + 1, 2)):
        batch = Batch([3], [1], 1, 8, torch.float32, kernels_on, shared=True, blocks=blocks)
        with recorded() as cases:
            batch.run()
        assert len(cases) == kernels


@pytest.mark.parametrize("size", [(2, 24), (1, 5)], ids=str)
@pytest.mark.parametrize("shared", [True, False])
def test_a_request_has_the_same_bits_alone_and_anywhere(shared, size, dtype, kernels_on, monkeypatch):
    monkeypatch.setattr(module, "SPLIT", 32)
    given = ([16, 1, 33, 50, 32], [1, 4, 2, 3, 1], *size, dtype, kernels_on)
    # Alone, a table is as narrow as the request allows: those of up to 32 positions need no second launch.
    alone = {
        request: Batch(*given, shared=shared, order=[request]).by_request()[request] for request in range(5)
    }
    for order in ([0, 1, 2, 3, 4], [3, 2, 0], [4, 1]):
        for request, out in Batch(*given, shared=shared, order=order, blocks=9).by_request().items():
            assert torch.equal(out, alone[request])


def test_a_short_request_has_the_same_bits_beside_one_of_several_real_splits(kernels_on):
    given = ([300, 2 * module.SPLIT + 1], [2, 1], 1, 16, torch.float32, kernels_on)
    together = Batch(*given, shared=True).by_request()
    for request in (0, 1):
        alone = Batch(*given, shared=True, order=[request]).by_request()
        assert torch.equal(together[request], alone[request])


@pytest.mark.filterwarnings("ignore:All-NaN slice")  # NumPy's word for the maximum of nothing but NaN
@pytest.mark.parametrize("shared", [True, False])
def test_memory_of_other_requests_and_earlier_owners_changes_no_bit(shared, dtype, kernels_on, monkeypatch):
    monkeypatch.setattr(module, "SPLIT", 32)
    given = ([17, 33, 5], [2, 3, 1], 1, 8, dtype, kernels_on)
    clean = Batch(*given, shared=shared, stale=0.0).by_request()
    assert all(bool(out.isfinite().all()) for out in clean.values())
    for stale in (NAN, float("inf")):
        for poisoned in (None, 1):
            found = Batch(*given, shared=shared, stale=stale, poisoned=poisoned).by_request()
            for request, out in found.items():
                assert torch.equal(out, clean[request]) or (request == poisoned and bool(out.isnan().all()))


@pytest.mark.parametrize("named", [0, 2])
def test_rows_may_see_nothing_of_most_hypotheses(named, kernels_on):
    batch = Batch([40], [3], 1, 8, torch.float32, kernels_on, shared=False)
    batch.origin[:, :40] = named
    check(batch, torch.float32)


def test_large_scores_neither_overflow_nor_vanish(kernels_on):
    batch = Batch([40, 3], [2, 1], 2, 8, torch.float32, kernels_on, shared=True)
    batch.query *= 1e4
    check(batch, torch.float32)


def test_views_are_read_by_their_strides(kernels_on):
    batch = Batch([17, 5], [2, 1], 2, 8, torch.float32, kernels_on, shared=False)
    wanted = batch.run()
    wide = torch.full((3, 2, 17), NAN, device=kernels_on)
    wide[..., 1:9] = batch.query
    tables = torch.stack([batch.tables, batch.tables + 1], dim=2)[..., 0]
    out = batch.run(query=wide[..., 1:9], block_tables=tables, origin=batch.origin.t().contiguous().t())
    assert torch.equal(out, wanted)
    layers = torch.stack([batch.keys * NAN, batch.keys, batch.values])  # a layer is a slice of the cache
    assert torch.equal(batch.run(keys=layers[1], values=layers[2]), wanted)


def test_heads_wider_than_the_tiles_go_to_the_reference(kernels_on):
    batch = Batch([3], [2], 1, 129, torch.float32, kernels_on, shared=True)
    with recorded() as cases:
        check(batch, torch.float32)
    assert not cases


def test_no_rows_give_no_rows(kernels_on):
    batch = Batch([3], [1], 2, 8, torch.float32, kernels_on, shared=True)
    nothing = batch.run(
        query=batch.query[:0],
        block_tables=batch.tables[:0],
        lengths=batch.lengths[:0],
        cu_rows=batch.cu_rows[:1],
    )
    assert nothing.shape == (0, 2, 8)


def test_keys_and_values_that_do_not_fit_are_refused(kernels_on):
    batch = Batch([3], [1], 2, 8, torch.float32, kernels_on, shared=True)
    with pytest.raises(
        ValueError, match=r"do not fit a query of \[1, 2, 8\]; both must be \[pages, 16, 2, 8\]"
    ):
        batch.run(keys=batch.keys[..., :4])
    with pytest.raises(ValueError, match=r"do not fit a query"):
        batch.run(values=batch.values[1:])
    with pytest.raises(ValueError, match=r"one dtype, got torch.float32, torch.float16 and torch.float32"):
        batch.run(keys=batch.keys.half())
    with pytest.raises(ValueError, match="a pool must be contiguous"):
        batch.run(keys=batch.keys.transpose(1, 2).contiguous().transpose(1, 2))
