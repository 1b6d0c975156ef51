"""Reading alone: a minute of speech in each format, decoded, mixed and resampled to 16 kHz by one thread.

`extra_info` has RTFx, seconds of audio per second of CPU time.
"""

import io
import time
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from tritone.engine.audio.reader import load_audio

SAMPLE = Path(__file__).parents[2] / "samples" / "digits" / "seven_digits_fast_44k.flac"
SECONDS = 60
SOUNDFILE = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS")}
PYAV = {"mp3": ("mp3", "libmp3lame"), "m4a": ("ipod", "aac")}


def encode(samples: np.ndarray, rate: int, suffix: str) -> bytes:
    """Encode float32 [samples] or [samples, 2] as a file of the format."""
    file = io.BytesIO()
    if suffix in SOUNDFILE:
        container, codec = SOUNDFILE[suffix]
        channels = samples.ndim
        with soundfile.SoundFile(file, "w", rate, channels, format=container, subtype=codec) as output:
            for start in range(0, len(samples), rate):  # libvorbis needs a stack as large as a call's samples
                output.write(samples[start : start + rate])
        return file.getvalue()
    container, codec = PYAV[suffix]
    layout = "mono" if samples.ndim == 1 else "stereo"
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.layout = layout
        convert = av.AudioResampler(
            format=stream.codec_context.codec.audio_formats[0].name, layout=layout, rate=rate
        )
        for start in range(0, len(samples), rate):
            pcm = (samples[start : start + rate] * 32767).astype(np.int16).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            for part in convert.resample(frame):
                output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", [*SOUNDFILE, *PYAV])
def test_reading(benchmark, tmp_path, suffix, channels, rate) -> None:
    samples = np.resize(soundfile.read(SAMPLE, dtype="float32")[0], SECONDS * rate)
    if channels == 2:
        samples = np.stack([samples, np.roll(samples, rate)], axis=1)
    path = tmp_path / f"speech.{suffix}"
    path.write_bytes(encode(samples, rate, suffix))
    used = time.process_time()
    audio = benchmark.pedantic(load_audio, (path, 16_000), rounds=10, warmup_rounds=1)
    used = (time.process_time() - used) / 11
    assert len(audio.samples) >= SECONDS * 16_000
    benchmark.extra_info["rtfx"] = round(SECONDS / used)
