"""Layout of files made of chunks: WAV, RF64, W64, AIFF, CAF; and AU, which is one chunk."""

import struct
from typing import NamedTuple

from ..errors import COPY_AGAIN, AudioError
from .parts import Bytes, Layout, Part, is_tag

# Writers that cannot seek back (ffmpeg and sox into a pipe, arecord) leave about 2 or 4 GB as the size.
_PLACEHOLDERS = (1 << 31, (1 << 32) - 1)
_PLACEHOLDER_SPREAD = 1 << 16
_MIN_BEHIND = 4096  # bytes. Fewer behind the audio are no lost minutes, and often a program's mark


_CAF_SAMPLES = (b"lpcm", b"ulaw", b"alaw")  # of other encodings a table lists the packets


class _Format(NamedTuple):
    magic: bytes
    header: int  # bytes before the first chunk
    name_size: int
    size: str  # struct format
    align: int
    data: bytes
    counts_header: bool = False  # a chunk's size includes its name and size


_RIFF = _Format(b"RIFF", 12, 4, "<I", 2, b"data")
_FORMATS = (
    _RIFF,
    _RIFF._replace(magic=b"RIFX", size=">I"),
    _RIFF._replace(magic=b"RF64"),
    _RIFF._replace(magic=b"BW64"),
    _Format(b"FORM", 12, 4, ">I", 2, b"SSND"),
    _Format(b"riff", 40, 16, "<q", 8, b"data", counts_header=True),
    _Format(b"caff", 8, 4, ">q", 1, b"data"),
)


class _Data(NamedTuple):
    """The chunk of audio: its first byte, the declared size in bytes, and the field that declares it."""

    start: int
    declared: int
    field: int | None  # None where decoders do not look at it
    size: str


def chunk_layout(file: Bytes, name: str, start: int = 0) -> Layout:
    """Find the recordings of a chunked file.

    Raises:
        AudioError: fewer bytes of audio than declared.
    """
    layout = Layout([])
    at: int | None = start
    while at is not None:
        at = _add_part(layout, file, name, at)
    return layout


def _add_part(layout: Layout, file: Bytes, name: str, start: int) -> int | None:
    """Add the recording at an offset and return the next one's offset."""
    magic = file.at(start, 4)
    kind: _Format | None = None
    data: _Data | None
    if magic in (b".snd", b"dns."):
        order = ">" if magic == b".snd" else "<"
        offset, declared = struct.unpack(order + "II", file.at(start + 4, 8).ljust(8, b"\0"))
        data = _Data(start + offset, declared, start + 8, order + "I")
    elif magic == b"NIST":
        data = _nist_data(file, start)
    else:
        kind = next(kind for kind in _FORMATS if kind.magic == magic)
        data = _find_data(file, kind, start)
    if data is None or data.start > file.size:
        layout.parts.append(Part(start, file.size))
        return None
    present = file.size - data.start
    if data.declared > present and not _is_unknown(data):
        raise AudioError(
            f"{name}: cut short: {present} of {data.declared} bytes of audio are there; {COPY_AGAIN}"
        )
    if _is_unknown(data):
        end, rest = file.size, file.size
    else:
        end = data.start + data.declared
        rest = _skip_chunks(file, kind, magic, end)
    if start < rest < file.size and file.at(rest, 4) == magic:
        layout.parts.append(Part(start, rest))
        return rest
    behind = file.size - rest
    if data.declared == 0 and behind:
        end = file.size
    elif behind and not is_tag(file.at(rest, 12)) and not file.is_zero(rest):
        if behind < _MIN_BEHIND or (magic == b"caff" and file.at(start + 28, 4) not in _CAF_SAMPLES):
            layout.warnings.append(f"{behind} bytes behind the audio were left out")
        else:
            layout.warnings.append(
                f"its header declares {data.declared} bytes of audio, and {behind} more follow; all were read"
            )
            end = file.size
    patches: tuple[tuple[int, bytes], ...] = ()
    if end != data.start + data.declared and data.field is not None:
        patches = ((data.field - start, _pack(data.size, end - data.start + _extra(kind))),)
    layout.parts.append(Part(start, file.size, patches))
    return None


def _extra(kind: _Format | None) -> int:
    return kind.name_size + struct.calcsize(kind.size) if kind is not None and kind.counts_header else 0


