"""Suites of cases: all, quick, and tiny for the interpreter."""

from collections.abc import Iterable, Iterator

from ..common.shapes import LARGE, SMALL, TINY, TINY_WAV2VEC2, WAV2VEC2, Batch, equal, real, tiny
from . import decoder_cases as decoder
from . import encoder_cases as encoder
from . import layer_cases as layer
from . import step_cases as step
from . import whisper_cases as whisper
from .cases import Case


def all_cases() -> list[Case]:
    """All cases for a GPU, the goals' first."""
    return list(_goals()) + list(_others())


def quick_cases() -> list[Case]:
    """One case of each kernel, for a first look."""
    return list(each_once(real(SMALL, 32), real(WAV2VEC2, 32)))


def tiny_cases() -> list[Case]:
    """One case of each kernel, for the interpreter."""
    return list(each_once(tiny(TINY), tiny(TINY_WAV2VEC2)))


def matching(cases: Iterable[Case], kernel: str | None, words: str) -> list[Case]:
    """The cases of a kernel, or of all, that have these words in their label."""
    return [
        case
        for case in cases
        if kernel in (None, case.kernel) and set(words.split()) <= set(case.label.replace(",", "").split())
    ]


def each_once(batch: Batch, wav2vec2: Batch) -> Iterator[Case]:
    model = batch.model
    yield decoder.paged_cross(batch)
    yield decoder.paged_self(batch, 1)
    yield decoder.paged_self(batch, 3)
    yield encoder.flash(batch, "real lengths")
    yield encoder.flash(batch, "real lengths", causal=True)
    yield encoder.flash(Batch(model, batch.seconds[:1] * batch.size), "equal lengths")
    yield encoder.filter_bank(batch)
    yield whisper.log_mel_features(batch)
    yield whisper.alignment_weights(batch)
    yield encoder.cmvn(batch)
    yield from (encoder.conv(batch, number) for number in (1, 2))
    yield from (encoder.padded_layer(batch, stride) for stride in (1, 2))
    yield from layer.linears(model, batch.size, sum(batch.tokens), "encode")
    yield from layer.linears(model, batch.size, batch.size, "decode")
    yield from decoder.store_rows(batch)
    yield from layer.norms(model, batch.size, batch.size)
    yield encoder.groups(wav2vec2)
    yield encoder.first_layer(wav2vec2)
    yield encoder.waveform_layer(wav2vec2)
    yield encoder.positional(wav2vec2)
    yield encoder.pool(wav2vec2)
    yield decoder.embed(model, batch.size)
    yield encoder.positions(batch)
    yield from decoder.choices(model, batch.size)
    yield from layer.fused(model, batch.size, batch.size)
    yield from step.steps(model, batch.size)


def _goals() -> Iterator[Case]:
    for count in (512, 32, 128, 1024):
        for model in (SMALL, LARGE):
            yield decoder.paged_cross(real(model, count))
    for count in (32, 256):
        for model in (SMALL, LARGE, WAV2VEC2):
            yield encoder.flash(equal(model, count), "equal lengths")
            yield encoder.flash(real(model, count), "real lengths")
    yield encoder.flash(real(SMALL, 1024), "real lengths")
    for count in (32, 256, 1024):
        yield encoder.filter_bank(real(SMALL, count))
    for model, count in ((SMALL, 32), (SMALL, 256), (SMALL, 1024), (LARGE, 32), (LARGE, 256)):
        yield encoder.conv(real(model, count), 1)
        yield encoder.conv(real(model, count), 2)
    for count in (32, 256):
        for model in (SMALL, LARGE, WAV2VEC2):
            yield from layer.linears(model, count, sum(real(model, count).tokens), "encode")
    for count in (32, 128, 512, 1024):
        for model in (SMALL, LARGE):
            yield from layer.linears(model, count, count, "decode")


def _others() -> Iterator[Case]:
    for model in (SMALL, LARGE):
        yield decoder.paged_self(real(model, 512), 1)
        yield decoder.paged_self(real(model, 128), 5)
        yield encoder.flash(real(model, 256), "real lengths", causal=True)
        yield from decoder.store_rows(real(model, 256))
        yield from layer.norms(model, 512, 512)
        yield from layer.norms(model, 256, sum(real(model, 256).tokens))
        yield decoder.embed(model, 512)
        yield encoder.positions(real(model, 256))
    for count in (32, 256):
        yield whisper.log_mel_features(real(SMALL, count))
    for model in (SMALL, LARGE):
        yield whisper.alignment_weights(real(model, 16))
    for count in (32, 1024):
        yield encoder.cmvn(real(SMALL, count))
        yield from (encoder.padded_layer(equal(SMALL, count), stride) for stride in (1, 2))
    for count in (32, 256):
        yield encoder.groups(real(WAV2VEC2, count))
        yield encoder.first_layer(real(WAV2VEC2, count))
        yield encoder.waveform_layer(real(WAV2VEC2, count))
        yield encoder.positional(real(WAV2VEC2, count))
    for count in (1, 32, 1024):  # few programs, and many
        yield encoder.pool(real(WAV2VEC2, count))
    for count in (32, 512, 1024):
        yield from decoder.choices(SMALL, count)
        yield from layer.fused(SMALL, count, count)
        yield from step.steps(SMALL, count)
