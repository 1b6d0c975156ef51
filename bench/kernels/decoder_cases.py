"""A decode step: embedding, attention over pages, and the choice of the next token."""

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
from .cases import HALF, Case, Contestant, Prepared, Stage


def embed(model: Model, rows: int) -> Case:
    """A decode step's tokens."""

    def prepare(stage: Stage) -> Prepared:
        table, places = stage.random(model.vocabulary, model.width), stage.random(1026, model.width)
        ids, where = stage.integers(model.vocabulary, rows), stage.integers(1026, rows)
        scale = model.width**0.5
        wanted = embedding_reference(ids, where, table[0].double(), places[0].double(), scale)
        return Prepared(
            Contestant(lambda i: embedding(ids, where, table[i], places[i], scale), lambda out: out),
            {
                "torch": Contestant(
                    lambda i: F.embedding(ids, table[i]) * scale + F.embedding(where, places[i]),
                    lambda out: out,
                )
            },
            wanted,
            stage.error,
        )

    work = Work(2 * rows * model.width, HALF * 3 * rows * model.width + 16 * rows)
    return Case("embedding", model.name, rows, f"{rows:,} tokens", work, prepare, graph=True)


def paged_cross(batch: Batch) -> Case:
    """A decode step's cross-attention: one row a request over the encoder's keys and values."""
    return _paged(batch, batch.tokens, 1, own=False)


def paged_self(batch: Batch, beams: int) -> Case:
    """A decode step's self-attention: `beams` hypotheses a request, each reading through its history."""
    return _paged(batch, batch.text, beams, own=True)


