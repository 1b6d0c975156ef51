"""Decoding by PyAV (FFmpeg's libraries): MP3, and all that libsndfile does not read.

Files are given to FFmpeg as Python files, and formats that name other files (playlists, manifests) are not
among those allowed, so that a recording opens no other file and no address. PyAV silences FFmpeg's log.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, BinaryIO

import numpy as np

from .arrays import to_float
from .blocks import BLOCK, Block, Header, check_channels, check_rate
from .errors import CONVERT, COPY_AGAIN, AudioError
from .layout.parts import Bytes, is_tag
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
_WITH_CHECKSUM = {"wavpack", "tta", "ape", "tak"}  # codecs that pass over damage otherwise
_MAX_MISSING = (
    0.5,
    0.01,
)  # seconds, and share of the duration: how much less a whole file may hold than declared
# Formats in which an index or other tables may follow the audio, or whose layout was checked.
_WITH_INDEX = {
    *(
        "mov,mp4,m4a,3gp,3g2,mj2",
        "matroska,webm",
        "asf",
        "avi",
        "rm",
        "nut",
        "mxf",
        "wtv",
        "wav",
        "caf",
        "aiff",
    ),
    *("w64", "au", "mp3", "aac", "amr", "flv", "ogg", "flac", "iamf", "mpegts"),
}
_MAX_BEHIND = 4096  # bytes behind the last packet that may be padding or a tag
_TYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}
_MAX_PLANES = 8  # beyond, PyAV looks for the end of a frame's planes behind their table
_MAX_BAD_AT_START = 8  # packets. A stream cut out of another one begins with references to what is not there


def decode(
    file: BinaryIO, name: str, warnings: list[str], input_format: str | None = None, rate: int | None = None
) -> Iterator[Block]:
    """Decode the best audio stream of a file.

    Args:
        file: binary file.
        name: the recording's name in messages.
        warnings: list that gains what was passed over.
        input_format: FFmpeg's name of the format of a file without a header.
        rate: sampling rate of a file without a header.

    Raises:
        AudioError: not audio, damaged, or cut.
    """
    with _open(file, name, input_format, rate) as container:
        frames = _Frames(container, _audio_stream(container, name), name)
        yield from _gather(frames.decode(), name)
        warnings += frames.warnings(Bytes(file))


def read_header(file: BinaryIO, name: str) -> Header:
    """Header of the best audio stream. Raises AudioError where there is none."""
    with _open(file, name) as container:
        channels = int(_audio_stream(container, name).codec_context.channels)
        microseconds = container.duration
        return Header(channels, microseconds / 1e6 if microseconds and microseconds > 0 else None)


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
    try:
        return _av().open(
            _BoundedReads(file),
            "r",
            format=input_format,
            container_options=options,
            metadata_errors="ignore",
            buffer_size=1 << 16,
        )
    except _av().error.FFmpegError as error:
        raise AudioError(f"{name}: damaged, or not audio ({_reason(error)}); {CONVERT}") from error


class _BoundedReads:
    """File whose reads are bounded, since FFmpeg asks for all that a chunk's header declares."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Read at most a megabyte; FFmpeg asks again."""
        return self._file.read(min(size, 1 << 20))


@cache
def _audio_codecs() -> str:
    """Names of the audio decoders: FFmpeg would decode a picture to learn its properties."""
    codecs = []
    for codec in _av().codecs_available:
        try:
            if _av().Codec(codec, "r").type == "audio":
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
    if stream.codec_context.name in _WITH_CHECKSUM:
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
    return stream


