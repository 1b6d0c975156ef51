"""Token embeddings and position embeddings, added in one operation."""

import torch
from torch import Tensor

from .runtime.dispatch import Operation
from .runtime.launch import ALIGNMENTS, DTYPES, alignment, kernel
from .runtime.optional_triton import tl


def embedding(
    token_ids: Tensor, positions: Tensor, table: Tensor, position_table: Tensor, scale: float
) -> Tensor:
    """Embed tokens and their positions: `table[token_ids] * scale + position_table[positions]`.

    An id or position past its table is an error on the CPU; a kernel cannot raise, and gives a row of NaN.

    Args:
        token_ids: int [tokens].
        positions: int [tokens], rows of the position-embedding table.
        table: [vocabulary, width], token embeddings.
        position_table: [positions, width], position embeddings, sinusoidal or learned.
        scale: factor of the token embeddings, sqrt(width) in Speech2Text.

    Returns:
        [tokens, width].

    Raises:
        ValueError: shapes or dtypes that do not match.
    """
    if token_ids.shape != positions.shape or token_ids.dim() != 1:
        raise ValueError(
            f"token_ids and positions must have one shape [tokens], got {list(token_ids.shape)} and "
            f"{list(positions.shape)}"
        )
    _check_tables(table, position_table, "table")
    return _embedding(token_ids, positions, table, position_table, scale)


def embedding_reference(
    token_ids: Tensor, positions: Tensor, table: Tensor, position_table: Tensor, scale: float
) -> Tensor:
    """Reference implementation of `embedding` in plain torch."""
    return table[token_ids.long()] * scale + position_table[positions.long()]


def embedding_triton(
    token_ids: Tensor, positions: Tensor, table: Tensor, position_table: Tensor, scale: float
) -> Tensor:
    """`embedding` by one kernel launch, computed in float32 and rounded once."""
    if token_ids.dtype != positions.dtype:
        token_ids, positions = token_ids.long(), positions.long()
    return _launch(table, token_ids, positions, position_table, scale)


def add_positions(hidden: Tensor, positions: Tensor, position_table: Tensor, scale: float) -> Tensor:
    """Add position embeddings to hidden states: `hidden * scale + position_table[positions]`.

    For encoders whose input is not tokens; the result is [tokens, width].

    Args:
        hidden: [tokens, width].
        positions: int [tokens]; past the table as in `embedding`.
        position_table: [positions, width], position embeddings.
        scale: factor of `hidden`.

    Raises:
        ValueError: shapes or dtypes that do not match.
    """
    if positions.shape != hidden.shape[:1]:
        raise ValueError(
            f"hidden states {list(hidden.shape)} need positions [{hidden.shape[0]}], got "
            f"{list(positions.shape)}"
        )
    _check_tables(hidden, position_table, "hidden")
    return _add_positions(hidden, positions, position_table, scale)


def add_positions_reference(
    hidden: Tensor, positions: Tensor, position_table: Tensor, scale: float
) -> Tensor:
    """Reference implementation of `add_positions` in plain torch."""
    return hidden * scale + position_table[positions.long()]


def add_positions_triton(hidden: Tensor, positions: Tensor, position_table: Tensor, scale: float) -> Tensor:
    """`add_positions` by one kernel launch, computed in float32 and rounded once."""
    return _launch(hidden, None, positions, position_table, scale)


def step_position_ids(token_ids: Tensor, positions: Tensor, first: int, padding: int) -> Tensor:
    """Position ids of a decode step's tokens: `positions + first`, and `first - 1` for padding tokens.

    Args:
        token_ids: int64 [tokens].
        positions: int64 [tokens], positions in the sequences, from 0.
        first: position id of a sequence's first token.
        padding: id of the padding token.

    Returns:
        int64 [tokens].
    """
    return _step_position_ids(token_ids, positions, first, padding)


def step_position_ids_reference(token_ids: Tensor, positions: Tensor, first: int, padding: int) -> Tensor:
    """Reference implementation of `step_position_ids` in plain torch."""
    return torch.where(token_ids == padding, first - 1, positions + first)


def step_position_ids_triton(token_ids: Tensor, positions: Tensor, first: int, padding: int) -> Tensor:
    """`step_position_ids` in one launch."""
    tokens, out = token_ids.shape[0], torch.empty_like(positions)
    case = position_ids_kernel.case(token_ids.device)
    case.launch(
        (case.block_count("BLOCK", tokens),), token_ids.long(), positions.long(), out, tokens, first, padding
    )
    return out


