"""Queries, keys and values of new tokens: one launch with the store, against operations one by one."""

import pytest
import torch
from kernel_checks import by_device, drawn, near, refused, wide
from torch import Tensor

from tritone.kernels.attention.kv_cache import PAGE_SIZE
from tritone.kernels.attention.projection import NewRows, project_into_pages, project_reference
from tritone.kernels.linear.joined import halves

# rows, K, heads, head_dim
SHAPES = [(1, 1, 1, 1), (5, 7, 3, 5), (33, 80, 2, 40), (34, 64, 3, 32), (3, 1040, 1, 16)]
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def operands(
    rows: int, width: int, heads: int, head_dim: int, dtype: torch.dtype, device: str
) -> tuple[Tensor, list[Tensor], NewRows, list[Tensor]]:
    """hidden, norm, places in poisoned pages, and three weights with their biases."""
    inner = heads * head_dim
    hidden, *rest = drawn(
        (rows, width), (width,), (width,), *[(inner, width)] * 3, *[(inner,)] * 3, seed=rows
    )
    rest[2:5] = [weight / width**0.5 for weight in rest[2:5]]
    hidden, *rest = [tensor.to(device=device, dtype=dtype) for tensor in (hidden + 3, *rest)]
    pages = rows + 2
    pools = [torch.full((pages, PAGE_SIZE, heads, head_dim), -7.0, dtype=dtype, device=device) for _ in "kv"]
    order = torch.randperm(pages * PAGE_SIZE, generator=torch.Generator().manual_seed(rows))
    return hidden, rest[:2], NewRows(*pools, order[:rows].to(device)), rest[2:]


@pytest.mark.parametrize("norm", ["none", "layer norm", "RMS norm"])
@pytest.mark.parametrize("phase", ["encode", "decode"])
@by_device("shape", SHAPES, SHAPES)
def test_queries_are_returned_and_keys_and_values_are_in_their_pages(shape, phase, norm, dtype, device):
    hidden, (gain, shift), places, layers = operands(*shape, dtype, device)
    gain = None if norm == "none" else gain
    shift = shift if norm == "layer norm" else None
    exact = wide(hidden, *places[:2], gain, shift, *layers)
    exact_query = project_reference(exact[0], *exact[1:3], places.slots, *exact[3:], eps=1e-5, phase=phase)
    weights, biases = halves(layers)
    options = {"norm_weight": gain, "norm_bias": shift, "eps": 1e-5, "phase": phase}
    query = project_into_pages(hidden, weights, biases, places, **options)
    assert query.shape == (shape[0], *shape[2:])
    near(query.flatten(1), exact_query, dtype, TOLERANCE)
    near(places.keys, exact[1], dtype, TOLERANCE)
    near(places.values, exact[2], dtype, TOLERANCE)
    untouched = torch.ones(len(places.keys) * PAGE_SIZE, dtype=torch.bool)
    untouched[places.slots.cpu()] = False
    assert bool((places.keys.flatten(0, 1)[untouched.to(device)] == -7.0).all())


def test_a_fused_layer_gives_the_bits_of_three(device):
    hidden, (gain, shift), places, layers = operands(9, 64, 2, 32, torch.float32, device)
    found = []
    for weights, biases in (halves(layers), ([torch.cat(layers[:3])], [torch.cat(layers[3:])])):
        pages = NewRows(places.keys.clone(), places.values.clone(), places.slots)
        query = project_into_pages(hidden, weights, biases, pages, norm_weight=gain, norm_bias=shift)
        found.append((query, *pages[:2]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0 if device != "cpu" else 1e-5, atol=1e-6)


def test_a_token_has_the_same_bits_alone(device):
    hidden, (gain, shift), places, layers = operands(40, 48, 2, 24, torch.float32, device)
    run = {"norm_weight": gain, "norm_bias": shift}
    whole = project_into_pages(hidden, *halves(layers), places, **run)
    keys = places.keys.flatten(0, 1)[places.slots].clone()
    for rows in (slice(0, 1), slice(39, 40), slice(7, 24)):
        pages = NewRows(torch.zeros_like(places.keys), torch.zeros_like(places.keys), places.slots[rows])
        part = project_into_pages(hidden[rows].clone(), *halves(layers), pages, **run)
        assert torch.equal(part, whole[rows])
        assert torch.equal(pages.keys.flatten(0, 1)[pages.slots], keys[rows])


def test_pages_that_do_not_fit_are_refused():
    hidden, _, places, layers = operands(3, 8, 2, 4, torch.float32, "cpu")
    halved = layers[:2], layers[3:5]
    refused("16 outputs are no queries, keys and values", project_into_pages, hidden, *halved, places)
    short = places._replace(slots=places.slots[:2])
    refused("3 rows need as many slots", project_into_pages, hidden, *halves(layers), short)
    strided = places._replace(keys=places.keys.transpose(0, 1).contiguous().transpose(0, 1))
    refused("contiguous", project_into_pages, hidden, *halves(layers), strided)
