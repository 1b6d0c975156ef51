"""Sources of recordings: bytes, file objects, and single channels, each read as the caller gave it."""

import io
import itertools
import threading

import numpy as np
import pytest
import soundfile
import torch

import tritone
from tritone.engine.audio.reader import AudioError

SOON = 60  # seconds
RATE = 16_000


@pytest.fixture
def engine(ctc_checkpoint):
    with tritone.Engine(ctc_checkpoint, device="cpu") as engine:
        yield engine


@pytest.fixture(scope="module")
def stereo(waveforms) -> np.ndarray:
    """Two recordings beside each other, [samples, 2]."""
    samples = min(len(waveforms[0]), len(waveforms[1]))
    return np.stack([waveforms[0][:samples], waveforms[1][:samples]], axis=1)


@pytest.fixture(scope="module")
def encoded(stereo) -> bytes:
    return wav(stereo)


def wav(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, "FLOAT", format="WAV")
    return buffer.getvalue()


def content(results):
    return [(result.text, result.token_ids, result.score, result.duration) for result in results]


def test_a_path_its_bytes_and_its_file_object_have_one_result(engine, encoded, tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(encoded)
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        sources = [path, encoded, bytearray(encoded), memoryview(encoded), io.BytesIO(encoded), file, raw]
        results = list(engine.transcribe(sources))
    assert [result.error for result in results] == [None] * 7
    assert len(set(content(results))) == 1
    assert all(result.source is source for result, source in zip(results, sources, strict=True))


def test_a_file_object_is_read_from_its_position_when_it_is_submitted(engine, encoded):
    file = io.BytesIO(b"a header of another program" + encoded)
    file.seek(27)
    handle = engine.submit(file)
    file.close()
    assert handle.result(SOON).error is None
    mutable = bytearray(encoded)
    handle = engine.submit(mutable)
    mutable[:] = bytes(len(mutable))
    assert handle.result(SOON).text == engine.submit(encoded).result(SOON).text


def test_bytes_are_never_a_path(engine, encoded, tmp_path):
    (tmp_path / "a.wav").write_bytes(encoded)
    with pytest.raises(AudioError):
        engine.submit(str(tmp_path / "a.wav").encode()).result(SOON)


class Broken(io.RawIOBase):
    """A file whose `read` raises, or returns no bytes."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def read(self, size=-1):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (Broken(OSError(5, "Input/output error")), "Input/output error"),
        (Broken(None), "gave NoneType, not bytes"),
        (io.StringIO("text"), "gave str, not bytes; open it in binary mode"),
        (io.BytesIO(), ""),
        (Broken(b"endless"), "more than 1000 bytes"),
        (io.BytesIO(b"no audio at all"), ""),
    ],
    ids=["fails", "none", "text", "empty", "endless", "damaged"],
)
def test_a_bad_file_object_fails_alone(ctc_checkpoint, encoded, file, message):
    config = tritone.EngineConfig(max_file_object_bytes=1000)
    with tritone.Engine(ctc_checkpoint, device="cpu", config=config) as engine:
        good, bad, other = engine.transcribe([encoded, file, encoded])
        assert good.error is other.error is None
        assert message in str(bad.error)
        assert bad.finish_reason == "error"
        (split,) = engine.transcribe([file], channels="split")
        assert split.error is not None
        assert split.channel is None


def test_a_closed_file_object_fails_alone(engine, encoded):
    file = io.BytesIO(encoded)
    file.close()
    with pytest.raises(ValueError, match="closed file"):
        engine.submit(file).result(SOON)


def test_split_channels_are_what_each_is_alone(engine, stereo, encoded, waveforms, tmp_path):
    soundfile.write(tmp_path / "a.flac", stereo, RATE)
    wanted = content(engine.transcribe([stereo[:, 0], stereo[:, 1]]))
    mono = waveforms[2]
    results = list(
        engine.transcribe([stereo, "gone.wav", mono, encoded, io.BytesIO(encoded)], channels="split")
    )
    assert [result.channel for result in results] == [0, 1, None, 0, 0, 1, 0, 1]
    assert isinstance(results[2].error, AudioError)
    for start in (0, 4, 6):
        assert content(results[start : start + 2]) == wanted
    assert content(results[3:4]) == content(engine.transcribe([mono]))
    flac = list(engine.transcribe([tmp_path / "a.flac"], channels="split"))
    assert [result.channel for result in flac] == [0, 1]
    assert all(result.source == tmp_path / "a.flac" for result in flac)


def test_one_channel_may_be_submitted_alone(engine, stereo, encoded):
    both = list(engine.transcribe([stereo], channels="split"))
    for source in (stereo, encoded):
        found = [engine.submit(source, channel=channel).result(SOON) for channel in (0, 1)]
        assert [result.channel for result in found] == [0, 1]
        assert content(found) == content(both)
    with pytest.raises(AudioError, match="channel 2"):
        engine.submit(stereo, channel=2).result(SOON)
    assert engine.submit(stereo).result(SOON).channel is None


def test_one_bad_channel_fails_alone(engine, stereo):
    bad = stereo.copy()
    bad[100, 1] = np.nan
    first, second = engine.transcribe([bad], channels="split")
    assert (first.error, first.channel, second.channel) == (None, 0, 1)
    assert "nan" in str(second.error)


def test_an_array_without_channels_has_one_failure(engine):
    (result,) = engine.transcribe([np.zeros((0, 0))], channels="split")
    assert isinstance(result.error, AudioError)


def test_sources_of_many_channels_are_taken_a_bounded_number_ahead(engine, stereo):
    taken = itertools.count()

    def endless():
        while True:
            next(taken)
            yield stereo

    results = engine.transcribe(endless(), channels="split")
    for _ in range(6):
        next(results)
    results.close()
    assert next(taken) <= 6 + engine.config.submit_ahead * engine.config.in_flight_on_cpu


def test_a_classifier_splits_channels_too(audio, stereo):
    first, second = audio.classify([stereo], channels="split")
    assert (first.channel, second.channel) == (0, 1)
    assert first.labels == audio.submit(stereo[:, 0]).result(SOON).labels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channel": -1}, "channel must be an index"),
        ({"channel": True}, "channel must be an index"),
        ({"channel": "left"}, "channel must be an index"),
        ({"encoding": "g711"}, "encoding must be 'mulaw' or 'alaw', got 'g711'"),
        ({"short": "skip"}, "short must be 'fail' or 'empty'"),
        ({"short": None}, "short must be 'fail' or 'empty'"),
    ],
)
def test_a_wrong_option_is_refused_by_the_call(engine, stereo, options, message):
    with pytest.raises(ValueError, match=message):
        engine.submit(stereo, **options)


@pytest.mark.parametrize("channels", ["both", None, 2, ["split"]])
def test_wrong_channels_are_refused_by_the_call(engine, stereo, channels):
    with pytest.raises(ValueError, match="channels must be 'mix' or 'split'"):
        engine.transcribe([stereo], channels=channels)


@pytest.mark.parametrize("single", [b"RIFF", bytearray(4), memoryview(b"RIFF"), io.BytesIO(b"RIFF")])
def test_a_single_source_must_be_in_a_list(engine, single):
    with pytest.raises(ValueError, match=r"put the .* into a list"):
        engine.transcribe(single)


@pytest.fixture
def direct(engine, monkeypatch):
    """The engine with arrays prepared as for a GPU, without a GPU's pinned memory."""
    monkeypatch.setattr(engine._inputs, "_pins", True)
    monkeypatch.setattr(engine._inputs, "_empty", lambda size: torch.empty(size).numpy())
    return engine


def test_arrays_for_a_gpu_have_the_results_of_others_and_wait_for_no_reader(
    engine, direct, stereo, monkeypatch
):
    left = stereo[:, 0].copy()
    with tritone.Engine(engine.model, processor=engine.processor) as plain:
        wanted = content(plain.transcribe([left, left]))
    read = []
    original = direct._inputs.read
    monkeypatch.setattr(
        direct._inputs, "read", lambda *a: (read.append(threading.current_thread().name), original(*a))[1]
    )
    reused = left.copy()
    handle = direct.submit(reused)
    reused[:] = 0
    assert content([handle.result(SOON), direct.submit(torch.from_numpy(left)).result(SOON)]) == wanted
    assert set(read) == {threading.current_thread().name}
    # What must be converted is still read by a reading thread.
    others = [stereo[:, :1], left.astype(np.float64), (left * 32767).astype(np.int16)]
    assert all(direct.submit(one).result(SOON).error is None for one in others)
    assert [name.startswith("tritone-read") for name in read[2:]] == [True] * 3


def test_a_bad_array_for_a_gpu_fails_alone(direct, stereo):
    good = stereo[:, 0].copy()
    bad = good.copy()
    bad[-1] = np.inf
    loud, short = good * 1e9, good[:10]
    results = list(direct.transcribe([good, bad, good, loud, short, np.zeros(0, np.float32)]))
    errors = [type(result.error).__name__ for result in results]
    assert errors == ["NoneType", "AudioError", "NoneType", "AudioError", "TooShortError", "TooShortError"]
    assert f"sample {len(bad) - 1} is inf" in str(results[1].error)
    assert content(results[:1]) == content(results[2:3])
    empty = direct.submit(short, short="empty").result(SOON)
    assert (empty.text, empty.finish_reason, len(empty.warnings)) == ("", "stop", 1)


def test_arrays_beyond_those_submitted_ahead_are_no_pinned_memory(direct, stereo, monkeypatch):
    monkeypatch.setattr(direct, "max_ahead", 0)
    monkeypatch.setattr(direct._inputs, "prepare", None)
    assert direct.submit(stereo[:, 0].copy()).result(SOON).error is None
