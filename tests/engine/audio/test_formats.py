"""Formats: the same recording in each, from paths, bytes and file objects, in bounded memory and silence."""

import io
import os
import subprocess
import sys
import threading

import av
import numpy as np
import pytest
import soundfile
from recordings import FORMATS, SOUNDFILE, encode

import tritone
from tritone.engine.audio.formats import AUDIO_SUFFIXES
from tritone.engine.audio.reader import AudioError, audio_blocks, count_channels, load_audio

RATE = 16_000
SAMPLE = "samples/digits/five_digits_48k.flac"  # clean: lossy formats change no word
BEYOND_THE_BLOCK = 16 << 10  # KiB that reading an hour may take: FFmpeg's and soxr's buffers, and blocks


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """Five spoken digits at 16 kHz."""
    return load_audio(SAMPLE, RATE).samples


@pytest.fixture(scope="module")
def engine():
    """The built-in digits model."""
    with tritone.Engine("digits", device="cpu") as engine:
        yield engine


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "opus", "m4a", "webm", "amr", "mp4"])
def test_a_recording_has_the_same_transcript_in_every_format_and_from_every_source(
    tmp_path, digits, engine, suffix
):
    content = encode(digits, RATE, suffix)
    path = tmp_path / f"digits.{suffix}"
    path.write_bytes(content)
    wanted = engine.submit(digits).result(timeout=60).text
    with path.open("rb") as file:
        loaded = [load_audio(source, RATE).samples for source in (path, content, file)]
    assert np.array_equal(loaded[0], loaded[1])
    assert np.array_equal(loaded[0], loaded[2])
    assert engine.submit(path).result(timeout=60).text == wanted


@pytest.mark.parametrize("suffix", [*SOUNDFILE, *FORMATS])
def test_every_format_gives_the_recording_and_no_warning(digits, suffix):
    audio = load_audio(encode(digits, RATE, suffix), RATE)
    assert audio.warnings == ()
    # Encoders add up to two frames of padding; those of AAC have 1,024 samples.
    assert abs(len(audio.samples) - len(digits)) < 2400
    assert audio.samples.std() == pytest.approx(digits.std(), rel=0.3)
    assert f".{suffix}" in AUDIO_SUFFIXES or suffix == "ts"


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov"}])
def test_an_mp4s_index_may_be_anywhere(tmp_path, digits, options):
    content = encode(digits, RATE, "m4a", tmp_path / "a.m4a", **options)
    assert abs(len(load_audio(content, RATE).samples) - len(digits)) < 2400


@pytest.mark.parametrize(
    ("suffix", "encoding"), [("ulaw", "mulaw"), ("ul", "mulaw"), ("alaw", "alaw"), ("al", "alaw")]
)
def test_g711_without_a_header_is_read_by_suffix_or_as_the_caller_says(tmp_path, suffix, encoding):
    samples = (0.5 * np.sin(np.arange(8_000) / 5)).astype(np.float32)
    raw, wav = io.BytesIO(), io.BytesIO()
    subtype = {"mulaw": "ULAW", "alaw": "ALAW"}[encoding]
    soundfile.write(raw, samples, 8_000, format="RAW", subtype=subtype)
    soundfile.write(wav, samples, 8_000, format="WAV", subtype=subtype)
    path = tmp_path / f"call.{suffix}"
    path.write_bytes(raw.getvalue())
    wanted = load_audio(wav.getvalue(), 8_000).samples
    assert np.array_equal(load_audio(path, 8_000).samples, wanted)
    assert np.array_equal(load_audio(raw.getvalue(), 8_000, encoding=encoding).samples, wanted)
    assert count_channels(path) == 1
    path.write_bytes(wav.getvalue())  # a header counts for more than a suffix
    assert np.array_equal(load_audio(path, 8_000).samples, wanted)


def test_an_unknown_encoding_is_refused():
    with pytest.raises(AudioError, match="'mulaw' and 'alaw'"):
        load_audio(b"\xff" * 800, RATE, encoding="opus")


