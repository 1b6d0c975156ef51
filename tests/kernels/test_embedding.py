"""Embeddings of tokens and positions: references and kernel."""

import pytest
import torch
from kernel_checks import check_bits_of_rows, drawn, near, refused, wide
from torch import Tensor

from tritone.kernels.embedding import (
    add_positions,
    add_positions_reference,
    embedding,
    embedding_reference,
    step_position_ids,
)
from tritone.kernels.runtime.launch import recorded

TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
WIDTHS = [1, 7, 144, 256, 300]
SCALE = 3.7


def tables(width: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[Tensor]:
    """A table of 11 tokens and one of 23 positions."""
    return drawn((11, width), (23, width), seed=width, dtype=dtype, device=device)


def numbers(rows: int, below: int, integer: torch.dtype, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(rows + below)
    return torch.randint(0, below, (rows,), generator=generator).to(device, integer)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [0, 1, 4, 9])
def test_a_token_is_its_scaled_row_plus_the_row_of_its_position(rows, width, dtype, device):
    table, position_table = tables(width, dtype, device)
    for ids, places in (
        (torch.int64, torch.int64),
        (torch.int32, torch.int32),
        (torch.int32, torch.int64),
        (torch.int16, torch.int16),
    ):
        given = numbers(rows, 11, ids, device), numbers(rows, 23, places, device)
        out = embedding(*given, table, position_table, SCALE)
        assert out.shape == (rows, width)
        near(out, embedding_reference(*wide(*given, table, position_table), SCALE), dtype, TOLERANCE)


def test_an_embedding_takes_one_launch(kernels_on):
    tokens = torch.tensor([1, 2], device=kernels_on)
    with recorded() as cases:
        embedding(tokens, tokens, *tables(7, device=kernels_on), SCALE)
    assert len(cases) == 1


@pytest.mark.parametrize("run", [embedding, embedding_reference])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_rows_of_tables_are_taken_to_the_bit(dtype, run):
    table, position_table = tables(7, dtype)
    tokens, positions = torch.tensor([10, 3, 3, 0, 7]), torch.tensor([2, 7, 12, 17, 22])
    wanted = table[tokens] * 1.5 + position_table[positions]
    assert torch.equal(run(tokens, positions, table, position_table, 1.5), wanted)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("integer", [torch.int32, torch.int64], ids=str)
def test_hidden_states_are_scaled_and_get_their_positions_rows(integer, width, dtype, device):
    hidden, table = tables(width, dtype, device)
    positions = numbers(11, 23, integer, device)
    out = add_positions(hidden, positions, table, SCALE)
    near(out, add_positions_reference(*wide(hidden, positions, table), SCALE), dtype, TOLERANCE)


@pytest.mark.parametrize("run", [add_positions, add_positions_reference])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_hidden_states_get_their_positions_rows_to_the_bit(dtype, run):
    hidden, table = tables(5, dtype)
    positions = torch.tensor([22, 0, 1, 2, 2, 2, 9, 10, 11, 3, 4])
    assert torch.equal(run(hidden, positions, table, 0.5), hidden * 0.5 + table[positions])


@pytest.mark.parametrize("width", [37, 48])
def test_a_tokens_vector_has_the_same_bits_alone_and_anywhere(width, dtype, device):
    table, position_table = tables(width, dtype, device)
    tokens, positions = numbers(9, 11, torch.int64, device), numbers(9, 23, torch.int64, device)

    def run(part: slice) -> list[Tensor]:
        out = embedding(tokens[part], positions[part], table, position_table, SCALE)
        added = add_positions(table[tokens[part]], positions[part], position_table, SCALE)
        assert torch.equal(added, out)
        return [out]

    check_bits_of_rows(9, run, (1, 6))


def test_nan_of_one_token_reaches_no_other(device):
    table, position_table = tables(20, device=device)
    tokens, positions = torch.tensor([1, 2, 3], device=device), torch.tensor([4, 5, 6], device=device)
    clean = embedding(tokens, positions, table, position_table, SCALE)
    table[[0, 2, 4]], position_table[7:] = float("nan"), float("inf")
    out = embedding(tokens, positions, table, position_table, SCALE)
    assert torch.equal(out[[0, 2]], clean[[0, 2]])
    assert bool(out[1].isnan().all())


@pytest.mark.parametrize("wrong", [-1, 11, 2**31 - 1])
def test_a_token_or_position_that_a_table_lacks_becomes_nan_and_reads_nothing(wrong, kernels_on):
    table, position_table = (rows[:11] for rows in tables(20, device=kernels_on))
    right = torch.tensor([3, 4, 5], device=kernels_on)
    given = torch.tensor([3, wrong, 5], device=kernels_on)
    clean = embedding(right, right, table, position_table, SCALE)
    for out in (
        embedding(given, right, table, position_table, SCALE),
        embedding(right, given, table, position_table, SCALE),
        add_positions(table[right], given, position_table, SCALE),
    ):
        assert bool(out[1].isnan().all())
        assert torch.equal(out[[0, 2]], clean[[0, 2]])


def test_views_are_read_by_their_strides(device):
    table, position_table = tables(21, device=device)
    tokens = torch.tensor([[1, 9], [2, 9], [3, 9]], device=device)[:, 0]
    positions = torch.arange(10, 16, device=device)[1::2]
    given = table[:, 1:].t().contiguous().t(), position_table[1:, 1:]
    out = embedding(tokens, positions, *given, SCALE)
    near(out, embedding_reference(*wide(tokens, positions, *given), SCALE), torch.float32, TOLERANCE)
    given = given[0][:3], positions, given[1]
    near(
        add_positions(*given, SCALE), add_positions_reference(*wide(*given), SCALE), torch.float32, TOLERANCE
    )


def test_no_tokens_give_no_rows(device):
    table, position_table = tables(7, device=device)
    nothing = torch.empty(0, dtype=torch.int64, device=device)
    assert embedding(nothing, nothing, table, position_table, SCALE).shape == (0, 7)
    assert add_positions(table[:0], nothing, position_table, SCALE).shape == (0, 7)


def test_gradients_reach_both_tables_and_the_hidden_states():
    table, positions_table = (tensor.double().requires_grad_() for tensor in tables(3))
    tokens, positions = torch.tensor([1, 1, 4]), torch.tensor([0, 2, 2])
    assert torch.autograd.gradcheck(
        lambda *t: embedding(tokens, positions, *t, 1.5), (table, positions_table)
    )
    hidden = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *t: add_positions(t[0], positions, t[1], 0.5), (hidden, positions_table)
    )