def _paged(batch: Batch, lengths: list[int], beams: int, *, own: bool) -> Case:
    model = batch.model
    rows, longest = batch.size * beams, max(lengths)
    blocks = -(-longest // PAGE_SIZE)

    def prepare(stage: Stage) -> Prepared:
        device, tables = stage.device, batch.size * beams if own else batch.size
        block_tables = torch.randperm(tables * blocks, device=device, dtype=torch.int32).view(tables, blocks)
        shape = (tables * blocks, PAGE_SIZE, model.heads, model.head_dim)
        keys, values = stage.random(*shape), stage.random(*shape)
        query = stage.random(rows, model.heads, model.head_dim)
        counts = torch.tensor(lengths, device=device, dtype=torch.int32)
        cu_rows = cumulative([beams] * batch.size, device)
        origin = stage.integers(beams, rows, longest, dtype=torch.int32) if own else None
        scale = model.head_dim**-0.5
        first = (batch.size - 1) * beams  # of the last request
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
        places = torch.arange(longest, device=device)
        if origin is None:
            pages = block_tables[:, places // PAGE_SIZE]
        else:
            first_slots = torch.arange(rows, device=device)[:, None] // beams * beams
            pages = block_tables[first_slots + origin.long(), places // PAGE_SIZE]
        slots = pages.long() * PAGE_SIZE + places % PAGE_SIZE
        seen = (places[None] < counts.repeat_interleave(beams)[:, None])[:, None, None]
        dense = [[peers.gather_pages(pool, slots).contiguous() for pool in pools] for pools in (keys, values)]

        def ours(i: int) -> Tensor:
            return paged_attention(
                query[i], keys[i], values[i], block_tables, counts, cu_rows, scale=scale, origin=origin
            )

        def attend(i: int, key: Tensor, value: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(query[i][:, :, None], key, value, attn_mask=seen)[:, :, 0]

        return Prepared(
            Contestant(ours, lambda out: out[first:]),
            {
                "SDPA, dense cache": Contestant(
                    lambda i: attend(i, dense[0][i], dense[1][i]), lambda out: out[first:]
                ),
                "SDPA, gathered": Contestant(
                    lambda i: attend(
                        i, peers.gather_pages(keys[i], slots), peers.gather_pages(values[i], slots)
                    ),
                    lambda out: out[first:],
                ),
            },
            wanted,
            stage.error,
        )

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

    def prepare(stage: Stage) -> Prepared:
        pages = -(-rows // PAGE_SIZE) + 7
        shape = (pages, PAGE_SIZE, model.heads, model.head_dim)
        slots = torch.randperm(pages * PAGE_SIZE, device=stage.device)[:rows]
        new_keys, new_values = (stage.random(rows, model.heads, model.head_dim) for _ in range(2))

        def pools() -> list[list[Tensor]]:
            empty = [
                torch.full(shape, float("nan"), device=stage.device, dtype=stage.dtype)
                for _ in range(2 * stage.copies)
            ]
            return [empty[: stage.copies], empty[stage.copies :]]

        mine, torchs = pools(), pools()

        def indexed(i: int) -> list[Tensor]:
            torchs[0][i].flatten(0, 1)[slots] = new_keys[i]
            torchs[1][i].flatten(0, 1)[slots] = new_values[i]
            return [torchs[0][i], torchs[1][i]]

        def ours(i: int) -> list[Tensor]:
            store(mine[0][i], mine[1][i], new_keys[i], new_values[i], slots)
            return [mine[0][i], mine[1][i]]

        def part(pair: list[Tensor]) -> Tensor:
            return torch.cat([pool.flatten(0, 1)[slots] for pool in pair])

        wanted = torch.cat([new_keys[0], new_values[0]]).float()
        return Prepared(Contestant(ours, part), {"torch, indexed": Contestant(indexed, part)}, wanted, 0.0)

    work = Work(0, HALF * 4 * rows * model.width + 8 * rows)
    return Case("kv_cache", model.name, batch.size, f"{name}, {rows:,} rows", work, prepare, graph=True)


def choices(model: Model, requests: int) -> Iterator[Case]:
    """What follows the logits of a step, in float32: greedy search, sampling, a beam search of five."""
    vocabulary, beams = model.vocabulary, 5
    few = slice(-16, None)

    def case(shape: str, rows: int, written: int, prepare: Callable[[Stage], Prepared]) -> Case:
        # Each number is read, compared, and its exponential added up; where rows are written, once more.
        size = rows * vocabulary
        work = Work(4 * size, 4 * size * (1 + written))
        return Case("sampling", model.name, requests, shape, work, prepare, graph=True)

    def scores_of(stage: Stage, rows: int) -> list[Tensor]:
        return stage.random(rows, vocabulary, dtype=torch.float32, scale=3.0)

    def keys_of(stage: Stage) -> tuple[Tensor, Tensor, Tensor]:
        streams = torch.zeros(requests, dtype=torch.int64, device=stage.device)
        return stage.integers(1 << 40, requests), streams, stage.integers(100, requests)

    def best_token(stage: Stage) -> Prepared:
        scores = scores_of(stage, requests)
        tokens, wanted = greedy_reference(scores[0][few].double())

        def part(out: tuple[Tensor, Tensor]) -> Tensor:
            return torch.where(out[0][few] == tokens, out[1][few], float("nan"))

        def peer(i: int) -> tuple[Tensor, Tensor]:
            best = scores[i].log_softmax(-1).max(-1)
            return best.indices, best.values

        ours = Contestant(lambda i: greedy(scores[i]), part)
        return Prepared(ours, {"log_softmax + max": Contestant(peer, part)}, wanted, 1e-5)

    def one_draw(stage: Stage) -> Prepared:
        scores, keys = scores_of(stage, requests), keys_of(stage)
        wanted = categorical_reference(scores[0][few].double(), *(key[few] for key in keys)).double()
        # Its draws are others: all that can be said is that they are tokens.
        peer = Contestant(
            lambda i: torch.multinomial(scores[i].softmax(-1), 1),
            lambda out: ((out >= 0) & (out < vocabulary)).sum(0, keepdim=True),
            torch.tensor([[requests]], device=stage.device),
            graph=False,
        )
        ours = Contestant(lambda i: categorical(scores[i], *keys), lambda out: out[few])
        return Prepared(ours, {"softmax + multinomial": peer}, wanted, 0.0)

    def warped(stage: Stage) -> Prepared:
        scores = scores_of(stage, requests)
        options = {"temperature": 0.7, "top_k": 50, "top_p": 0.9}
        wanted = warp_reference(scores[0][few].double(), **options).exp()  # what is removed is -inf
        ours = Contestant(lambda i: warp(scores[i], **options), lambda out: out[few].exp())
        peer = Contestant(lambda i: warp_reference(scores[i], **options), lambda out: out[few].exp())
        return Prepared(ours, {"torch, sorted": peer}, wanted, 1e-4)

    def log_probabilities(stage: Stage) -> Prepared:
        scores = scores_of(stage, requests)
        ours = Contestant(lambda i: log_softmax(scores[i]), lambda out: out[few])
        peer = Contestant(lambda i: scores[i].log_softmax(-1), lambda out: out[few])
        return Prepared(ours, {"log_softmax": peer}, scores[0][few].double().log_softmax(-1), 1e-5)

    def beam_step(stage: Stage, drawn: bool) -> Prepared:
        scores, keys = scores_of(stage, requests * beams), keys_of(stage)
        running = stage.random(requests * beams, dtype=torch.float32)[0]
        last = slice(-3 * beams, None)  # three requests
        options = {"running": running[last].double(), "beams": beams}
        if drawn:
            wanted, _ = draw_candidates_reference(
                scores[0][last].double(), 2 * beams, *(key[-3:] for key in keys), **options
            )
        else:
            wanted, _ = top_candidates_reference(
                scores[0][last].double(), 2 * beams, normalize=True, **options
            )

        def ours(i: int) -> Tensor:
            if drawn:
                return draw_candidates(scores[i], 2 * beams, *keys, running=running, beams=beams)[0]
            return top_candidates(scores[i], 2 * beams, running=running, beams=beams, normalize=True)[0]

        def peer(i: int) -> Tensor:
            if drawn:
                return draw_candidates_reference(scores[i], 2 * beams, *keys, running=running, beams=beams)[0]
            total = scores[i].log_softmax(-1) + running[:, None]
            return total.view(requests, beams * vocabulary).topk(2 * beams).values

        name = "torch, Gumbel + topk" if drawn else "log_softmax + topk"
        return Prepared(
            Contestant(ours, lambda out: out[-3:]),
            {name: Contestant(peer, lambda out: out[-3:], graph=not drawn)},
            wanted,
            1e-5,
        )

    yield case(f"greedy, of {vocabulary:,}", requests, 0, best_token)
    yield case(f"a draw of {vocabulary:,}", requests, 0, one_draw)
    yield case(f"top-k and top-p of {vocabulary:,}", requests, 1, warped)
    yield case(f"log-softmax of {vocabulary:,}", requests, 1, log_probabilities)
    of = f"of {beams} x {vocabulary:,}"
    yield case(f"best {2 * beams} {of}", requests * beams, 0, partial(beam_step, drawn=False))
    yield case(f"{2 * beams} drawn {of}", requests * beams, 0, partial(beam_step, drawn=True))
