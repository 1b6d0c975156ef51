"""The Triton kernel that writes pages against its reference."""

import pytest
import torch

from tritone.kernels.attention.kv_cache import PAGE_SIZE, store, store_reference
from tritone.kernels.runtime.launch import recorded

NAN = float("nan")
SIZES = [(1, 1), (2, 5), (3, 7), (4, 64), (2, 80), (1, 257)]  # heads, head_dim


def pools(pages: int, heads: int, head_dim: int, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    return [torch.full((pages, PAGE_SIZE, heads, head_dim), NAN, dtype=dtype, device=device) for _ in "kv"]


def new_rows(rows: int, heads: int, head_dim: int, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return [torch.randn(rows, heads, head_dim, generator=generator).to(device, dtype) for _ in "kv"]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    """Bit for bit, NaN included."""
    return all(torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5)) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("slots", [[0], [47], list(range(16)), [40, 3, 17, 16, 2]], ids=str)
def test_tokens_go_to_their_cache_positions_and_nowhere_else(slots, size, dtype, kernels_on):
    new = new_rows(len(slots), *size, dtype, kernels_on)
    places = torch.tensor(slots, device=kernels_on)
    written, wanted = pools(3, *size, dtype, kernels_on), pools(3, *size, dtype, kernels_on)
    with recorded() as cases:
        store(*written, *new, places)
    assert len(cases) == 1
    store_reference(*wanted, *new, places)
    assert same(written, wanted)


def test_nan_is_copied_too(kernels_on):
    new = new_rows(3, 2, 8, torch.float16, kernels_on)
    new[0][1], new[1][2] = NAN, -float("inf")
    written = [pool.zero_() for pool in pools(1, 2, 8, torch.float16, kernels_on)]
    store(*written, *new, torch.tensor([5, 6, 7], device=kernels_on))
    assert bool(written[0][0, 6].isnan().all())
    assert bool((written[1][0, 7] == -float("inf")).all())
    assert int(written[0].isnan().sum()) == 16


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1, 9)], ids=str)
def test_every_layer_of_a_cache_of_odd_sizes_is_written_in_place(size, dtype, kernels_on):
    cache = torch.zeros(2, 3, 5, PAGE_SIZE, *size, dtype=dtype, device=kernels_on)
    for layer in range(3):
        new = [torch.full((1, *size), float(layer + 1), dtype=dtype, device=kernels_on)] * 2
        store(cache[0, layer], cache[1, layer], *new, torch.tensor([20 + layer], device=kernels_on))
    rows = cache.view(2, 3, 5 * PAGE_SIZE, -1)
    for layer in range(3):
        assert bool((rows[:, layer, 20 + layer] == layer + 1).all())
    assert float(rows.float().sum()) == 2 * (1 + 2 + 3) * size[0] * size[1]


def test_tokens_and_cache_positions_may_be_views(kernels_on):
    new = new_rows(6, 4, 5, torch.float32, kernels_on)
    views = [tensor[1::2, 1:3] for tensor in new]  # neither contiguous nor at a multiple of 16 bytes
    slots = torch.tensor([9, 1, 9, 33, 9, 2], device=kernels_on)[1::2]
    written, wanted = pools(3, 2, 5, torch.float32, kernels_on), pools(3, 2, 5, torch.float32, kernels_on)
    store(*written, *views, slots)
    store_reference(*wanted, *views, slots)
    assert same(written, wanted)


def test_a_cache_position_past_the_pool_is_left_out_by_the_kernel(kernels_on):
    cache = torch.zeros(2, 3, PAGE_SIZE, 1, 8, device=kernels_on)  # the pool lies between two others
    keys, values = cache[0, 1:2], cache[1, 1:2]
    new = [torch.ones(4, 1, 8, device=kernels_on)] * 2
    store(keys, values, *new, torch.tensor([-1, 3, 16, 2**40], device=kernels_on))
    assert float(cache.sum()) == 16.0
    assert bool((cache[:, 1, 3] == 1.0).all())


def test_no_rows_write_nothing(kernels_on):
    written = pools(1, 2, 5, torch.float32, kernels_on)
    store(
        *written,
        *new_rows(0, 2, 5, torch.float32, kernels_on),
        torch.tensor([], dtype=torch.int64).to(kernels_on),
    )
    assert all(bool(pool.isnan().all()) for pool in written)


def test_pools_that_would_have_to_be_copied_are_refused(kernels_on):
    new, slots = new_rows(1, 2, 5, torch.float32, kernels_on), torch.tensor([3], device=kernels_on)
    keys, values = pools(2, 2, 5, torch.float32, kernels_on)
    strided = keys.transpose(1, 2).contiguous().transpose(1, 2)
    with pytest.raises(ValueError, match="a pool must be contiguous"):
        store(strided, values, *new, slots)
    flat = torch.zeros(keys.numel() + 1, device=kernels_on)
    with pytest.raises(ValueError, match="begins 4 bytes past one"):
        store(keys, flat[1:].view(keys.shape), *new, slots)


def test_arguments_that_do_not_fit_are_refused(kernels_on):
    new, slots = new_rows(2, 2, 5, torch.float32, kernels_on), torch.tensor([3, 4], device=kernels_on)
    keys, values = pools(2, 2, 5, torch.float32, kernels_on)
    with pytest.raises(ValueError, match=r"rows of torch.float16 and torch.float32 do not fit pages of"):
        store(keys, values, new[0].half(), new[1], slots)
    with pytest.raises(ValueError, match=r"2 rows need as many slots, got \[1\]"):
        store(keys, values, *new, slots[:1])
    with pytest.raises(ValueError, match="do not fit pages of"):
        store(keys, values[:1], *new, slots)
