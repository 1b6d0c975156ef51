"""CTC models on recordings of any length: overlapping windows, each frame from the middle of one."""

import numpy as np
import pytest
import torch
from factories import edit_json, write_ctc_checkpoint
from waveform_encoders import tiny_encoder

import tritone
from tritone.engine.audio.segments import overlapping
from tritone.engine.config import EngineConfig
from tritone.engine.tasks.ctc_windows import WindowGrid

SOON = 60  # seconds
RATE, HOP, WINDOW = 16_000, 320, 1.2
FAMILIES = {
    "Wav2Vec2": {},
    "Hubert": {"feat_extract_norm": "layer"},
    "UniSpeech": {},
    "UniSpeechSat": {},
    "SEW": {"squeeze_factor": 3},
    "SEWD": {"squeeze_factor": 2},
    "Wav2Vec2 with adapters": {"add_adapter": True, "num_adapter_layers": 2, "adapter_stride": 2},
}


@pytest.fixture(scope="module")
def engine(ctc_checkpoint):
    with tritone.Engine(ctc_checkpoint, device="cpu") as engine:
        yield engine


@pytest.fixture(scope="module")
def long(waveforms) -> np.ndarray:
    """A recording of 17 windows."""
    return np.concatenate([*waveforms, waveforms[3][:777]])[: int(14.3 * RATE)]


@pytest.fixture(scope="module")
def transcription(engine, long):
    return engine.submit(long, max_window=WINDOW).result(SOON)


def ctc_model(name: str) -> tritone.Wav2Vec2ForCTC:
    family = name.split()[0]
    encoder = tiny_encoder(family, **FAMILIES[name])
    encoder.config.vocab_size = 9
    return getattr(tritone, f"{family}ForCTC")(encoder.config)


def grid_of(model, size: int, context: float = 1 / 6) -> WindowGrid:
    return WindowGrid.of(size, context, model.window_step, model.samples_per_token, model.receptive_field)


def windows_of(samples: int, grid: WindowGrid) -> list[tuple[int, int, bool]]:
    """Start and number of samples of each window, and True with the last."""
    found = overlapping([np.zeros(samples, np.float32)], grid.size, grid.step)
    return [(piece.start, len(piece.samples), is_last) for piece, is_last in found]


@pytest.mark.parametrize("name", FAMILIES)
def test_windows_give_each_frame_of_the_recording_once(name):
    model = ctc_model(name)
    length = model.base.length
    draw = np.random.default_rng(0)
    for samples in draw.integers(2_000, 20_000, 40).tolist():
        grid = grid_of(model, int(draw.integers(700, 2_000)), draw.uniform(0.05, 0.25))
        behind = 0
        for number, (start, count, is_last) in enumerate(windows_of(samples, grid)):
            taken = range(length(count))[grid.taken(number, is_last)]
            assert start % model.window_step == 0
            assert start // model.samples_per_token + taken[0] == behind
            behind += len(taken)
        assert behind == length(samples)


@pytest.mark.parametrize("name", ["Wav2Vec2", "Hubert", "SEW"])
def test_a_frame_reads_its_receptive_field_in_the_middle_of_its_window(name):
    model = ctc_model(name)
    frames = model.base.feature_extractor.length
    assert [frames(model.receptive_field + one) for one in (-1, 0)] == [0, 1]
    grid = grid_of(model, 1_500)
    windows = windows_of(9_000, grid)
    for number, (start, count, is_last) in enumerate(windows[1:-1], 1):
        taken = range(frames(count))[grid.taken(number, is_last)]
        centers = [start + frame * grid.hop + grid.receptive_field / 2 for frame in taken]
        lower, upper = start + (grid.size - grid.step) / 2, start + (grid.size + grid.step) / 2
        assert lower <= centers[0] < lower + grid.hop
        assert upper - grid.hop <= centers[-1] < upper


def test_windows_do_not_depend_on_the_sizes_of_blocks(long):
    whole = list(overlapping([long], 5_000, 3_200))
    parts = list(overlapping(np.array_split(long, 997), 5_000, 3_200))
    assert [(one.start, is_last) for one, is_last in parts] == [
        (one.start, is_last) for one, is_last in whole
    ]
    assert all((a.samples == b.samples).all() for (a, _), (b, _) in zip(parts, whole, strict=True))
    assert [is_last for _, is_last in whole[-2:]] == [False, True]
    assert whole[-1][0].end == len(long)


