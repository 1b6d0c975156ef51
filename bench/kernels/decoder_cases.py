"""Cases of a decode step: embedding, attention over pages, page writes, and the next token."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from tritone.kernels.attention.kv_cache import PAGE_SIZE, store
from tritone.kernels.attention.paged.reference import paged_attention, paged_attention_reference
from tritone.kernels.embedding import embedding, embedding_reference
from tritone.kernels.runtime.packing import cumulative
from tritone.kernels.sampling.candidates import (
    draw_candidates,
    draw_candidates_reference,
    top_candidates,
    top_candidates_reference,
)
from tritone.kernels.sampling.draw import categorical, categorical_reference, greedy, greedy_reference
from tritone.kernels.sampling.softmax import log_softmax
from tritone.kernels.sampling.warping import warp, warp_reference

from ..common.roofline import Work
from ..common.shapes import Batch, Model
from . import peers
from .cases import HALF, Case, Prepared, Setup


def embed(model: Model, rows: int) -> Case:
    """A decode step's tokens."""

    def prepare(setup: Setup) -> Prepared:
        table, positions = setup.random(model.vocabulary, model.width), setup.random(1026, model.width)
        ids, indices = setup.integers(model.vocabulary, rows), setup.integers(1026, rows)
        scale = model.width**0.5
        wanted = embedding_reference(ids, indices, table[0].double(), positions[0].double(), scale)
        return Prepared.of(
            lambda i: embedding(ids, indices, table[i], positions[i], scale),
            wanted,
            setup.error,
        ).beside("torch", lambda i: F.embedding(ids, table[i]) * scale + F.embedding(indices, positions[i]))

    work = Work(2 * rows * model.width, HALF * 3 * rows * model.width + 16 * rows)
    return Case("embedding", model.name, rows, f"{rows:,} tokens", work, prepare, graph=True)


def paged_cross(batch: Batch) -> Case:
    """A decode step's cross-attention: one query a request over the encoder's keys and values."""
    return _paged(batch, batch.tokens, 1, own=False)


def paged_self(batch: Batch, beams: int) -> Case:
    """A decode step's self-attention: `beams` hypotheses a request, each reading through its history."""
    return _paged(batch, batch.text, beams, own=True)


