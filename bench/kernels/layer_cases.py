"""Cases of the layers that encoder and decoder share: products and normalization."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from tritone.kernels.attention.kv_cache import PAGE_SIZE
from tritone.kernels.attention.projection import NewRows, project_into_pages
from tritone.kernels.linear.gemm import linear, linear_reference
from tritone.kernels.linear.joined import joined_linear
from tritone.kernels.norm.layer_norm import layer_norm, layer_norm_reference, rms_norm, rms_norm_reference
from tritone.kernels.norm.normalized_linear import normalized_linear, normalized_linear_reference

from ..common.roofline import Work
from ..common.shapes import Model
from .cases import HALF, Case, Prepared, Setup


def linears(model: Model, sequences: int, rows: int, phase: str) -> Iterator[Case]:
    """The products of a layer, and of the vocabulary in a decode step."""
    width, ffn = model.width, model.ffn
    yield _linear(model, sequences, rows, width, width, phase, "projection")
    yield _linear(model, sequences, rows, width, ffn, phase, "fc1, ReLU", activation="relu")
    yield _linear(model, sequences, rows, ffn, width, phase, "fc2")
    yield _linear(model, sequences, rows, ffn, width, phase, "fc2 + residual", residual=True)
    if phase == "decode":
        yield _linear(model, sequences, rows, width, model.vocabulary, phase, "vocabulary")


def _linear(
    model: Model,
    sequences: int,
    rows: int,
    inner: int,
    outputs: int,
    phase: str,
    name: str,
    *,
    activation: str | None = None,
    residual: bool = False,
) -> Case:
    def prepare(setup: Setup) -> Prepared:
        hidden = setup.random(rows, inner)
        weight = setup.random(outputs, inner, scale=inner**-0.5)
        bias = setup.random(outputs)[0]
        added = setup.random(rows, outputs) if residual else [None] * setup.copies
        few = 48
        wide = [tensor.double() for tensor in (hidden[0][-few:], weight[0], bias)]
        end = added[0][-few:].double() if added[0] is not None else None
        wanted = linear_reference(*wide, activation=activation, residual=end)
        plain = linear_reference(*wide)

        def ours(i: int) -> Tensor:
            return linear(hidden[i], weight[i], bias, activation=activation, residual=added[i], phase=phase)

        prepared = Prepared.of(ours, wanted, setup.error)
        if not residual:  # one more tensor to read, which cuBLAS alone would not have to
            prepared.beside("cuBLAS", lambda i: F.linear(hidden[i], weight[i], bias), wanted=plain)
        if residual or activation:
            prepared.beside(
                "cuBLAS + torch",
                lambda i: linear_reference(
                    hidden[i], weight[i], bias, activation=activation, residual=added[i]
                ),
            )
        return prepared

    moved = rows * inner + inner * outputs + outputs + rows * outputs * (2 if residual else 1)
    shape = f"{phase} {name}, {rows:,} x {inner:,} to {outputs:,}"
    work = Work(2 * rows * inner * outputs, HALF * moved)
    tags = frozenset() if residual else frozenset({"linear"})
    return Case("linear", model.name, sequences, shape, work, prepare, tags, graph=True, tiles=not residual)


def norms(model: Model, sequences: int, rows: int) -> Iterator[Case]:
    for name in ("layer_norm", "layer_norm + residual", "rms_norm"):
        yield _norm(model, sequences, rows, name)


def _norm(model: Model, sequences: int, rows: int, name: str) -> Case:
    width, fused = model.width, name.endswith("residual")

    def prepare(setup: Setup) -> Prepared:
        hidden, residual = setup.random(rows, width), setup.random(rows, width)
        weight, bias = (setup.random(width)[0] for _ in range(2))
        few = 16
        end = hidden[0][-few:].double()
        total = (hidden[0] + residual[0])[-few:].double()

        def apart(i: int) -> tuple[Tensor, Tensor]:
            total = hidden[i] + residual[i]
            return F.layer_norm(total, (width,), weight, bias), total

        if name == "rms_norm":
            wanted = rms_norm_reference(end, weight.double())
            runs = (
                lambda i: rms_norm(hidden[i], weight),
                lambda i: F.rms_norm(hidden[i], (width,), weight, 1e-6),
            )
        elif fused:
            wanted = torch.cat([layer_norm_reference(total, weight.double(), bias.double()), total])
            runs = (lambda i: layer_norm(hidden[i], weight, bias, residual=residual[i]), apart)
        else:
            wanted = layer_norm_reference(end, weight.double(), bias.double())
            runs = (
                lambda i: layer_norm(hidden[i], weight, bias),
                lambda i: F.layer_norm(hidden[i], (width,), weight, bias),
            )

        def part(out: Tensor | tuple[Tensor, Tensor]) -> Tensor:
            return torch.cat([one[-few:] for one in out]) if fused else out[-few:]

        return Prepared.of(runs[0], wanted, setup.error, part).beside("torch", runs[1])

    work = Work((9 if fused else 8) * rows * width, HALF * (4 if fused else 2) * rows * width)
    shape = f"{rows:,} x {width:,}" + (", with residual" if fused else "")
    kernel = name.removesuffix(" + residual")
    return Case(kernel, model.name, sequences, shape, work, prepare, graph=True)


def fused(model: Model, sequences: int, rows: int) -> Iterator[Case]:
    """The products of a decode step that take a norm, page writes, or other products with them."""
    yield _normalized(model, sequences, rows)
    yield _joined(model, sequences, rows)
    yield _into_pages(model, sequences, rows)


def _normalized(model: Model, sequences: int, rows: int) -> Case:
    width, outputs = model.width, model.ffn

    def prepare(setup: Setup) -> Prepared:
        hidden, weight = setup.random(rows, width), setup.random(outputs, width, scale=width**-0.5)
        norm = setup.random(width)[0], setup.random(width)[0], 1e-5
        bias = setup.random(outputs)[0]
        few = hidden[0][-16:].double()
        wanted = normalized_linear_reference(
            few, norm[0].double(), norm[1].double(), norm[2], weight[0].double(), bias.double()
        )

        def apart(i: int) -> Tensor:
            return F.linear(F.layer_norm(hidden[i], (width,), *norm), weight[i], bias)

        def ours(i: int) -> Tensor:
            return normalized_linear(hidden[i], *norm, weight[i], bias, phase="decode")

        return Prepared.of(ours, wanted, setup.error).beside("layer_norm + cuBLAS", apart)

    moved = rows * width + width * outputs + rows * outputs
    work = Work(2 * rows * width * outputs, HALF * moved)
    shape = f"{rows:,} x {width:,} to {outputs:,}"
    return Case("normalized_linear", model.name, sequences, shape, work, prepare, graph=True)


def _joined(model: Model, sequences: int, rows: int) -> Case:
    width = model.width

    def prepare(setup: Setup) -> Prepared:
        hidden = setup.random(rows, width)
        layers = [setup.random(width, width, scale=width**-0.5) for _ in range(3)]
        biases = [setup.random(width)[0] for _ in layers]
        few = hidden[0][-16:].double()
        pairs = list(zip(layers, biases, strict=True))
        wanted = torch.cat([F.linear(few, weight[0].double(), bias.double()) for weight, bias in pairs], 1)

        def ours(i: int) -> list[Tensor]:
            return joined_linear(hidden[i], [weight[i] for weight in layers], biases, parts=3)

        def three(i: int) -> list[Tensor]:
            return [F.linear(hidden[i], weight[i], bias) for weight, bias in pairs]

        def part(out: list[Tensor]) -> Tensor:
            return torch.cat([one[-len(few) :] for one in out], 1)

        return Prepared.of(ours, wanted, setup.error, part).beside("three of cuBLAS", three)

    work = Work(6 * rows * width * width, HALF * (rows * width + 3 * width * width + 3 * rows * width))
    shape = f"query, key and value, {rows:,} x {width:,}"
    return Case("joined_linear", model.name, sequences, shape, work, prepare, graph=True)


def _into_pages(model: Model, sequences: int, rows: int) -> Case:
    width = model.width

    def prepare(setup: Setup) -> Prepared:
        hidden, weight = setup.random(rows, width), setup.random(3 * width, width, scale=width**-0.5)
        norm_weight, norm_bias = setup.random(width)[0], setup.random(width)[0]
        pages = -(-rows // PAGE_SIZE) + 7
        slots = torch.randperm(pages * PAGE_SIZE, device=setup.device)[:rows]
        pools = [setup.random(pages, PAGE_SIZE, model.heads, model.head_dim) for _ in range(4)]
        norm = norm_weight.double(), norm_bias.double(), 1e-5
        wanted = normalized_linear_reference(hidden[0][-16:].double(), *norm, weight[0].double())

        def ours(i: int) -> list[Tensor]:
            places = NewRows(pools[0][i], pools[1][i], slots)
            query = project_into_pages(
                hidden[i], [weight[i]], [None], places, norm_weight=norm_weight, norm_bias=norm_bias
            )
            return [query, *places[:2]]

        def apart(i: int) -> list[Tensor]:
            normed = F.layer_norm(hidden[i], (width,), norm_weight, norm_bias)
            query, key, value = F.linear(normed, weight[i]).view(rows, 3, model.heads, -1).unbind(1)
            for pool, new in ((pools[2][i], key), (pools[3][i], value)):
                pool.flatten(0, 1)[slots] = new
            return [query, pools[2][i], pools[3][i]]

        def part(out: list[Tensor]) -> Tensor:
            last = [out[0][-16:], *(pool.flatten(0, 1)[slots[-16:]] for pool in out[1:])]
            return torch.cat([one.flatten(1) for one in last], 1)

        return Prepared.of(ours, wanted, setup.error, part).beside("layer_norm + cuBLAS, indexed", apart)

    work = Work(6 * rows * width * width, HALF * (rows * width + 3 * width * width + 3 * rows * width))
    shape = f"query, key and value of {rows:,} x {width:,}"
    return Case("project_into_pages", model.name, sequences, shape, work, prepare, graph=True)
