"""Keys and values in pages."""

import pytest
import torch

from tritone.kernels.attention.kv_cache import PAGE_SIZE, store, store_reference

NAN = float("nan")


def pool(pages: int, heads: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.full((pages, PAGE_SIZE, heads, width), NAN, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "slots", [[], [0], [15], [16], [47], list(range(16)), list(range(15, 18)), [40, 3, 17, 16, 2]], ids=str
)
@pytest.mark.parametrize("run", [store, store_reference])
def test_tokens_go_to_their_cache_positions_and_nowhere_else(run, slots, dtype):
    keys, values = pool(3, 2, 5, dtype), pool(3, 2, 5, dtype)
    torch.manual_seed(0)
    new_keys, new_values = torch.randn(len(slots), 2, 5).to(dtype), torch.randn(len(slots), 2, 5).to(dtype)
    run(keys, values, new_keys, new_values, torch.tensor(slots, dtype=torch.int64))
    for place in range(3 * PAGE_SIZE):
        page, row = divmod(place, PAGE_SIZE)
        if place in slots:
            assert torch.equal(keys[page, row], new_keys[slots.index(place)])
            assert torch.equal(values[page, row], new_values[slots.index(place)])
        else:
            assert bool(keys[page, row].isnan().all())
            assert bool(values[page, row].isnan().all())


def test_one_layer_of_a_cache_is_written_in_place():
    cache = torch.zeros(4, 3, PAGE_SIZE, 1, 2)
    store(cache[1], cache[3], torch.ones(1, 1, 2), 2 * torch.ones(1, 1, 2), torch.tensor([20]))
    assert cache[1, 1, 4].tolist() == [[1.0, 1.0]]
    assert cache[3, 1, 4].tolist() == [[2.0, 2.0]]
    assert float(cache.sum()) == 6.0


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
    with pytest.raises(ValueError, match=r"rows \[3, .*do not fit pages of \["):
        store(
            torch.zeros(keys),
            torch.zeros(keys),
            torch.ones(new_keys),
            torch.ones(new_values),
            torch.arange(3),
        )
