"""Layout of streams of frames: MP3 and its kin, AAC in ADTS, AMR.

Such a file has no length but in an optional first frame (Xing, Info, VBRI). Decoders look for the next frame
wherever one does not follow the other, so what lies between is lost in silence; here it is counted.
"""

from collections.abc import Callable
from typing import NamedTuple

from ..errors import COPY_AGAIN, AudioError
from .parts import Bytes, Layout, Part, is_tag

_BIT_RATES = {  # kbit/s, by (is MPEG-1, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_AC3_BIT_RATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_RATES = (44_100, 48_000, 32_000)  # Hz, of MPEG-1
_AMR = {  # bytes of a frame, by its type
    b"#!AMR\n": (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1),
    b"#!AMR-WB\n": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1),
}
_HEAD = 200  # bytes of a frame that are looked at: those up to a VBRI or Xing header's number of frames
_MAX_PARTIAL = (
    2_881  # bytes of the longest MPEG frame: the rest of one may come first in a stream's recording
)


class FrameFormat(NamedTuple):
    """First byte of each frame, and the length in bytes of the frame that some bytes begin (0: of none)."""

    sync: bytes
    length: Callable[[bytes], int]


def mpeg_frame(head: bytes) -> int:
    """Bytes of the MPEG-1 or 2 audio frame (MP1, MP2, MP3) that these bytes begin; 0 where none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate_index, padding = head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or rate_index == 3 or head[2] >> 4 in (0, 15):
        return 0
    bits = 1000 * _BIT_RATES[version == 3, layer][head[2] >> 4]
    rate = _RATES[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        return (12 * bits // rate + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // rate + padding


def adts_frame(head: bytes) -> int:
    """Bytes of the AAC frame in ADTS that these bytes begin; 0 where none."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else 0


def ac3_frame(head: bytes) -> int:
    """Bytes of the AC-3 or E-AC-3 frame that these bytes begin; 0 where none."""
    if len(head) < 6 or head[:2] != b"\x0b\x77":
        return 0
    if head[5] >> 3 > 10:  # E-AC-3
        return 2 * ((head[2] & 7) << 8 | head[3]) + 2
    rate_index, code = head[4] >> 6, head[4] & 63
    if rate_index == 3 or code >= 2 * len(_AC3_BIT_RATES):
        return 0
    bits = 1000 * _AC3_BIT_RATES[code >> 1]
    words = bits * 1536 // 16 // (48_000, 44_100, 32_000)[rate_index]
    return 2 * (words + (code & 1 if rate_index == 1 else 0))


MPEG, ADTS, AC3 = (
    FrameFormat(b"\xff", mpeg_frame),
    FrameFormat(b"\xff", adts_frame),
    FrameFormat(b"\x0b", ac3_frame),
)


def amr_layout(file: Bytes, name: str, start: int = 0) -> Layout:
    """Check the frames of an AMR file (RFC 4867), narrow or wide band; joined files have a header each.

    Raises:
        AudioError: bytes that are no frame, or a cut last frame.
    """
    head = file.at(start, 9)
    magic = b"#!AMR-WB\n" if head == b"#!AMR-WB\n" else b"#!AMR\n"
    if not head.startswith(magic):  # several channels
        return Layout([Part(start, file.size)])
    layout, begin, at = Layout([]), start, start + len(magic)
    while at < file.size:
        if file.at(at, len(magic)) == magic:
            layout.parts.append(Part(begin, at))
            begin, at = at, at + len(magic)
            continue
        kind = file.at(at, 1)[0]
        length = _AMR[magic][kind >> 3 & 15]
        if not length or not kind & 4:  # the bit of a good frame
            raise AudioError(f"{name}: damaged: byte {at} begins no good frame; {COPY_AGAIN}")
        at += length
    if at > file.size:
        raise AudioError(f"{name}: cut short: its last frame lacks {at - file.size} bytes; {COPY_AGAIN}")
    layout.parts.append(Part(begin, file.size))
    return layout


