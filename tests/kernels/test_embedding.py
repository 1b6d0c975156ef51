"""Embeddings of tokens and positions."""

import pytest
import torch

from tritone.kernels.embedding import add_positions, add_positions_reference, embedding, embedding_reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def tables(width: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(width)
    return (
        torch.randn(11, width, generator=generator).to(dtype),
        torch.randn(23, width, generator=generator).to(dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [1, 7, 144])
@pytest.mark.parametrize("tokens", [[], [0], [10, 3, 3, 0, 7]], ids=len)
def test_a_token_is_its_scaled_row_plus_the_row_of_its_position(tokens, width, dtype):
    table, positions_table = tables(width, dtype)
    positions = [(5 * place + 2) % 23 for place in range(len(tokens))]
    for integer in (torch.int32, torch.int64):
        given = torch.tensor(tokens, dtype=integer), torch.tensor(positions, dtype=integer)
        for run in (embedding, embedding_reference):
            out = run(*given, table, positions_table, 1.5)
            assert out.shape == (len(tokens), width)
            assert out.dtype == dtype
            for row, (token, position) in enumerate(zip(tokens, positions, strict=True)):
                assert torch.equal(out[row], table[token] * 1.5 + positions_table[position])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_hidden_states_are_scaled_and_get_their_positions_rows(dtype):
    hidden, table = tables(5, dtype)
    positions = torch.tensor([22, 0, 1, 2, 2, 2, 9, 10, 11, 3, 4])
    for run in (add_positions, add_positions_reference):
        assert torch.equal(run(hidden, positions, table, 0.5), hidden * 0.5 + table[positions])


def test_a_tokens_vector_has_the_same_bits_in_any_company():
    table, positions_table = tables(37)
    tokens, positions = torch.arange(11), torch.arange(11) * 2
    whole = embedding(tokens, positions, table, positions_table, 6.0)
    for row in range(11):
        alone = embedding(tokens[row : row + 1], positions[row : row + 1], table, positions_table, 6.0)
        assert torch.equal(alone[0], whole[row])


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