def test_a_file_object_is_read_from_its_position_to_its_end(digits):
    file = io.BytesIO(b"12345" + encode(digits, RATE, "wav"))
    file.seek(5)
    assert len(load_audio(file, RATE).samples) == len(digits)
    with pytest.raises(AudioError, match="text file object"):
        load_audio(io.StringIO("text"), RATE)


def test_blocks_joined_are_the_recording_whatever_its_source(tmp_path, digits):
    path = tmp_path / "a.wav"
    soundfile.write(path, digits, 44_100, subtype="FLOAT")
    wanted = load_audio(path, RATE).samples
    assert np.array_equal(np.concatenate(list(audio_blocks(path, RATE))), wanted)
    assert np.array_equal(load_audio(digits, RATE, source_rate=44_100).samples, wanted)


@pytest.mark.parametrize("layout", ["stereo", "5.1", "7.1"])
def test_sound_of_many_channels_is_read(digits, layout):
    """Eight planes of a frame are the ninth's crash in PyAV's own conversion."""
    file = io.BytesIO()
    with av.open(file, "w", format="adts") as output:
        stream = output.add_stream("aac", rate=RATE)
        stream.layout = layout
        channels = len(stream.layout.channels)
        convert = av.AudioResampler(format="fltp", layout=layout, rate=RATE)
        for start in range(0, len(digits), 1024):
            part = np.repeat(digits[start : start + 1024], channels)[None]
            frame = av.AudioFrame.from_ndarray(part, format="flt", layout=layout)
            frame.sample_rate, frame.pts = RATE, start
            for converted in convert.resample(frame):
                output.mux(stream.encode(converted))
        output.mux(stream.encode(None))
    audio = load_audio(file.getvalue(), RATE)
    assert audio.samples.std() == pytest.approx(digits.std(), rel=0.3)
    assert count_channels(file.getvalue()) == channels


def test_a_picture_alone_is_refused():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        images = output.add_stream("mpeg4", rate=25)
        images.width = images.height = 64
        images.pix_fmt = "yuv420p"
        image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        output.mux(images.encode(image))
        output.mux(images.encode(None))
    with pytest.raises(AudioError, match="holds video, and no audio"):
        load_audio(file.getvalue(), RATE)


def test_a_playlist_opens_no_other_file(tmp_path, digits):
    target = tmp_path / "target.aac"
    target.write_bytes(encode(digits, RATE, "aac"))
    playlists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:6,\n{target}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {target}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    ]
    for playlist in playlists:
        for name in ("list.m3u8", "list.wav"):
            path = tmp_path / name
            path.write_text(playlist)
            for source in (path, playlist.encode()):
                with pytest.raises(AudioError, match="not audio"):
                    load_audio(source, RATE)


MEMORY = """
import sys
from tritone.engine.audio.reader import audio_blocks
def peak(): return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
sum(map(len, audio_blocks(sys.argv[1], 16000)))  # libraries loaded
source = {"path": lambda: sys.argv[2], "file": lambda: open(sys.argv[2], "rb")}[sys.argv[3]]()
used = peak()
print(sum(map(len, audio_blocks(source, 16000))), peak() - used)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("suffix", ["wav", "flac", "m4a", "mp3"])
def test_an_hour_is_read_in_the_memory_of_some_blocks(tmp_path, suffix):
    rate, seconds = (16_000, 3600) if suffix in SOUNDFILE else (16_000, 600)
    short, long = tmp_path / f"short.{suffix}", tmp_path / f"long.{suffix}"
    minute = (0.1 * np.random.default_rng(0).standard_normal(60 * rate)).astype(np.float32)
    short.write_bytes(encode(minute[:rate], rate, suffix))
    if suffix in SOUNDFILE:
        with soundfile.SoundFile(long, "w", rate, 1, format=suffix.upper()) as file:
            for _ in range(seconds // 60):
                file.write(minute)
    else:
        long.write_bytes(encode(np.tile(minute, seconds // 60), rate, suffix))
    for kind in ("path", "file"):
        command = [sys.executable, "-c", MEMORY, short, long, kind]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        count, used = map(int, run.stdout.split())
        assert count >= RATE * seconds
        assert used < BEYOND_THE_BLOCK


def test_a_day_of_silence_costs_what_its_length_allows(tmp_path):
    path = tmp_path / "day.flac"
    with soundfile.SoundFile(path, "w", 8_000, 1) as file:
        for _ in range(24):
            file.write(np.zeros(8_000 * 3600, np.int16))
    blocks = []
    with pytest.raises(AudioError, match=r"longer than 60\.0 s"):
        blocks.extend(audio_blocks(path, RATE, max_seconds=60.0))
    assert sum(map(len, blocks)) <= 60 * RATE


def test_a_block_has_a_bounded_number_of_values_at_any_rate_and_channels(tmp_path):
    path = tmp_path / "fast.flac"
    soundfile.write(path, np.zeros((655_350, 8), np.int16), 655_350)
    assert max(map(len, audio_blocks(path, 655_350))) <= 1 << 16
    soundfile.write(tmp_path / "wide.wav", np.zeros((10, 500), np.int16), RATE)
    with pytest.raises(AudioError, match="500 channels"):
        load_audio(tmp_path / "wide.wav", RATE)


NOISE = """
import sys
from tritone.engine.audio.reader import AudioError, load_audio
for path in sys.argv[1:]:
    try: load_audio(path, 16000)
    except AudioError: pass
