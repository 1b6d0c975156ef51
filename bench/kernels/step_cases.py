"""Cases of the tables of a decode step: its inputs, and the new tokens at its end."""

from collections.abc import Iterator
from types import SimpleNamespace

import torch
from torch import Tensor

from tritone.kernels.attention.kv_cache import PAGE_SIZE
from tritone.kernels.sampling.append import append, append_reference
from tritone.kernels.sampling.step_inputs import step_inputs, step_inputs_reference

from ..common.roofline import Work
from ..common.shapes import Model
from .cases import Case, Prepared, Setup

_MAX_TOKENS = 208  # tokens of a sequence


def steps(model: Model, rows: int) -> Iterator[Case]:
    yield _inputs(model, rows)
    yield _append(model, rows)


def _inputs(model: Model, rows: int) -> Case:
    def prepare(setup: Setup) -> Prepared:
        blocks = _MAX_TOKENS // PAGE_SIZE
        int32 = torch.int32
        tokens = setup.integers(model.vocabulary, rows, _MAX_TOKENS, dtype=int32)
        length = 1 + setup.integers(_MAX_TOKENS, rows, dtype=int32)
        slots = torch.randperm(rows, device=setup.device)
        capacity = torch.full_like(length, _MAX_TOKENS)
        sequence = torch.zeros_like(length)
        pages = setup.integers(1000, rows, blocks, dtype=int32)

        def given() -> list[Tensor]:
            return [tokens, length, torch.zeros_like(tokens), slots, capacity, sequence, pages]

        mine, theirs = given(), given()

        def part(out: tuple[Tensor | None, ...]) -> Tensor:
            return torch.stack([one.double() for one in out if one is not None])

        wanted = part(step_inputs_reference(*given()))
        ours = Prepared.of(lambda _: step_inputs(*mine), wanted, 0.0, part)
        return ours.beside("torch, indexed", lambda _: step_inputs_reference(*theirs), part)

    shape = f"inputs of {rows:,} rows"
    return Case("step_inputs", model.name, rows, shape, Work(0, 60 * rows), prepare, graph=True)


def _append(model: Model, rows: int) -> Case:
    def prepare(setup: Setup) -> Prepared:
        slots = torch.randperm(rows, device=setup.device)
        tokens = setup.integers(model.vocabulary, rows)
        scores = setup.random(rows, dtype=torch.float32)[0]
        current = _tables(setup, rows)
        current.length += 7
        limits = torch.full_like(current.length, 8)
        limits[::2] = _MAX_TOKENS  # every second sequence ends
        others = {"hypotheses": 1, "end_tokens": (2,), "pad_token": 1}
        given = slots, tokens, scores, limits
        mine, theirs, exact = (_tables(setup, rows) for _ in range(3))
        append_reference(current, exact, *given, **others)

        def ours(_: int) -> SimpleNamespace:
            append(current, mine, *given, **others)
            return mine

        def peer(_: int) -> SimpleNamespace:
            append_reference(current, theirs, *given, **others)
            return theirs

        return Prepared.of(ours, _columns(exact), 0.0, _columns).beside("torch, indexed", peer, _columns)

    shape = f"a token to {rows:,} sequences"
    return Case("append", model.name, rows, shape, Work(rows, 74 * rows), prepare, graph=True)


def _tables(setup: Setup, rows: int) -> SimpleNamespace:
    def zeros(dtype: torch.dtype, *shape: int) -> Tensor:
        return torch.zeros(rows, *shape, dtype=dtype, device=setup.device)

    wide = {name: zeros(torch.int32, _MAX_TOKENS) for name in ("tokens", "origin")}
    counts = {name: zeros(torch.int32) for name in ("length", "final_length")}
    flags = {name: zeros(torch.bool) for name in ("done", "final_done", "request_done")}
    wide["log_probabilities"] = zeros(torch.float32, _MAX_TOKENS)
    return SimpleNamespace(**wide, **counts, **flags, score=zeros(torch.float32))


def _columns(tables: SimpleNamespace) -> Tensor:
    """All of the tables, side by side."""
    return torch.cat([table.view(len(table), -1).double() for table in vars(tables).values()], 1)