def _paged(batch: Batch, lengths: list[int], beams: int, *, own: bool) -> Case:
    model = batch.model
    rows, longest = batch.size * beams, max(lengths)
    blocks = -(-longest // PAGE_SIZE)

    def prepare(setup: Setup) -> Prepared:
        device, tables = setup.device, batch.size * beams if own else batch.size
        block_tables = torch.randperm(tables * blocks, device=device, dtype=torch.int32).view(tables, blocks)
        shape = (tables * blocks, PAGE_SIZE, model.heads, model.head_dim)
        keys, values = setup.random(*shape), setup.random(*shape)
        query = setup.random(rows, model.heads, model.head_dim)
        counts = torch.tensor(lengths, device=device, dtype=torch.int32)
        cu_rows = cumulative([beams] * batch.size, device)
        origin = setup.integers(beams, rows, longest, dtype=torch.int32) if own else None
        scale = model.head_dim**-0.5
        first = (batch.size - 1) * beams  # row of the last request
        wanted = paged_attention_reference(
            query[0][first:].float(),
            keys[0],
            values[0],
            block_tables[first:] if own else block_tables[-1:],
            counts[-1:],
            cumulative([beams], device),
            scale=scale,
            origin=None if origin is None else origin[first:],
        )
        positions = torch.arange(longest, device=device)
        if origin is None:
            pages = block_tables[:, positions // PAGE_SIZE]
        else:
            first_slots = torch.arange(rows, device=device)[:, None] // beams * beams
            pages = block_tables[first_slots + origin.long(), positions // PAGE_SIZE]
        cached = pages.long() * PAGE_SIZE + positions % PAGE_SIZE
        mask = (positions[None] < counts.repeat_interleave(beams)[:, None])[:, None, None]
        dense = [
            [peers.gather_pages(pool, cached).contiguous() for pool in pools] for pools in (keys, values)
        ]

        def ours(i: int) -> Tensor:
            return paged_attention(
                query[i], keys[i], values[i], block_tables, counts, cu_rows, scale=scale, origin=origin
            )

        def attend(i: int, key: Tensor, value: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(query[i][:, :, None], key, value, attn_mask=mask)[:, :, 0]

        def gathered(i: int) -> Tensor:
            return attend(i, peers.gather_pages(keys[i], cached), peers.gather_pages(values[i], cached))

        prepared = Prepared.of(ours, wanted, setup.error)
        prepared.beside("SDPA, dense cache", lambda i: attend(i, dense[0][i], dense[1][i]))
        return prepared.beside("SDPA, gathered", gathered)

    read = sum(lengths) * (beams if own else 1)  # rows of keys, and as many of values
    tables = 4 * (rows * longest if own else 0)
    work = Work(4 * sum(lengths) * beams * model.width, HALF * 2 * (read + rows) * model.width + tables)
    shape = f"self, {beams} beam{'s' * (beams > 1)}" if own else "cross"
    tags = frozenset({"paged cross"}) if not own else frozenset()
    return Case("paged_attention", model.name, batch.size, shape, work, prepare, tags, graph=True)


def store_rows(batch: Batch) -> Iterator[Case]:
    """Keys and values of a decode step, and of an encoder's output."""
    yield _store(batch, batch.size, "a decode step")
    yield _store(batch, sum(batch.tokens), "a prefill")


def _store(batch: Batch, rows: int, name: str) -> Case:
    model = batch.model

    def prepare(setup: Setup) -> Prepared:
        pages = -(-rows // PAGE_SIZE) + 7
        shape = (pages, PAGE_SIZE, model.heads, model.head_dim)
        positions = torch.randperm(pages * PAGE_SIZE, device=setup.device)[:rows]
        new = [setup.random(rows, model.heads, model.head_dim) for _ in range(2)]  # keys, values

        def pools() -> list[list[Tensor]]:
            empty = partial(torch.full, shape, float("nan"), device=setup.device, dtype=setup.dtype)
            return [[empty() for _ in range(setup.copies)] for _ in range(2)]

        mine, theirs = pools(), pools()

        def indexed(i: int) -> list[Tensor]:
            for pool, rows in zip(theirs, new, strict=True):
                pool[i].flatten(0, 1)[positions] = rows[i]
            return [pool[i] for pool in theirs]

        def ours(i: int) -> list[Tensor]:
            store(mine[0][i], mine[1][i], new[0][i], new[1][i], positions)
            return [pool[i] for pool in mine]

        def part(pair: list[Tensor]) -> Tensor:
            return torch.cat([pool.flatten(0, 1)[positions] for pool in pair])

        wanted = torch.cat([rows[0] for rows in new]).float()
        return Prepared.of(ours, wanted, 0.0, part).beside("torch, indexed", indexed)

    work = Work(0, HALF * 4 * rows * model.width + 8 * rows)
    return Case("kv_cache", model.name, batch.size, f"{name}, {rows:,} rows", work, prepare, graph=True)


def choices(model: Model, requests: int) -> Iterator[Case]:
    """The next tokens of a step from its float32 logits: greedy, sampled, and beam search with five."""
    vocabulary, beams = model.vocabulary, 5
    few = slice(-16, None)

    def case(shape: str, rows: int, written: int, prepare: Callable[[Setup], Prepared]) -> Case:
        # Each number is read, compared, and its exponential added up; where rows are written, once more.
        size = rows * vocabulary
        work = Work(4 * size, 4 * size * (1 + written))
        return Case("sampling", model.name, requests, shape, work, prepare, graph=True)

    def scores_of(setup: Setup, rows: int) -> list[Tensor]:
        return setup.random(rows, vocabulary, dtype=torch.float32, scale=3.0)

    def keys_of(setup: Setup) -> tuple[Tensor, Tensor, Tensor]:
        sequences = torch.zeros(requests, dtype=torch.int64, device=setup.device)
        return setup.integers(1 << 40, requests), sequences, setup.integers(100, requests)

    def best_token(setup: Setup) -> Prepared:
        scores = scores_of(setup, requests)
        tokens, wanted = greedy_reference(scores[0][few].double())

        def part(out: tuple[Tensor, Tensor]) -> Tensor:
            return torch.where(out[0][few] == tokens, out[1][few], float("nan"))

        def peer(i: int) -> tuple[Tensor, Tensor]:
            best = scores[i].log_softmax(-1).max(-1)
            return best.indices, best.values

        ours = Prepared.of(lambda i: greedy(scores[i]), wanted, 1e-5, part)
        return ours.beside("log_softmax + max", peer)

    def one_draw(setup: Setup) -> Prepared:
        scores, keys = scores_of(setup, requests), keys_of(setup)
        wanted = categorical_reference(scores[0][few].double(), *(key[few] for key in keys)).double()
        # torch's draws are others: the check is that they are tokens.
        return Prepared.of(lambda i: categorical(scores[i], *keys), wanted, 0.0).beside(
            "softmax + multinomial",
            lambda i: torch.multinomial(scores[i].softmax(-1), 1),
            lambda out: ((out >= 0) & (out < vocabulary)).sum(0, keepdim=True),
            torch.tensor([[requests]], device=setup.device),
            graph=False,
        )

    def warped(setup: Setup) -> Prepared:
        scores = scores_of(setup, requests)
        options = {"temperature": 0.7, "top_k": 50, "top_p": 0.9}
        wanted = warp_reference(scores[0][few].double(), **options).exp()  # removed tokens are -inf
        ours = Prepared.of(lambda i: warp(scores[i], **options), wanted, 1e-4, lambda out: out[few].exp())
        return ours.beside("torch, sorted", lambda i: warp_reference(scores[i], **options))

    def log_probabilities(setup: Setup) -> Prepared:
        scores = scores_of(setup, requests)
        wanted = scores[0][few].double().log_softmax(-1)
        ours = Prepared.of(lambda i: log_softmax(scores[i]), wanted, 1e-5)
        return ours.beside("log_softmax", lambda i: scores[i].log_softmax(-1))

    def best_candidates(setup: Setup) -> Prepared:
        scores = scores_of(setup, requests * beams)
        running = setup.random(requests * beams, dtype=torch.float32)[0]
        last = slice(-3 * beams, None)  # three requests
        find = partial(top_candidates, running=running, beams=beams, normalize=True)
        wanted, _ = top_candidates_reference(
            scores[0][last].double(), 2 * beams, running=running[last].double(), beams=beams, normalize=True
        )

        def peer(i: int) -> Tensor:
            total = scores[i].log_softmax(-1) + running[:, None]
            return total.view(requests, beams * vocabulary).topk(2 * beams).values

        ours = Prepared.of(lambda i: find(scores[i], 2 * beams)[0], wanted, 1e-5)
        return ours.beside("log_softmax + topk", peer)

    def drawn_candidates(setup: Setup) -> Prepared:
        scores, keys = scores_of(setup, requests * beams), keys_of(setup)
        running = setup.random(requests * beams, dtype=torch.float32)[0]
        last = slice(-3 * beams, None)  # three requests
        wanted, _ = draw_candidates_reference(
            scores[0][last].double(),
            2 * beams,
            *(key[-3:] for key in keys),
            running=running[last].double(),
            beams=beams,
        )

        def draw(function: Callable[..., tuple[Tensor, Tensor]], i: int) -> Tensor:
            return function(scores[i], 2 * beams, *keys, running=running, beams=beams)[0]

        ours = Prepared.of(partial(draw, draw_candidates), wanted, 1e-5)
        return ours.beside("torch, Gumbel + topk", partial(draw, draw_candidates_reference), graph=False)

    yield case(f"greedy, of {vocabulary:,}", requests, 0, best_token)
    yield case(f"a draw of {vocabulary:,}", requests, 0, one_draw)
    yield case(f"top-k and top-p of {vocabulary:,}", requests, 1, warped)
    yield case(f"log-softmax of {vocabulary:,}", requests, 1, log_probabilities)
    of = f"of {beams} x {vocabulary:,}"
    yield case(f"best {2 * beams} {of}", requests * beams, 0, best_candidates)
    yield case(f"{2 * beams} drawn {of}", requests * beams, 0, drawn_candidates)
