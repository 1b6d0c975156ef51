"""A third of a second of sound in every format that libsndfile and PyAV write here."""

import io
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

SECONDS = 0.3
# Container, codec, rates, and options of the container; `None` for a codec's own sample format.
CONTAINERS: list[tuple[str, str, int, dict[str, str]]] = [
    ("ipod", "aac", 16_000, {}),  # m4a, with the index last
    ("ipod", "aac", 44_100, {"movflags": "faststart"}),
    ("ipod", "alac", 44_100, {}),
    ("mp4", "aac", 16_000, {"movflags": "frag_keyframe+empty_moov"}),
    ("mp4", "libmp3lame", 44_100, {}),
    ("mp4", "libopus", 48_000, {}),
    ("mp4", "flac", 16_000, {}),
    ("mov", "pcm_s16le", 16_000, {}),
    ("mov", "aac", 48_000, {}),
    ("3gp", "libopencore_amrnb", 8_000, {}),
    ("amr", "libopencore_amrnb", 8_000, {}),
    ("adts", "aac", 16_000, {}),
    ("latm", "aac", 16_000, {}),
    ("matroska", "libopus", 48_000, {}),
    ("matroska", "flac", 16_000, {}),
    ("matroska", "pcm_s16le", 8_000, {}),
    ("matroska", "ac3", 48_000, {}),
    ("webm", "libopus", 48_000, {}),
    ("webm", "libvorbis", 44_100, {}),
    ("asf", "wmav2", 44_100, {}),
    ("asf", "wmav1", 16_000, {}),
    ("mpegts", "aac", 48_000, {}),
    ("mpegts", "mp2", 48_000, {}),
    ("mpeg", "mp2", 44_100, {}),
    ("mp2", "mp2", 44_100, {}),
    ("mp3", "libmp3lame", 16_000, {}),
    ("mp3", "libmp3lame", 44_100, {"write_xing": "0"}),
    ("ac3", "ac3", 48_000, {}),
    ("eac3", "eac3", 48_000, {}),
    ("avi", "libmp3lame", 44_100, {}),
    ("avi", "pcm_s16le", 16_000, {}),
    ("flv", "libmp3lame", 44_100, {}),
    ("caf", "alac", 44_100, {}),
    ("caf", "pcm_mulaw", 8_000, {}),
    ("ogg", "flac", 16_000, {}),
    ("ogg", "libspeex", 16_000, {}),
    ("wav", "pcm_alaw", 8_000, {}),
    ("wav", "adpcm_ima_wav", 16_000, {}),
    ("wav", "g726", 8_000, {}),
    ("wav", "libmp3lame", 44_100, {}),
    ("w64", "pcm_s24le", 16_000, {}),
    ("au", "pcm_mulaw", 8_000, {}),
    ("aiff", "pcm_s16be", 16_000, {}),
    ("tta", "tta", 44_100, {}),
    ("wv", "wavpack", 44_100, {}),
    ("g722", "g722", 16_000, {}),
    ("gsm", "libgsm", 8_000, {}),
    ("mulaw", "pcm_mulaw", 8_000, {}),
]


def sound(rate: int, channels: int = 1, seconds: float = SECONDS) -> np.ndarray:
    """A tone in noise, float64 [samples, channels]."""
    count = int(seconds * rate)
    noise = np.random.default_rng(0).standard_normal((count, channels))
    return 0.3 * np.sin(np.arange(count) * 3200 / rate)[:, None] + 0.01 * noise


@cache
def libsndfile_files() -> dict[str, bytes]:
    """A file of every container and subtype that libsndfile writes, by their names."""
    files = {}
    # SD2 has its header in a second file, which is written beside the first even where that is in memory.
    for container in soundfile.available_formats():
        if container in ("SD2", "RAW"):
            continue
        for number, subtype in enumerate(soundfile.available_subtypes(container)):
            for rate, channels in ((16_000, 1 + number % 2), (16_000, 1), (8_000, 1), (48_000, 2)):
                file = io.BytesIO()
                try:
                    soundfile.write(file, sound(rate, channels), rate, subtype, format=container)
                except (soundfile.SoundFileError, ValueError, TypeError):
                    continue  # not this rate, or number of channels, or not without a file's name
                files[f"{container.lower()}-{subtype.lower()}"] = file.getvalue()
                break
    return files


@cache
def pyav_files() -> dict[str, bytes]:
    """A file of each of CONTAINERS that this build of FFmpeg writes, and a video with sound."""
    files = {}
    for container, codec, rate, options in CONTAINERS:
        try:
            name = "-".join([container, codec, *options.values()])
            files[name] = encode(sound(rate)[:, 0], rate, container, codec, options)
        except (av.FFmpegError, ValueError, LookupError):
            continue  # a build without this encoder or container
    for container, video in (("mp4", "mpeg4"), ("webm", "libvpx"), ("matroska", "mpeg4")):
        codec, rate = ("libopus", 48_000) if container == "webm" else ("aac", 44_100)
        files[f"{container}-{video}-{codec}"] = encode(sound(rate)[:, 0], rate, container, codec, {}, video)
    return files


def encode(
    samples: np.ndarray,
    rate: int,
    container: str,
    codec: str,
    options: dict[str, str] | None = None,
    video: str | None = None,
) -> bytes:
    """Encode one channel, float [samples], with PyAV; `video` adds a few black frames of that codec."""
    with tempfile.TemporaryDirectory() as folder:  # an index is moved to the front by reading the file again
        path = Path(folder) / "file"
        _encode(path, samples, rate, container, codec, options, video)
        return path.read_bytes()


def _encode(
    path: Path,
    samples: np.ndarray,
    rate: int,
    container: str,
    codec: str,
    options: dict[str, str] | None,
    video: str | None,
) -> None:
    with av.open(path, "w", format=container, options=dict(options or {})) as output:
        stream: Any = output.add_stream(codec, rate=rate)
        stream.layout = "mono"
        if codec.startswith("wma"):
            stream.bit_rate = 64_000
        if video:
            pictures: Any = output.add_stream(video, rate=10)
            pictures.width = pictures.height = 32
            pictures.pix_fmt = "yuv420p"
            for _ in range(3):
                black = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                output.mux(pictures.encode(black))
            output.mux(pictures.encode(None))
        pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = rate
        codec_context = stream.codec_context
        fit = av.AudioResampler(codec_context.format, "mono", rate, codec_context.frame_size or 0)
        for part in [*fit.resample(frame), *fit.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
