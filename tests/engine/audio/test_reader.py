"""Audio in: real files of several formats and rates, and every way in which one can be bad."""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from tritone.engine.audio.reader import AudioError, load_audio

RATE = 16_000


def tone(seconds: float = 0.5, rate: int = RATE, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def noise(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(int(seconds * RATE))).astype(np.float32)


def spectral_peak(samples: np.ndarray, rate: int) -> float:
    """The loudest frequency in Hz."""
    return float(np.argmax(np.abs(np.fft.rfft(samples)))) * rate / len(samples)


# Good ones.


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100])
def test_a_file_of_any_format_and_rate_becomes_one_float32_channel_at_16_khz(tmp_path, suffix, rate):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(1.0, rate), rate)
    samples = load_audio(path, RATE).samples
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    # MP3 pads to whole frames of at most 1152 samples, and has a decoder delay.
    assert abs(len(samples) - RATE) <= (2 * 1152 * RATE / rate if suffix == "mp3" else 1)
    assert abs(spectral_peak(samples, RATE) - 440) < 5
    middle = samples[4_000:12_000]
    assert 0.45 < middle.max() < 0.55


def test_pcm_at_the_models_rate_keeps_its_samples(tmp_path):
    path = tmp_path / "exact.wav"
    written = (np.arange(1000, dtype=np.int16) * 31) - 15000
    soundfile.write(path, written, RATE, subtype="PCM_16")
    assert np.array_equal(load_audio(path, RATE).samples, written.astype(np.float32) / 32768)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_channels_are_averaged(tmp_path, suffix):
    path = tmp_path / f"stereo.{suffix}"
    left, right = tone(frequency=300), tone(frequency=1000)
    soundfile.write(path, np.stack([left, right], axis=1), RATE)
    tolerance = 0.05 if suffix == "ogg" else 1e-4
    assert np.abs(load_audio(path, RATE).samples - (left + right) / 2).max() < tolerance


def test_resampling_removes_what_the_lower_rate_cannot_hold(tmp_path):
    path = tmp_path / "high.wav"
    soundfile.write(path, tone(1.0, 48_000, frequency=12_000), 48_000)
    assert np.abs(load_audio(path, RATE).samples[1000:-1000]).max() < 1e-3


def test_an_array_is_resampled_from_its_own_rate():
    samples = load_audio(tone(1.0, 44_100), RATE, source_rate=44_100).samples
    assert len(samples) == RATE
    assert abs(spectral_peak(samples, RATE) - 440) < 2


@pytest.mark.parametrize(
    ("convert", "tolerance"),
    [
        (lambda x: x, 0),
        (lambda x: x.astype(np.float64), 0),
        (lambda x: x.astype(np.float16), 1e-3),
        (lambda x: (x * 32768).astype(np.int16), 1e-4),
        (lambda x: (x.astype(np.float64) * 2**31).astype(np.int32), 1e-6),
        (lambda x: (x * 128 + 128).astype(np.uint8), 1e-2),
        (lambda x: np.stack([x, x], axis=1), 0),
        (lambda x: x[:, None], 0),
        (lambda x: torch.from_numpy(x), 0),
        (lambda x: torch.from_numpy(x).to(torch.bfloat16), 2e-3),
        (lambda x: torch.from_numpy(x).requires_grad_(), 0),
        (lambda x: x[::-1][::-1], 0),
    ],
)
def test_arrays_and_tensors_of_any_sample_type_mean_the_same_audio(convert, tolerance):
    wanted = tone()
    assert np.abs(load_audio(convert(wanted), RATE).samples - wanted).max() <= tolerance


def test_an_array_is_copied():
    given = tone()
    loaded = load_audio(given, RATE).samples
    given[:] = 0
    assert np.abs(loaded).max() > 0.4


def test_a_header_written_into_a_pipe_is_read_to_the_end_of_the_file(tmp_path):
    path = wav(tmp_path / "piped.wav", data_size=0xFFFFFFFF, riff_size=0xFFFFFFFF)
    assert len(load_audio(path, RATE).samples) == RATE // 2


def test_the_module_does_not_import_torch():
    code = "import sys, tritone.engine.audio.reader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Bad ones. Each error is one class, names the file, and has at most two lines.


def wav(
    path,
    data_size: int | None = None,
    riff_size: int | None = None,
    rate: int = RATE,
    frames: int = RATE // 2,
):
    """A PCM file whose header may lie."""
    data = (tone(frames / RATE) * 32767).astype("<i2").tobytes()
    header = b"RIFF" + struct.pack("<I", 36 + len(data) if riff_size is None else riff_size) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, rate, (2 * rate) & 0xFFFFFFFF, 2, 16)
    path.write_bytes(
        header + b"data" + struct.pack("<I", len(data) if data_size is None else data_size) + data
    )
    return path


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def written(path, samples, rate=RATE, **options):
    soundfile.write(path, samples, rate, **options)
    return path


def with_text(path):
    path.write_text("this is not audio\n" * 100)
    return path


def with_nan(path):
    samples = tone()
    samples[77] = np.nan
    return written(path, samples, subtype="FLOAT")


def folder(path):
    path.mkdir()
    return path


def empty(path):
    path.touch()
    return path


def fifo(path):
    os.mkfifo(path)
    return path


