"""Windows of long recordings have the bits of features computed at once, in flat memory."""

import factories
import numpy as np
import pytest
import torch

from tritone import WhisperForConditionalGeneration
from tritone.kernels.features.log_mel import Excerpt, log_mel, log_mel_maxima
from tritone.kernels.runtime.packing import cumulative
from tritone.models.whisper.feature_extractor import WhisperFeatureExtractor
from tritone.models.whisper.window_reader import Level, WindowReader, measure
from tritone.scheduler.request import GenerationOptions, Request, RequestOutput

HOP = 160


@pytest.fixture
def extractor() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(chunk_length=1, feature_size=20)  # windows of 100 frames


def recording(samples: int) -> np.ndarray:
    """Noise that gets louder towards the end."""
    noise = np.random.default_rng(samples).standard_normal(samples)
    return (noise * np.linspace(0.001, 0.3, samples)).astype(np.float32)


def blocks_of(audio: np.ndarray, size: int) -> list[np.ndarray]:
    return [audio[start : start + size] for start in range(0, len(audio), size)]


def whole(audio: np.ndarray, extractor: WhisperFeatureExtractor) -> tuple[torch.Tensor, float]:
    """Features of the whole recording and the maximum of their logarithms."""
    frames, cu_samples = len(audio) // HOP, cumulative([len(audio)])
    given = torch.from_numpy(audio), cu_samples, [Excerpt(frames, frames)], extractor.options
    return log_mel(*given)[0], float(log_mel_maxima(*given))


def features(part, extractor: WhisperFeatureExtractor) -> torch.Tensor:
    return extractor.extract_excerpts(part.samples, cumulative([len(part.samples)]), [part.excerpt])[0]


@pytest.mark.parametrize("samples", [201, 16_000, 16_199, 16_200, 48_000, 71_234])
@pytest.mark.parametrize("size", [1_000, 4_801, 100_000])
def test_the_maximum_of_blocks_has_the_bits_of_the_whole(samples, size, extractor):
    audio = recording(samples)
    assert measure(blocks_of(audio, size), extractor) == Level(whole(audio, extractor)[1], samples)


@pytest.mark.parametrize("size", [700, 100_000])
def test_windows_have_the_bits_of_slices_and_zeros_behind(size, extractor):
    audio = recording(71_234)
    wanted, maximum = whole(audio, extractor)
    wanted = torch.cat([wanted, torch.zeros(100, 20)])
    reader = WindowReader(blocks_of(audio, size), extractor, maximum)
    for first in (0, 1, 2, 88, 88, 170, 270, 344, 345, 444):
        assert torch.equal(features(reader.window(first), extractor), wanted[first : first + 100])
    assert reader.window(445) is None
    assert reader.end == len(audio)


def test_a_range_of_frames_may_have_any_length(extractor):
    audio = recording(20_000)
    wanted, maximum = whole(audio, extractor)
    reader = WindowReader([torch.from_numpy(audio)], extractor, maximum)
    for first, frames in ((0, 1), (3, 7), (110, 15)):
        part = reader.window(first, frames)
        assert torch.equal(features(part, extractor), wanted[first : first + frames])


def test_a_stream_that_cannot_seek_has_the_maximum_of_the_part_that_was_read(extractor):
    audio = recording(64_000)
    reader = WindowReader(iter(blocks_of(audio, 900)), extractor)
    for first in (0, 150, 300):
        part = reader.window(first)
        frames = min(first + 100, 400)
        given = torch.from_numpy(audio), cumulative([len(audio)]), [Excerpt(frames, frames)]
        assert part.excerpt.maximum == reader.maximum == float(log_mel_maxima(*given, extractor.options))
    assert part.excerpt.maximum > -10


def test_blocks_that_lie_behind_are_released(extractor):
    audio = recording(1_000_000)
    reader = WindowReader(blocks_of(audio, 1_000), extractor)
    for first in range(0, 6_000, 100):
        part = reader.window(first)
        assert sum(map(len, reader._kept)) <= 100 * HOP + 2 * 400 + 2 * 1_000
        assert len(part.samples) <= 101 * HOP + 400


def test_windows_that_fall_are_refused(extractor):
    reader = WindowReader([recording(40_000)], extractor)
    reader.window(50)
    with pytest.raises(ValueError, match="frame 49 lies before the last window's 50; windows must rise"):
        reader.window(49)


def test_nothing_has_no_window(extractor):
    assert WindowReader([], extractor).window(0) is None
    assert measure([], extractor) == Level(-10.0, 0)


def test_windows_and_whole_recordings_in_one_loop_have_the_scores_that_they_have_alone(extractor):
    config = factories.tiny_whisper_config(max_source_positions=50, num_mel_bins=20)
    model = factories.seeded(WhisperForConditionalGeneration, config)
    audio = recording(50_000)
    reader = WindowReader([audio], extractor, measure([audio], extractor).maximum)
    inputs = [*(reader.window(first) for first in (0, 100, 250)), torch.from_numpy(audio[:9_000])]

    def run(chosen: list) -> list[RequestOutput]:
        loop, found = model.generation_loop(extractor, num_pages=64, num_rows=8), {}
        for number, one in enumerate(chosen):
            loop.submit(Request(number, one, GenerationOptions(max_length=6), keep_scores=True))
        while loop.has_work:
            found |= {event.request_id: event for event in loop.step()}
        return [found[number] for number in range(len(chosen))]

    for one, together in zip(inputs, run(inputs), strict=True):
        (alone,) = run([one])
        assert alone.error is None
        assert alone.hypotheses[0].token_ids == together.hypotheses[0].token_ids
        assert torch.equal(torch.stack(alone.scores), torch.stack(together.scores))
