"""Suites of cases: all, quick, and tiny for the interpreter."""

from collections.abc import Iterator

from ..common.shapes import LARGE, SMALL, TINY, TINY_WAV2VEC2, WAV2VEC2, Batch, equal, real, tiny
from .cases import Case
from .decoder_cases import choices, embed, paged_cross, paged_self, store_rows
from .encoder_cases import (
    cmvn,
    conv,
    filter_bank,
    first_layer,
    flash,
    groups,
    pool,
    positional,
    positions,
    waveform_layer,
)
from .layer_cases import linears, norms


def all_cases() -> list[Case]:
    """All cases for a GPU, the goals' first."""
    return list(_goals()) + list(_others())


def quick_cases() -> list[Case]:
    """One case of each kernel, for a first look."""
    return list(each_once(real(SMALL, 32), real(WAV2VEC2, 32)))


def tiny_cases() -> list[Case]:
    """One case of each kernel, for the interpreter."""
    return list(each_once(tiny(TINY), tiny(TINY_WAV2VEC2)))


def each_once(batch: Batch, wav2vec2: Batch) -> Iterator[Case]:
    model = batch.model
    yield paged_cross(batch)
    yield paged_self(batch, 1)
    yield paged_self(batch, 3)
    yield flash(batch, "real lengths")
    yield flash(batch, "real lengths", causal=True)
    yield flash(Batch(model, batch.seconds[:1] * batch.size), "equal lengths")
    yield filter_bank(batch)
    yield cmvn(batch)
    yield from (conv(batch, layer) for layer in (1, 2))
    yield from linears(model, batch.size, sum(batch.tokens), "encode")
    yield from linears(model, batch.size, batch.size, "decode")
    yield from store_rows(batch)
    yield from norms(model, batch.size, batch.size)
    yield groups(wav2vec2)
    yield first_layer(wav2vec2)
    yield waveform_layer(wav2vec2)
    yield positional(wav2vec2)
    yield pool(wav2vec2)
    yield embed(model, batch.size)
    yield positions(batch)
    yield from choices(model, batch.size)


def _goals() -> Iterator[Case]:
    for count in (512, 32, 128, 1024):
        for model in (SMALL, LARGE):
            yield paged_cross(real(model, count))
    for count in (32, 256):
        for model in (SMALL, LARGE, WAV2VEC2):
            yield flash(equal(model, count), "equal lengths")
            yield flash(real(model, count), "real lengths")
    yield flash(real(SMALL, 1024), "real lengths")
    for count in (32, 256, 1024):
        yield filter_bank(real(SMALL, count))
    for model, count in ((SMALL, 32), (SMALL, 256), (SMALL, 1024), (LARGE, 32), (LARGE, 256)):
        yield conv(real(model, count), 1)
        yield conv(real(model, count), 2)
    for count in (32, 256):
        for model in (SMALL, LARGE, WAV2VEC2):
            yield from linears(model, count, sum(real(model, count).tokens), "encode")
    for count in (32, 128, 512, 1024):
        for model in (SMALL, LARGE):
            yield from linears(model, count, count, "decode")


def _others() -> Iterator[Case]:
    for model in (SMALL, LARGE):
        yield paged_self(real(model, 512), 1)
        yield paged_self(real(model, 128), 5)
        yield flash(real(model, 256), "real lengths", causal=True)
        yield from store_rows(real(model, 256))
        yield from norms(model, 512, 512)
        yield from norms(model, 256, sum(real(model, 256).tokens))
        yield embed(model, 512)
        yield positions(real(model, 256))
    for count in (32, 1024):
        yield cmvn(real(SMALL, count))
    for count in (32, 256):
        yield groups(real(WAV2VEC2, count))
        yield first_layer(real(WAV2VEC2, count))
        yield waveform_layer(real(WAV2VEC2, count))
        yield positional(real(WAV2VEC2, count))
    for count in (1, 32, 1024):  # few programs, and many
        yield pool(real(WAV2VEC2, count))
    for count in (32, 512, 1024):
        yield from choices(SMALL, count)