def skip_tags(file: Bytes, at: int) -> int:
    """Offset behind the tags (ID3v2, APE) at an offset."""
    while True:
        head = file.at(at, 32)
        if head[:3] == b"ID3" and len(head) >= 10 and all(byte < 128 for byte in head[6:10]):
            size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
            at = min(at + 10 + size + (10 if head[5] & 16 else 0), file.size)
        elif head[:8] == b"APETAGEX" and len(head) == 32 and head[23] & 0x20:
            at = min(at + 32 + int.from_bytes(head[12:16], "little"), file.size)
        else:
            return at


def frame_layout(file: Bytes, name: str, frames: FrameFormat, start: int = 0) -> Layout:
    """Find the recordings of a stream of frames: a frame with a length begins each one that was joined.

    Raises:
        AudioError: fewer frames than declared, a cut last frame, or bytes between frames that are no frame.
    """
    layout, begin, end, at = Layout([]), start, start, start
    declared: int | None = None
    count = 0  # frames since `begin`
    while at < file.size:
        head = file.at(at, _HEAD)
        length = frames.length(head)
        if length:
            total = _declared_frames(head) if frames is MPEG else None
            if total is not None:
                if count:
                    _check_count(count, declared, name)
                    layout.parts.append(Part(begin, end))
                begin, declared, count = at, total, -1  # the frame itself holds no audio
            at, count = at + length, count + 1
            end = at
            continue
        behind = skip_tags(file, at)
        if behind == at:
            behind = _find_frame(file, at, frames)
            if behind == file.size and (is_tag(head) or _is_ape_end(file)):
                break
            _check_gap(file, at, behind, count, layout, name)
        at = behind
    if at > file.size:
        raise AudioError(f"{name}: cut short: its last frame lacks {at - file.size} bytes; {COPY_AGAIN}")
    _check_count(count, declared, name)
    layout.parts.append(Part(begin, end))
    return layout


def _check_gap(file: Bytes, at: int, behind: int, count: int, layout: Layout, name: str) -> None:
    size = behind - at
    if count <= 0 and size <= _MAX_PARTIAL:  # a broadcast recorded from the middle of a frame on
        return
    if behind < file.size and count > 0 and file.at(at, size).strip(b"\0"):
        raise AudioError(f"{name}: damaged: {size} bytes from byte {at} on are no audio; {COPY_AGAIN}")
    if behind < file.size or not file.is_zero(at):
        layout.warnings.append(f"{size} bytes from byte {at} on are not audio, and were left out")


def _find_frame(file: Bytes, at: int, frames: FrameFormat) -> int:
    """Offset of the next frame that another one follows; the file's size where there is none."""
    while (at := file.find(frames.sync, at + 1)) < file.size:
        length = frames.length(file.at(at, _HEAD))
        if length and (at + length == file.size or frames.length(file.at(at + length, _HEAD))):
            return at
    return file.size


def _declared_frames(head: bytes) -> int | None:
    """Number of frames in a Xing, Info or VBRI header; None where there is none."""
    if head[36:40] == b"VBRI":
        return int.from_bytes(head[50:54], "big")
    is_mpeg1, is_mono = head[1] >> 3 & 3 == 3, head[3] >> 6 == 3
    at = 4 + ((17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17))
    if head[at : at + 4] not in (b"Xing", b"Info") or len(head) < at + 12:
        return None
    return int.from_bytes(head[at + 8 : at + 12], "big") if head[at + 7] & 1 else 0


def _check_count(count: int, declared: int | None, name: str) -> None:
    # Some writers count the frame of the header too.
    if declared and count + 1 < declared:
        raise AudioError(f"{name}: cut short: {count} of {declared} frames are there; {COPY_AGAIN}")


def _is_ape_end(file: Bytes) -> bool:
    """Check whether an APE tag, alone or before an ID3v1 tag, ends the file."""
    return any(file.at(max(file.size - size, 0), 8) == b"APETAGEX" for size in (32, 32 + 128))
