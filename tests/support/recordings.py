"""Recordings in every format that PyAV encodes, made from samples."""

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr

# Suffix: container, codec, rate in Hz, and the codec of a picture.
FORMATS: dict[str, tuple[Any, ...]] = {
    "m4a": ("ipod", "aac", 16_000, None),
    "mp4": ("mp4", "aac", 48_000, "mpeg4"),
    "mov": ("mov", "aac", 44_100, None),
    "3gp": ("3gp", "libopencore_amrnb", 8_000, None),
    "mkv": ("matroska", "libopus", 48_000, "mpeg4"),
    "mka": ("matroska", "flac", 16_000, None),
    "webm": ("webm", "libopus", 48_000, None),
    "wma": ("asf", "wmav2", 44_100, None),
    "amr": ("amr", "libopencore_amrnb", 8_000, None),
    "aac": ("adts", "aac", 16_000, None),
    "mp3": ("mp3", "libmp3lame", 16_000, None),
    "mp2": ("mp2", "mp2", 16_000, None),
    "ac3": ("ac3", "ac3", 48_000, None),
    "flv": ("flv", "aac", 44_100, None),
    "avi": ("avi", "libmp3lame", 44_100, "mpeg4"),
    "ts": ("mpegts", "aac", 48_000, None),
    "wv": ("wv", "wavpack", 16_000, None),
}
SOUNDFILE = {
    "wav": ("WAV", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "sph": ("NIST", "PCM_16"),
    "voc": ("VOC", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}


def encode(samples: np.ndarray, rate: int, suffix: str, path: Path | None = None, **options: str) -> bytes:
    """Encode float32 [samples] as a file of the format that a suffix stands for.

    A path is for options that make the writer read its file again.
    """
    file: Any = io.BytesIO()
    if suffix in SOUNDFILE:
        container, codec = SOUNDFILE[suffix]
        soundfile.write(file, samples, rate, format=container, subtype=codec)
        return file.getvalue()
    container, codec, wanted, picture = FORMATS[suffix]
    if rate != wanted:
        samples = soxr.resample(samples, rate, wanted)
    pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)[None]
    with av.open(file if path is None else str(path), "w", format=container, options=options) as output:
        images: Any = output.add_stream(picture, rate=25) if picture else None
        if images is not None:
            images.width = images.height = 64
            images.pix_fmt = "yuv420p"
        stream: Any = output.add_stream(codec, rate=wanted)
        stream.layout, stream.bit_rate = "mono", 64_000 if codec != "libopencore_amrnb" else 12_200
        convert = av.AudioResampler(
            format=stream.codec_context.codec.audio_formats[0].name, layout="mono", rate=wanted
        )
        shown = 0
        for start in range(0, pcm.shape[1], wanted):
            frame: Any = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(pcm[:, start : start + wanted]), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = wanted, start
            for part in convert.resample(frame):
                output.mux(stream.encode(part))
            while images is not None and shown < 25 * (start + wanted) / wanted:
                image: Any = av.VideoFrame.from_ndarray(
                    np.full((64, 64, 3), shown % 255, np.uint8), format="rgb24"
                )
                image.pts = shown
                shown += 1
                output.mux(images.encode(image))
        for part in convert.resample(None):
            output.mux(stream.encode(part))
        if images is not None:
            output.mux(images.encode(None))
        output.mux(stream.encode(None))
    return file.getvalue() if path is None else path.read_bytes()