BAD_FILES = {
    "missing": ("no.wav", lambda path: path, "no such file"),
    "a folder": ("folder.wav", folder, "is a folder"),
    "a pipe": ("pipe.wav", fifo, "pipe or device"),
    "empty": ("empty.wav", empty, "0 bytes"),
    "text": ("text.wav", with_text, "not audio"),
    "text called mp3": ("text.mp3", with_text, "not audio"),
    "text called raw": ("text.raw", with_text, "headerless"),
    "cut wav": ("cut.wav", lambda path: cut(wav(path)), "cut short"),
    "cut flac": ("cut.flac", lambda path: cut(written(path, tone(2))), "damaged"),
    "cut ogg": ("cut.ogg", lambda path: cut(written(path, noise(5))), "cut short"),
    "cut in the header": ("stub.wav", lambda path: path.write_bytes(b"RIFF\x00\x00") and path, "not audio"),
    "no samples": ("none.wav", lambda path: written(path, np.zeros(0, np.float32)), "no samples"),
    "nan": ("nan.wav", with_nan, "sample 77 is nan"),
    "infinite": ("inf.wav", lambda path: written(path, np.full(99, np.inf), subtype="FLOAT"), "sample"),
    "huge samples": ("loud.wav", lambda path: written(path, tone() * 1e9, subtype="FLOAT"), "scale them"),
    "rate of 1 Hz": ("slow.wav", lambda path: wav(path, rate=1), "sampling rate 1;"),
    "rate of 2 GHz": ("fast.wav", lambda path: wav(path, rate=2_000_000_000), "sampling rate 2000000000"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_with_its_name_and_what_is_wrong(tmp_path, case):
    name, make, wrong = BAD_FILES[case]
    path = make(tmp_path / name)
    with pytest.raises(AudioError) as raised:
        load_audio(path, RATE)
    message = str(raised.value)
    assert str(path) in message
    assert wrong in message
    assert message.count("\n") <= 1


@pytest.mark.parametrize(
    ("array", "wrong"),
    [
        (np.zeros((2, 100), np.float32), "array.T"),
        (np.zeros((1, 1, 100), np.float32), "dimensions"),
        (np.array(0.0), "dimensions"),
        (np.zeros(0, np.float32), "no samples"),
        (np.zeros((0, 2), np.float32), "no samples"),
        (np.full(100, np.nan, np.float32), "sample 0 is nan"),
        (np.full(100, 1e300), "sample 0 is inf"),
        (np.zeros(100, np.int64), "int64"),
        (np.zeros(100, bool), "bool"),
        (np.zeros(100, complex), "complex"),
        ([0.0, 0.1], "list"),
        (None, "NoneType"),
        (7, "int"),
        (torch.zeros(2, 100), "array.T"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_bad_array_is_refused(array, wrong):
    with pytest.raises(AudioError, match=wrong):
        load_audio(array, RATE)


def test_an_array_that_needs_no_conversion_is_copied_once_into_memory_of_the_caller():
    memory = []

    def empty(size):
        memory.append(np.empty(size, np.float32))
        return memory[-1]

    given = np.sin(np.arange(200_000, dtype=np.float32))
    loaded = load_audio(given[::2], RATE, empty=empty).samples
    assert loaded is memory[0]
    assert np.array_equal(loaded, given[::2])
    assert load_audio(given, RATE, empty=None).samples is given


def test_a_bad_sample_is_named_by_its_place_in_the_whole_array():
    array = np.zeros(200_000, np.float32)
    array[150_000] = np.nan
    for empty in (None, lambda size: np.empty(size, np.float32)):
        with pytest.raises(AudioError, match="sample 150000 is nan"):
            load_audio(array, RATE, empty=empty)


@pytest.mark.parametrize("rate", [0, -16_000, 1, 10**9, 16_000.0, "16000", True])
def test_an_absurd_rate_is_refused(rate):
    with pytest.raises(AudioError, match="sampling rate"):
        load_audio(tone(), RATE, source_rate=rate)


def test_a_name_with_a_nul_is_refused():
    with pytest.raises(AudioError, match="not a file name"):
        load_audio("a\0b.wav", RATE)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    path = wav(tmp_path / "locked.wav")
    path.chmod(0)
    with pytest.raises(AudioError, match="cannot be opened"):
        load_audio(path, RATE)


def test_a_header_that_promises_hours_takes_no_memory(tmp_path):
    content = bytearray(written(tmp_path / "a.flac", tone()).read_bytes())
    fields = int.from_bytes(content[18:26], "big")
    content[18:26] = (fields | (1 << 36) - 1).to_bytes(8, "big")  # total samples: 69 billion
    (tmp_path / "lie.flac").write_bytes(content)
    wav(tmp_path / "lie.wav", data_size=0xFFFFFFFF, riff_size=0xFFFFFFFF)
    code = (
        "import resource, sys; from tritone.engine.audio.reader import AudioError, load_audio\n"
        "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: load_audio(path, 16000).samples\n"
        "    except AudioError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used)"
    )
    paths = [str(tmp_path / "lie.flac"), str(tmp_path / "lie.wav")]
    run = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 50_000  # KiB


def test_decoding_stops_at_the_longest_length_that_is_taken(tmp_path):
    path = written(tmp_path / "long.flac", tone(30.0))
    assert len(load_audio(path, RATE, max_seconds=30.0).samples) == 30 * RATE
    for source in (path, tone(30.0)):
        with pytest.raises(AudioError, match=r"longer than 29\.9 s.*split"):
            load_audio(source, RATE, max_seconds=29.9)
