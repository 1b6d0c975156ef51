"""The Triton kernel of embeddings against its references."""

import pytest
import torch

from tritone.kernels.embedding import add_positions, add_positions_reference, embedding, embedding_reference
from tritone.kernels.runtime.launch import recorded

TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
WIDTHS = [1, 7, 144, 256, 300]
SCALE = 3.7


def tables(width: int, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    """A table of 11 tokens and one of 23 positions."""
    generator = torch.Generator().manual_seed(width)
    return [torch.randn(rows, width, generator=generator).to(device, dtype) for rows in (11, 23)]


def numbers(rows: int, below: int, integer: torch.dtype, device: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows + below)
    return torch.randint(0, below, (rows,), generator=generator).to(device, integer)


def assert_near(out: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> None:
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [1, 4, 9])
def test_a_token_is_its_scaled_row_plus_the_row_of_its_position(rows, width, dtype, kernels_on):
    table, position_table = tables(width, dtype, kernels_on)
    for ids, places in (
        (torch.int64, torch.int64),
        (torch.int32, torch.int32),
        (torch.int32, torch.int64),
        (torch.int16, torch.int16),
    ):
        given = numbers(rows, 11, ids, kernels_on), numbers(rows, 23, places, kernels_on)
        with recorded() as cases:
            out = embedding(*given, table, position_table, SCALE)
        assert len(cases) == 1
        assert_near(out, embedding_reference(*given, table.double(), position_table.double(), SCALE), dtype)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("integer", [torch.int32, torch.int64], ids=str)
def test_hidden_states_are_scaled_and_get_their_positions_rows(integer, width, dtype, kernels_on):
    hidden, position_table = tables(width, dtype, kernels_on)
    positions = numbers(11, 23, integer, kernels_on)
    out = add_positions(hidden, positions, position_table, SCALE)
    assert_near(
        out, add_positions_reference(hidden.double(), positions, position_table.double(), SCALE), dtype
    )


@pytest.mark.parametrize("width", [37, 48])
def test_a_tokens_vector_has_the_same_bits_alone_and_anywhere(width, dtype, kernels_on):
    table, position_table = tables(width, dtype, kernels_on)
    tokens, positions = numbers(9, 11, torch.int64, kernels_on), numbers(9, 23, torch.int64, kernels_on)
    whole = embedding(tokens, positions, table, position_table, SCALE)
    hidden = table[tokens]
    added = add_positions(hidden, positions, position_table, SCALE)
    assert torch.equal(added, whole)
    for start, end in [(0, 1), (4, 5), (8, 9), (1, 7)]:
        part = embedding(tokens[start:end], positions[start:end], table, position_table, SCALE)
        assert torch.equal(part, whole[start:end])
        part = add_positions(hidden[start:end], positions[start:end], position_table, SCALE)
        assert torch.equal(part, whole[start:end])


def test_nan_of_one_token_reaches_no_other(kernels_on):
    table, position_table = tables(20, torch.float32, kernels_on)
    tokens, positions = torch.tensor([1, 2, 3], device=kernels_on), torch.tensor([4, 5, 6], device=kernels_on)
    clean = embedding(tokens, positions, table, position_table, SCALE)
    table[[0, 2, 4]], position_table[7:] = float("nan"), float("inf")
    out = embedding(tokens, positions, table, position_table, SCALE)
    assert torch.equal(out[[0, 2]], clean[[0, 2]])
    assert bool(out[1].isnan().all())


@pytest.mark.parametrize("wrong", [-1, 11, 2**31 - 1])
def test_a_token_or_position_that_a_table_lacks_becomes_nan_and_reads_nothing(wrong, kernels_on):
    table, position_table = (rows[:11] for rows in tables(20, torch.float32, kernels_on))
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


def test_views_are_read_by_their_strides(kernels_on):
    table, position_table = tables(21, torch.float32, kernels_on)
    tokens = torch.tensor([[1, 9], [2, 9], [3, 9]], device=kernels_on)[:, 0]
    positions = torch.arange(10, 16, device=kernels_on)[1::2]
    given = table[:, 1:].t().contiguous().t(), position_table[1:, 1:]
    out = embedding(tokens, positions, *given, SCALE)
    assert_near(
        out, embedding_reference(tokens, positions, *(g.double() for g in given), SCALE), torch.float32
    )
    out = add_positions(given[0][:3], positions, given[1], SCALE)
    wanted = add_positions_reference(given[0][:3].double(), positions, given[1].double(), SCALE)
    assert_near(out, wanted, torch.float32)


def test_no_tokens_give_no_rows(kernels_on):
    table, position_table = tables(7, torch.float32, kernels_on)
    nothing = torch.empty(0, dtype=torch.int64, device=kernels_on)
    assert embedding(nothing, nothing, table, position_table, SCALE).shape == (0, 7)
    assert add_positions(table[:0], nothing, position_table, SCALE).shape == (0, 7)


def test_arguments_that_do_not_fit_are_refused(kernels_on):
    table, position_table = tables(7, torch.float32, kernels_on)
    tokens = torch.tensor([1, 2], device=kernels_on)
    with pytest.raises(ValueError, match=r"one shape \[tokens\], got \[2\] and \[1\]"):
        embedding(tokens, tokens[:1], table, position_table, SCALE)
    with pytest.raises(ValueError, match=r"need positions \[11\], got \[2\]"):
        add_positions(table, tokens, position_table, SCALE)
    with pytest.raises(ValueError, match=r"must both be \[rows, width\]"):
        embedding(tokens, tokens, table, position_table[:, :5], SCALE)
    with pytest.raises(ValueError, match=r"table is torch.float32 and position_table torch.float16"):
        embedding(tokens, tokens, table, position_table.half(), SCALE)
    with pytest.raises(ValueError, match=r"hidden is torch.float32 and position_table torch.float16"):
        add_positions(table[:2], tokens, position_table.half(), SCALE)