class _Frames:
    """Frames of one stream, decoded packet by packet, and what is known of those that are missing."""

    def __init__(self, container: Any, stream: Any, name: str) -> None:
        self._container, self._stream, self._name = container, stream, name
        self._format = container.format.name
        self._seconds = 0.0  # decoded
        self._bad = 0  # packets before the first good one
        self._end = 0.0  # of the last packet of any stream, in seconds
        self._last_byte = self._packet_bytes = 0

    def decode(self) -> Iterator[Any]:
        """Yield frames. Raises AudioError where packets are damaged or missing."""
        try:
            # Of all streams: a picture that goes on after the sound makes a file no shorter than declared.
            for packet in self._container.demux():
                if packet.pts is not None and self._format in _WITH_DURATION:
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base
                    self._end = max(self._end, float(end))
                if packet.pos is not None:
                    self._last_byte = max(self._last_byte, packet.pos + packet.size)
                self._packet_bytes += packet.size
                if packet.stream.index == self._stream.index:
                    yield from self._decode(packet)
        except _av().error.FFmpegError as error:
            raise self._damaged(error) from error
        if not self._seconds and self._bad:
            raise AudioError(f"{self._name}: damaged: none of its packets can be decoded; {CONVERT}")
        if self._format in _WITH_DURATION:
            self._check_duration()

    def warnings(self, file: Bytes) -> list[str]:
        """Messages about what was passed over, once all is decoded."""
        messages = []
        if self._bad:
            messages.append(f"{self._bad} packets at its start could not be decoded, and were left out")
        if self._format in _WITH_INDEX:
            return messages
        # Some formats' packets have no position; then headers and tables count as left out, up to an eighth.
        last = self._last_byte or self._packet_bytes + file.size // 8
        behind = file.size - last
        if behind > _MAX_BEHIND and not is_tag(file.at(last, 12)) and not file.is_zero(last):
            messages.append(f"{behind} bytes behind its last packet were left out")
        return messages

    def _decode(self, packet: Any) -> Iterator[Any]:
        try:
            frames = packet.decode()
        except _av().error.EOFError:
            return
        except _av().error.FFmpegError as error:
            self._bad += 1
            if self._seconds or self._bad > _MAX_BAD_AT_START:
                raise self._damaged(error) from error
            return
        for frame in frames:
            self._seconds += frame.samples / (frame.sample_rate or 1)
            yield frame
        if packet.size and packet.is_corrupt:
            raise self._damaged("a corrupt packet")

    def _check_duration(self) -> None:
        stream, container = self._stream, self._container
        if stream.duration:
            declared, there = float(stream.duration * stream.time_base), self._seconds
        else:
            declared = (container.duration or 0) / _av().time_base
            there = max(self._end - (container.start_time or 0) / _av().time_base, self._seconds)
        if declared - there > max(_MAX_MISSING[0], _MAX_MISSING[1] * declared):
            raise AudioError(
                f"{self._name}: cut short: {there:.1f} of {declared:.1f} s are there; {COPY_AGAIN}"
            )

    def _damaged(self, error: Any) -> AudioError:
        return AudioError(
            f"{self._name}: damaged behind {self._seconds:.1f} s ({_reason(error)}); {COPY_AGAIN}"
        )


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
        samples = _samples(frame, channels, name)
        pending.append(samples)
        values += samples.size
    if pending:
        yield Block(np.concatenate(pending), shape[1])


def _samples(frame: Any, channels: int, name: str) -> np.ndarray:
    """Samples of a frame as float32 [samples, channels].

    Not by `to_ndarray`: PyAV counts nine planes where there are eight, and reads the ninth.
    """
    dtype = _TYPES.get(frame.format.name.removesuffix("p"))
    if dtype is None or (frame.format.is_planar and channels > _MAX_PLANES):
        raise AudioError(f"{name}: {channels} channels of {frame.format.name} are not read; {CONVERT}")
    if not frame.format.is_planar:
        values = np.frombuffer(frame.planes[0], dtype, frame.samples * channels)
        return to_float(values.reshape(-1, channels))
    planes = [np.frombuffer(plane, dtype, frame.samples) for plane in frame.planes[:channels]]
    return to_float(planes[0][:, None] if channels == 1 else np.stack(planes, axis=1))


def _reason(error: Any) -> str:
    reason = str(getattr(error, "strerror", None) or error).rstrip(".")
    return "it cannot be decoded" if reason.startswith("Error number") else reason
