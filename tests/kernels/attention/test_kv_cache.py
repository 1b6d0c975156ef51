"""Keys and values in pages: reference, CPU version and kernel."""

import pytest
import torch
from kernel_checks import by_device, drawn, refused, same_bits
from torch import Tensor

from tritone.kernels.attention.kv_cache import PAGE_SIZE, store, store_layers, store_reference
from tritone.kernels.runtime.launch import recorded

NAN = float("nan")
SIZES = [(1, 1), (2, 5), (3, 7), (4, 64), (2, 80), (1, 257)]  # heads, head_dim


def pools(
    pages: int, heads: int, head_dim: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> list[Tensor]:
    return [torch.full((pages, PAGE_SIZE, heads, head_dim), NAN, dtype=dtype, device=device) for _ in "kv"]


def new_rows(
    rows: int, heads: int, head_dim: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> list[Tensor]:
    return drawn(*[(rows, heads, head_dim)] * 2, seed=rows, dtype=dtype, device=device)


def check(written: list[Tensor], new: list[Tensor], slots: list[int]) -> None:
    """The pools hold these rows at these cache positions, and NaN elsewhere."""
    for pool, rows in zip(written, new, strict=True):
        wanted = torch.full_like(pool, NAN)
        for slot, row in zip(slots, rows, strict=True):
            wanted[slot // PAGE_SIZE, slot % PAGE_SIZE] = row
        same_bits(pool, wanted)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "slots", [[], [0], [15], [16], [47], list(range(16)), list(range(15, 18)), [40, 3, 17, 16, 2]], ids=str
)
@by_device("run", [store, store_reference], [store])
def test_tokens_go_to_their_cache_positions_and_nowhere_else(run, slots, size, dtype, device):
    new, written = new_rows(len(slots), *size, dtype, device), pools(3, *size, dtype, device)
    run(*written, *new, torch.tensor(slots, dtype=torch.int64, device=device))
    check(written, new, slots)


def test_a_step_is_stored_by_one_launch(kernels_on):
    new, written = new_rows(2, 2, 5, device=kernels_on), pools(1, 2, 5, device=kernels_on)
    with recorded() as cases:
        store(*written, *new, torch.tensor([3, 4], device=kernels_on))
    assert len(cases) == 1


def test_nan_is_copied_too(device):
    new = new_rows(3, 2, 8, torch.float16, device)
    new[0][1], new[1][2] = NAN, -float("inf")
    written = [pool.zero_() for pool in pools(1, 2, 8, torch.float16, device)]
    store(*written, *new, torch.tensor([5, 6, 7], device=device))
    assert bool(written[0][0, 6].isnan().all())
    assert bool((written[1][0, 7] == -float("inf")).all())
    assert int(written[0].isnan().sum()) == 16


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["joined", "apart", "strided"])
def test_layers_are_stored_as_one_by_one(kind, size, dtype, device):
    slots = torch.tensor([40, 3, 17], device=device)
    joined = torch.stack(
        [
            part
            for seed in (3, 4, 5)
            for part in drawn(*[(3, *size)] * 2, seed=seed, dtype=dtype, device=device)
        ]
    )
    parts = list(joined.unbind())
    if kind == "apart":
        parts[3] = parts[3].clone()
    if kind == "strided":
        parts = list(joined.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3).unbind())
    cache = torch.full((2, 4, 3, PAGE_SIZE, *size), NAN, dtype=dtype, device=device)  # a layer more
    wanted = cache.clone()
    with recorded() as cases:
        store_layers(*cache, list(zip(parts[::2], parts[1::2], strict=True)), slots)
    for layer in range(3):
        store(*wanted[:, layer], *parts[2 * layer : 2 * layer + 2], slots)
    same_bits(cache, wanted)
    if cases and kind == "joined":
        assert len(cases) == 1
    store_layers(*cache, [], slots)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1, 9)], ids=str)
def test_every_layer_of_a_cache_of_odd_sizes_is_written_in_place(size, dtype, device):
    cache = torch.zeros(2, 3, 5, PAGE_SIZE, *size, dtype=dtype, device=device)
    for layer in range(3):
        new = [torch.full((1, *size), float(layer + 1), dtype=dtype, device=device)] * 2
        store(cache[0, layer], cache[1, layer], *new, torch.tensor([20 + layer], device=device))
    rows = cache.view(2, 3, 5 * PAGE_SIZE, -1)
    for layer in range(3):
        assert bool((rows[:, layer, 20 + layer] == layer + 1).all())
    assert float(rows.float().sum()) == 2 * (1 + 2 + 3) * size[0] * size[1]


def test_tokens_and_cache_positions_may_be_views(device):
    new = new_rows(6, 4, 5, device=device)
    views = [tensor[1::2, 1:3] for tensor in new]  # neither contiguous nor at a multiple of 16 bytes
    slots = torch.tensor([9, 1, 9, 33, 9, 2], device=device)[1::2]
    written = pools(3, 2, 5, device=device)
    store(*written, *views, slots)
    check(written, views, slots.tolist())


def test_a_cache_position_past_the_pool_is_left_out_by_the_kernel(kernels_on):
    cache = torch.zeros(2, 3, PAGE_SIZE, 1, 8, device=kernels_on)  # the pool lies between two others
    keys, values = cache[0, 1:2], cache[1, 1:2]
    new = [torch.ones(4, 1, 8, device=kernels_on)] * 2
    store(keys, values, *new, torch.tensor([-1, 3, 16, 2**40], device=kernels_on))
    assert float(cache.sum()) == 16.0
    assert bool((cache[:, 1, 3] == 1.0).all())


def test_pools_that_would_have_to_be_copied_are_refused(kernels_on):
    new, slots = new_rows(1, 2, 5, device=kernels_on), torch.tensor([3], device=kernels_on)
    keys, values = pools(2, 2, 5, device=kernels_on)
    strided = keys.transpose(1, 2).contiguous().transpose(1, 2)
    refused("a pool must be contiguous", store, strided, values, *new, slots)
    unaligned = torch.zeros(keys.numel() + 1, device=kernels_on)[1:].view(keys.shape)
    refused("begins 4 bytes past one", store, keys, unaligned, *new, slots)


def test_arguments_that_do_not_fit_are_refused(device):
    new, slots = new_rows(2, 2, 5, device=device), torch.tensor([3, 4], device=device)
    keys, values = pools(2, 2, 5, device=device)
    problem = r"rows of torch.float16 and torch.float32 do not fit pages of"
    refused(problem, store, keys, values, new[0].half(), new[1], slots)
    refused(r"2 rows need as many slots, got \[1\]", store, keys, values, *new, slots[:1])
    refused("do not fit pages of", store, keys, values[:1], *new, slots)


@pytest.mark.parametrize(
    ("keys", "new_keys", "new_values"),
    [
        ((2, 16, 2, 5), (3, 2, 4), (3, 2, 4)),
        ((2, 16, 2, 5), (3, 2, 5), (2, 2, 5)),
        ((2, 16, 2, 5), (3, 1, 5), (3, 1, 5)),
        ((2, 8, 2, 5), (3, 2, 5), (3, 2, 5)),
    ],
)
def test_rows_that_do_not_fit_the_pages_are_refused_with_their_shapes(keys, new_keys, new_values):
    pool, new = torch.zeros(keys), (torch.ones(new_keys), torch.ones(new_values))
    refused(r"rows \[3, .*do not fit pages of \[", store, pool, pool, *new, torch.arange(3))
