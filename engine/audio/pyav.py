"""Decoding by PyAV (FFmpeg's libraries): MP3, and all that libsndfile does not read.

Files are given to FFmpeg as Python files, and formats that name other files (playlists, manifests) are not
among those allowed, so that a recording opens no other file and no address. PyAV silences FFmpeg's log.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, BinaryIO

import numpy as np

from .arrays import to_float
from .blocks import BLOCK, Block, check_channels, check_rate
from .errors import CONVERT, COPY_AGAIN, AudioError
from .packages import package

_FORMATS = (
    *("mov", "matroska", "asf", "avi", "flv", "live_flv", "kux", "mpegts", "mpeg", "mpegvideo", "mxf", "gxf"),
    *("nut", "nsv", "dv", "wtv", "rm", "ivr", "swf", "dhav", "pva", "ty", "vivo", "lxf", "xmv", "sdr2"),
    *("mp3", "aac", "ac3", "eac3", "ac4", "dts", "dtshd", "mlp", "truehd", "loas", "spdif", "s337m", "sbc"),
    *(
        "amr",
        "amrnb",
        "amrwb",
        "qcp",
        "gsm",
        "g722",
        "g723_1",
        "g729",
        "codec2",
        "lc3",
        "dss",
        "act",
        "aa",
        "aax",
    ),
    *(
        "wav",
        "w64",
        "aiff",
        "au",
        "caf",
        "ogg",
        "flac",
        "voc",
        "ircam",
        "nistsphere",
        "avr",
        "pvf",
        "iff",
        "sox",
    ),
    *(
        "sds",
        "paf",
        "epaf",
        "wve",
        "hcom",
        "siff",
        "ape",
        "wv",
        "tta",
        "tak",
        "mpc",
        "mpc8",
        "shn",
        "dsf",
        "iamf",
    ),
    *(
        "oma",
        "aea",
        "xwma",
        "vqf",
        "osq",
        "bonk",
        "rka",
        "wavarc",
        "qoa",
        "apac",
        "dfpwm",
        "xa",
        "binka",
        "mmf",
    ),
    *("s16le",),
)
# Formats whose header has the true duration. Others' is an estimate from the bit rate.
_WITH_DURATION = {
    *(
        "mov,mp4,m4a,3gp,3g2,mj2",
        "matroska,webm",
        "asf",
        "avi",
        "flv",
        "ape",
        "tta",
        "wv",
        "tak",
        "rm",
        "mpc8",
    ),
    *("dsf", "oma", "shn", "wav", "caf", "aiff", "w64", "xwma", "nut"),
}
_MAX_MISSING = (
    0.5,
    0.01,
)  # seconds, and share of the duration: how much less a whole file may hold than declared
_MAX_BAD_AT_START = 8  # packets. A stream cut out of another one begins with references to what is not there


def decode(
    file: BinaryIO, name: str, input_format: str | None = None, rate: int | None = None
) -> Iterator[Block]:
    """Decode the best audio stream of a file.

    Args:
        file: binary file.
        name: the recording's name in messages.
        input_format: FFmpeg's name of the format of a file without a header.
        rate: sampling rate of a file without a header.

    Raises:
        AudioError: not audio, damaged, or cut.
    """
    with _open(file, name, input_format, rate) as container:
        stream = _audio_stream(container, name)
        yield from _gather(_frames(container, stream, name), name)


def count_channels(file: BinaryIO, name: str) -> int:
    """Number of channels of the best audio stream. Raises AudioError where there is none."""
    with _open(file, name) as container:
        return int(_audio_stream(container, name).codec_context.channels)


def _av() -> Any:
    return package("av", "reading this recording")


def _open(file: BinaryIO, name: str, input_format: str | None = None, rate: int | None = None) -> Any:
    options = {
        "format_whitelist": ",".join(_FORMATS),
        "codec_whitelist": _audio_codecs(),
        "protocol_whitelist": "",
    }
    if rate is not None:
        options["sample_rate"] = str(rate)
    av = _av()
    try:
        return av.open(
            file,
            "r",
            format=input_format,
            container_options=options,
            metadata_errors="ignore",
            buffer_size=1 << 16,
        )
    except av.error.FFmpegError as error:
        raise AudioError(f"{name}: damaged, or not audio ({_reason(error)}); {CONVERT}") from error


@cache
def _audio_codecs() -> str:
    """Names of the audio decoders: FFmpeg would decode a picture to learn its properties."""
    av, codecs = _av(), []
    for codec in av.codecs_available:
        try:
            if av.Codec(codec, "r").type == "audio":
                codecs.append(codec)
        except ValueError:  # an encoder alone (av.codec.codec.UnknownCodecError)
            continue
    return ",".join(sorted(codecs))


def _audio_stream(container: Any, name: str) -> Any:
    streams = container.streams.audio
    if not streams:
        kinds = sorted({stream.type for stream in container.streams})
        there = f"holds {' and '.join(kinds)}, and no audio" if kinds else "holds no audio"
        raise AudioError(f"{name}: {there}; leave it out")
    stream = container.streams.best("audio") or streams[0]
    if stream.codec_context is None:
        raise AudioError(f"{name}: its audio is encoded in a way that FFmpeg does not decode; {CONVERT}")
    check_channels(stream.codec_context.channels, name)
    stream.codec_context.thread_count = 1  # a reading thread is one core's
    return stream


def _frames(container: Any, stream: Any, name: str) -> Iterator[Any]:
    """Decode packet by packet, and compare what was there with the declared duration."""
    errors, end, decoded, bad = _av().error, 0.0, 0.0, 0
    try:
        # Packets of all streams: a picture that goes on after the sound makes a file no shorter than declared.
        for packet in container.demux():
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index != stream.index:
                continue
            try:
                frames = packet.decode()
            except errors.EOFError:
                continue
            except errors.FFmpegError as error:
                bad += 1
                if decoded or bad > _MAX_BAD_AT_START:
                    raise AudioError(
                        f"{name}: damaged at {max(decoded, 0):.1f} s ({_reason(error)}); {COPY_AGAIN}"
                    ) from error
                continue
            for frame in frames:
                decoded += frame.samples / (frame.sample_rate or 1)
                yield frame
            if packet.is_corrupt and packet.size:
                raise AudioError(f"{name}: damaged at {decoded:.1f} s (a corrupt packet); {COPY_AGAIN}")
    except errors.FFmpegError as error:
        raise AudioError(f"{name}: damaged at {decoded:.1f} s ({_reason(error)}); {COPY_AGAIN}") from error
    if bad and not decoded:
        raise AudioError(f"{name}: damaged: none of its packets can be decoded; {CONVERT}")
    _check_duration(container, stream, end, decoded, name)


def _check_duration(container: Any, stream: Any, end: float, decoded: float, name: str) -> None:
    if container.format.name not in _WITH_DURATION:
        return
    if stream.duration:
        declared = float(stream.duration * stream.time_base)
        there = decoded
    elif container.duration:
        time_base = _av().time_base
        start = (container.start_time or 0) / time_base
        declared, there = container.duration / time_base, max(end - start, decoded)
    else:
        return
    if declared - there > max(_MAX_MISSING[0], _MAX_MISSING[1] * declared):
        raise AudioError(f"{name}: cut short: {there:.1f} of {declared:.1f} s are there; {COPY_AGAIN}")


def _gather(frames: Iterator[Any], name: str) -> Iterator[Block]:
    """Join frames, which may hold 20 ms each, to blocks."""
    pending: list[np.ndarray] = []
    values, shape = 0, (0, 0)  # channels and rate
    for frame in frames:
        channels, rate = len(frame.layout.channels), frame.sample_rate
        if (channels, rate) != shape or values >= BLOCK:
            if pending:
                yield Block(np.concatenate(pending), shape[1])
            if (channels, rate) != shape:
                check_rate(rate, name)
                check_channels(channels, name)
            pending, values, shape = [], 0, (channels, rate)
        samples = _samples(frame, channels)
        pending.append(samples)
        values += samples.size
    if pending:
        yield Block(np.concatenate(pending), shape[1])


def _samples(frame: Any, channels: int) -> np.ndarray:
    """Samples of a frame as float32 [samples, channels]."""
    values = frame.to_ndarray()
    columns = values.T if frame.format.is_planar else values.reshape(-1, channels)
    if columns.dtype == np.int64:
        return (columns / 2.0**63).astype(np.float32)
    return to_float(columns)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")
