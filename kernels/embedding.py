"""Tokens and positions to vectors."""

from torch import Tensor

from .dispatch import choose


def embedding(
    token_ids: Tensor, positions: Tensor, table: Tensor, position_table: Tensor, scale: float
) -> Tensor:
    """`table[token_ids] * scale + position_table[positions]`.

    Args:
        token_ids: int [tokens].
        positions: int [tokens], rows of the position table.
        table: [vocabulary, width].
        position_table: [positions, width], sinusoidal or learned.
        scale: multiplies the token's vector, sqrt(width) in Speech2Text.

    Returns:
        [tokens, width].
    """
    run = choose(table, position_table, reference=embedding_reference)
    return run(token_ids, positions, table, position_table, scale)


def embedding_reference(
    token_ids: Tensor, positions: Tensor, table: Tensor, position_table: Tensor, scale: float
) -> Tensor:
    """The specification, in plain torch."""
    return table[token_ids.long()] * scale + position_table[positions.long()]


def add_positions(hidden: Tensor, positions: Tensor, position_table: Tensor, scale: float) -> Tensor:
    """`hidden * scale + position_table[positions]`, for encoders whose input is not tokens.

    Args:
        hidden: [tokens, width].
        positions: int [tokens].
        position_table: [positions, width].
        scale: multiplies `hidden`.
    """
    run = choose(hidden, position_table, reference=add_positions_reference)
    return run(hidden, positions, position_table, scale)


def add_positions_reference(
    hidden: Tensor, positions: Tensor, position_table: Tensor, scale: float
) -> Tensor:
    """The specification, in plain torch."""
    return hidden * scale + position_table[positions.long()]