"""


def test_libraries_print_nothing_about_damaged_files(tmp_path, digits):
    files = []
    sds = io.BytesIO()
    soundfile.write(sds, digits, RATE, format="SDS", subtype="PCM_16")
    contents = {"sds": sds.getvalue()} | {
        suffix: encode(digits, RATE, suffix) for suffix in (*SOUNDFILE, *FORMATS)
    }
    random = np.random.default_rng(0)
    for suffix, content in contents.items():
        for number in range(4):
            damaged = bytearray(content)
            for _ in range(40):
                damaged[random.integers(len(damaged))] = random.integers(256)
            files.append(tmp_path / f"{number}.{suffix}")
            files[-1].write_bytes(damaged)
    run = subprocess.run([sys.executable, "-c", NOISE, *files], capture_output=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


def test_decoding_leaves_other_threads_their_time(tmp_path, digits):
    """Decoders release the interpreter's lock: a thread of Python goes on while another one reads."""
    content = encode(np.tile(digits, 40), RATE, "webm")
    done = threading.Event()
    counted = 0

    def read() -> None:
        load_audio(content, RATE)
        done.set()

    thread = threading.Thread(target=read)
    thread.start()
    while not done.wait(0.001):
        counted += 1
    thread.join()
    assert counted > 10


@pytest.mark.parametrize("layout", ["mono", "5.1", "7.1"])
def test_every_channel_of_planar_audio_is_its_own(layout):
    # PyAV's own to_ndarray goes on behind the eighth channel.
    file, count = io.BytesIO(), {"mono": 1, "5.1": 6, "7.1": 8}[layout]
    with av.open(file, "w", format="mov") as output:
        stream = output.add_stream("aac", rate=48_000, layout=layout)
        time = np.arange(48 * 1024) / 48_000
        tones = [0.1 * np.sin(2 * np.pi * 200 * (1 + channel) * time) for channel in range(count)]
        for start in range(0, len(time), 1024):
            frame = av.AudioFrame("fltp", layout, 1024)
            frame.sample_rate = 48_000
            for plane, tone in zip(frame.planes[:count], tones, strict=True):
                plane.update(tone[start : start + 1024].astype(np.float32).tobytes())
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    heard = set()
    for channel in range(count):
        samples = load_audio(file.getvalue(), 48_000, channel=channel).samples[4096:-4096]
        assert np.abs(samples).max() < 0.2
        spectrum = np.abs(np.fft.rfft(samples))
        heard.add(round(float(np.argmax(spectrum)) * 48_000 / len(samples) / 200))
    # In an order of the codec's, and without the channel of low frequencies.
    assert len(heard & set(range(1, count + 1))) >= max(count - 1, 1)