def test_arguments_that_do_not_fit_are_refused(kernels_on):
    table, position_table = tables(7, device=kernels_on)
    tokens, half = torch.tensor([1, 2], device=kernels_on), position_table.half()
    for problem, operation, *given in (
        (r"one shape \[tokens\], got \[2\] and \[1\]", embedding, tokens, tokens[:1], table, position_table),
        (r"need positions \[11\], got \[2\]", add_positions, table, tokens, position_table),
        (r"must both be \[rows, width\]", embedding, tokens, tokens, table, position_table[:, :5]),
        ("table is torch.float32 and position_table torch.float16", embedding, tokens, tokens, table, half),
        ("hidden is torch.float32 and position_table torch.float16", add_positions, table[:2], tokens, half),
    ):
        refused(problem, operation, *given, SCALE)


@pytest.mark.parametrize("tokens", [0, 1, 128, 131])
def test_a_step_counts_positions_and_puts_padding_tokens_before_them(tokens, device):
    generator = torch.Generator().manual_seed(tokens)
    ids = torch.randint(0, 4, (tokens,), generator=generator).to(device)
    positions = torch.randint(0, 300, (tokens,), generator=generator).to(device)
    found = step_position_ids(ids, positions, 2, 1)
    assert found.dtype == torch.int64
    assert found.tolist() == [
        1 if token == 1 else position + 2
        for token, position in zip(ids.tolist(), positions.tolist(), strict=True)
    ]