def _check_tables(table: Tensor, position_table: Tensor, name: str) -> None:
    if table.dim() != 2 or position_table.dim() != 2 or table.shape[1] != position_table.shape[1]:
        raise ValueError(
            f"{name} {list(table.shape)} and position_table {list(position_table.shape)} must both be "
            "[rows, width]"
        )
    if table.dtype != position_table.dtype:
        raise ValueError(
            f"{name} is {table.dtype} and position_table {position_table.dtype}; convert one with .to(dtype)"
        )


_embedding = Operation(embedding_reference, triton=embedding_triton)
_add_positions = Operation(add_positions_reference, triton=add_positions_triton)
_step_position_ids = Operation(step_position_ids_reference, triton=step_position_ids_triton)


def _launch(
    table: Tensor, token_ids: Tensor | None, positions: Tensor, position_table: Tensor, scale: float
) -> Tensor:
    if positions.dtype not in _INTEGERS:
        token_ids, positions = None if token_ids is None else token_ids.long(), positions.long()
    tokens, width = positions.shape[0], table.shape[1]
    out = table.new_empty(tokens, width)
    case = embed_kernel.case(table.device, table.dtype, positions.dtype, alignment(width))
    grid = case.block_count("BLOCK_M", tokens), case.block_count("BLOCK_N", width)
    tensors = table, token_ids, positions, position_table, out
    rows = table.shape[0], position_table.shape[0]
    case.launch(grid, *tensors, tokens, width, *rows, token_ids is not None, scale)
    return out


@kernel(sizes=("width",))
def embed_kernel(
    table_ptr,  # [table_rows, width]
    token_ids_ptr,  # [tokens]
    positions_ptr,  # [tokens]
    position_table_ptr,  # [position_rows, width]
    out_ptr,  # [tokens, width]
    tokens: tl.int32,
    width: tl.int32,
    table_rows: tl.int32,
    position_rows: tl.int32,
    by_token: tl.int32,  # 1 where token ids index the table, 0 where its rows are the tokens
    scale: tl.float32,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (m < tokens)[:, None] & (n < width)[None, :]
    position = tl.load(positions_ptr + m, mask=m < tokens, other=0).to(tl.int64)
    row = m.to(tl.int64)
    if by_token != 0:
        row = tl.load(token_ids_ptr + m, mask=m < tokens, other=0).to(tl.int64)
    # Indices outside a table are not read, and give NaN.
    known_row = ((row >= 0) & (row < table_rows))[:, None] & mask
    known_position = ((position >= 0) & (position < position_rows))[:, None] & mask
    vector = tl.load(table_ptr + row[:, None] * width + n[None, :], mask=known_row, other=float("nan"))
    offset = tl.load(
        position_table_ptr + position[:, None] * width + n[None, :], mask=known_position, other=float("nan")
    )
    out = vector.to(tl.float32) * scale + offset.to(tl.float32)
    offsets = m.to(tl.int64)[:, None] * width + n[None, :]
    tl.store(out_ptr + offsets, out.to(out_ptr.dtype.element_ty), mask=mask)


@kernel()
def position_ids_kernel(
    token_ids_ptr,  # [tokens]
    positions_ptr,  # [tokens]
    out_ptr,  # [tokens]
    tokens: tl.int32,
    first: tl.int32,
    padding: tl.int32,
    BLOCK: tl.constexpr,
):
    m = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    token = tl.load(token_ids_ptr + m, mask=m < tokens, other=0)
    position = tl.load(positions_ptr + m, mask=m < tokens, other=0) + first
    tl.store(out_ptr + m, tl.where(token == padding, first - 1, position), mask=m < tokens)


position_ids_kernel.declare_all(
    pointers=dict.fromkeys(("token_ids_ptr", "positions_ptr", "out_ptr"), torch.int64),
    num_stages=1,
    num_warps=1,
    BLOCK=128,
)

_INTEGERS = (torch.int32, torch.int64)
for _integer in _INTEGERS:
    # Tile sizes with which each thread reads 16 bytes of each table in half precision.
    embed_kernel.declare_all(
        DTYPES,
        (_integer,),
        ALIGNMENTS,
        pointers=dict.fromkeys(("token_ids_ptr", "positions_ptr"), _integer),
        num_stages=1,
        BLOCK_M=4,
        BLOCK_N=256,
    )