def test_the_path_is_that_of_the_windows_frames(engine, long, transcription):
    model, extractor, tokenizer = engine.model, engine.processor.feature_extractor, engine.processor.tokenizer
    grid = grid_of(model, round(WINDOW * RATE))
    path, scores = [], []
    for number, (piece, is_last) in enumerate(overlapping([long], grid.size, grid.step)):
        inputs = extractor(piece.samples, sampling_rate=RATE, return_tensors="pt")
        with torch.inference_mode():
            best = model(inputs.input_values).logits[0].log_softmax(-1).max(-1)
        taken = grid.taken(number, is_last)
        path += best.indices[taken].tolist()
        scores += best.values[taken].tolist()
    assert len(path) == model.base.length(len(long))
    whole = tokenizer.decode(path, output_word_offsets=True)
    assert transcription.text.split() == whole.text.split()
    merged = torch.unique_consecutive(torch.tensor(path))
    assert transcription.token_ids == tuple(merged[merged != tokenizer.pad_token_id].tolist())
    assert transcription.score == pytest.approx(np.mean(scores), abs=1e-5)
    assert [(word.start, word.end) for word in transcription.words] == [
        (word["start_offset"] * HOP / RATE, word["end_offset"] * HOP / RATE) for word in whole.word_offsets
    ]
    assert transcription.duration == len(long) / RATE
    assert len(transcription.words) > 5


def test_a_recording_of_one_window_is_as_without_windows_to_the_bit(engine, waveforms):
    for source in waveforms[:5]:
        whole = engine.submit(source).result(SOON)
        assert engine.submit(source, max_window=len(source) / RATE).result(SOON) == whole
        assert whole.words
        assert whole.segments


def test_a_long_recording_beside_others_is_as_alone(engine, long, waveforms, transcription):
    alone = [engine.submit(source).result(SOON) for source in waveforms]
    handles = [engine.submit(source, max_window=WINDOW) for source in (long, long[::-1].copy())]
    short = [engine.submit(source) for source in waveforms]
    assert handles[0].result(SOON) == transcription
    assert [handle.result(SOON) for handle in short] == alone
    assert handles[1].result(SOON).text != transcription.text


def test_words_have_rising_times_and_confidence_and_segments_are_of_words(transcription):
    end = 0.0
    for word in transcription.words:
        assert end <= word.start < word.end <= transcription.duration
        assert 0 < word.confidence <= 1
        end = word.end
    assert " ".join(one.text for one in transcription.segments) == " ".join(
        word.text for word in transcription.words
    )
    assert all(one.score < 0 and one.token_ids for one in transcription.segments)


def test_text_comes_in_whole_words_as_windows_end(engine, long):
    handle = engine.submit(np.tile(long, 30), max_window=WINDOW)
    pieces = list(handle)
    assert "".join(pieces) == handle.result(SOON).text
    assert len(pieces) > 1
    assert all(piece.startswith(" ") for piece in pieces[1:])


def test_a_cancelled_recording_has_the_words_so_far(engine, long):
    handle = engine.submit(np.tile(long, 40), max_window=WINDOW)
    first = next(iter(handle))
    handle.cancel()
    result = handle.result(SOON)
    assert result.finish_reason == "cancelled"
    assert result.text.startswith(first)


def test_a_vocabulary_without_a_delimiter_is_decoded_at_once(tmp_path, long):
    folder = write_ctc_checkpoint(tmp_path)
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(vocabulary.read_text().replace('"|"', '"%"'))
    edit_json(folder / "tokenizer_config.json", word_delimiter_token="|", added_tokens_decoder=None)
    with tritone.Engine(folder, device="cpu") as engine:
        whole = engine.submit(long, max_window=WINDOW)
        pieces = list(whole)
        assert pieces == [whole.result(SOON).text]
        assert "%" in pieces[0]


def test_silence_of_many_windows_has_no_words(ctc_checkpoint, long):
    with tritone.Engine(ctc_checkpoint, device="cpu", config=EngineConfig(max_window=WINDOW)) as engine:
        engine.model.lm_head.weight.data.zero_()
        result = engine.submit(long).result(SOON)
    assert (result.text, result.words, result.segments, result.token_ids) == ("", (), (), ())
    assert result.finish_reason == "stop"


@pytest.mark.parametrize("window", [0, -1, float("nan"), float("inf"), 0.01, "ten", True], ids=str)
def test_a_window_out_of_range_is_refused(engine, long, window):
    with pytest.raises(
        ValueError, match=f"max_window is {window!r}; it must be a number of seconds from 0.083 to"
    ):
        engine.submit(long, max_window=window)


@pytest.mark.parametrize("context", [0.0, 0.3])
def test_an_overlap_out_of_range_is_refused(context):
    with pytest.raises(ValueError, match=f"window_context is {context}; it must be above 0 and at most 0.25"):
        EngineConfig(window_context=context)