def _pack(size: str, value: int) -> bytes:
    return struct.pack(size, min(value, 0xFFFFFFFF) if struct.calcsize(size) == 4 else value)


def _is_unknown(data: _Data) -> bool:
    if struct.calcsize(data.size) == 8:
        return data.declared < 0 or data.declared >= 1 << 62
    return any(abs(data.declared - value) <= _PLACEHOLDER_SPREAD for value in _PLACEHOLDERS)


def _find_data(file: Bytes, kind: _Format, start: int) -> _Data | None:
    at, long_size = start + kind.header, None
    while (chunk := _chunk(file, kind, at)) is not None:
        name, body, declared = chunk
        if name == b"ds64":
            long_size = _Data(0, int.from_bytes(file.at(body + 8, 8), "little", signed=True), body + 8, "<q")
        elif name == kind.data:
            if long_size is not None and declared == 0xFFFFFFFF:
                return long_size._replace(start=body)
            return _Data(body, declared, at + kind.name_size, kind.size)
        if declared < 0 or body + declared > file.size:
            return None
        at = body + declared + -declared % kind.align
    return None


def _nist_data(file: Bytes, start: int) -> _Data | None:
    """Samples of a SPHERE file; its header is lines of a name, a type and a value. None where compressed."""
    header = file.at(start, 1024)
    fields = {words[0]: words[2] for line in header.split(b"\n") if len(words := line.split()) == 3}
    try:
        size = int(header.split()[1])
        count, width = int(fields[b"sample_count"]), int(fields[b"sample_n_bytes"])
        channels = int(fields.get(b"channel_count", b"1"))
    except (IndexError, KeyError, ValueError):
        return None
    if b"," in fields.get(b"sample_coding", b"pcm"):  # "pcm,embedded-shorten-v2.00"
        return None
    return _Data(start + size, count * channels * width, None, "<q")


def _chunk(file: Bytes, kind: _Format, at: int) -> tuple[bytes, int, int] | None:
    """Name, first byte of the content, and size of the chunk at an offset; None at the file's end."""
    width = kind.name_size + struct.calcsize(kind.size)
    head = file.at(at, width)
    if len(head) < width:
        return None
    (size,) = struct.unpack(kind.size, head[kind.name_size :])
    return head[:4], at + width, size - (width if kind.counts_header else 0)


def _skip_chunks(file: Bytes, kind: _Format | None, magic: bytes, at: int) -> int:
    """Offset behind the chunks that follow the audio: the file's end, another recording, or other bytes."""
    if kind is None:
        return at
    # A few writers leave out the bytes that fill up a chunk, or have one where none belongs.
    rests = [_skip_from(file, kind, magic, start) for start in (at + -at % kind.align, at, at + 1)]
    for rest in rests:
        if rest == file.size or file.at(rest, 4) == magic or is_tag(file.at(rest, 12)):
            return rest
    return rests[1]


def _skip_from(file: Bytes, kind: _Format, magic: bytes, at: int) -> int:
    while (chunk := _chunk(file, kind, at)) is not None:
        name, body, size = chunk
        is_chunk = all(32 <= byte < 127 for byte in name) and 0 <= size <= file.size - body
        if name == magic or not is_chunk:
            return at
        at = body + size + -size % kind.align
    return file.size if file.size - at < kind.name_size + struct.calcsize(kind.size) else at


def voc_layout(file: Bytes, name: str, start: int = 0) -> Layout:
    """Check the blocks of a Creative Voice file.

    Raises:
        AudioError: a block that ends behind the file's end.
    """
    at = start + int.from_bytes(file.at(start + 20, 2), "little")
    while at < file.size and (head := file.at(at, 4))[0]:
        at += 4 + int.from_bytes(head[1:4], "little")
    if at > file.size:
        raise AudioError(f"{name}: cut short: its last block lacks {at - file.size} bytes; {COPY_AGAIN}")
    end = min(at + 1, file.size)
    layout = Layout([Part(start, end)])
    if file.at(end, 8) == b"Creative":
        layout.parts += voc_layout(file, name, end).parts
    elif not file.is_zero(end):
        layout.warnings.append(f"{file.size - end} bytes behind the audio were left out")
    return layout
