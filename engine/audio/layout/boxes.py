"""Layout of files whose containers nest: MP4 and QuickTime (boxes), Matroska and WebM (EBML)."""

from ..errors import CONVERT, COPY_AGAIN, AudioError
from .parts import Bytes, Layout, Part

_INDEX, _DATA = b"moov", b"mdat"
_UNKNOWN = -1  # size of an EBML element of a live stream: it ends where another one of its level begins
_SEGMENT, _CLUSTER, _EBML = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\x1a\x45\xdf\xa3"
_MAX_ID, _MAX_SIZE = 4, 8  # bytes


def mp4_layout(file: Bytes, name: str, start: int = 0) -> Layout:
    """Check that the boxes of an MP4, M4A, 3GP or QuickTime file are whole and its index is there.

    Raises:
        AudioError: a box that ends behind the file's end, or no index.
    """
    at, kinds = start, set()
    while at + 8 <= file.size:
        head = file.at(at, 16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if not all(32 <= byte < 127 or byte == 0xA9 for byte in kind):
            break
        kinds.add(kind)
        if size == 0:  # to the file's end
            at = file.size
        elif size < 8:
            break
        at += size
    if at > file.size:
        raise AudioError(
            f"{name}: cut short: {at - file.size} bytes of its last part ({kind.decode('latin-1')}) are missing; "
            f"{COPY_AGAIN}"
        )
    if _INDEX not in kinds and _DATA in kinds:
        raise AudioError(
            f"{name}: cut short, or never finished: its index (moov) is missing; copy it again, or have it "
            "repaired with a whole recording of the same device (untrunc)"
        )
    layout = Layout([Part(start, file.size)])
    if at < file.size and not file.is_zero(at):
        layout.warnings.append(f"{file.size - at} bytes behind its end were left out")
    return layout


def ebml_layout(file: Bytes, name: str, start: int = 0) -> Layout:
    """Check that the elements of a Matroska or WebM file are whole; joined files become parts.

    Raises:
        AudioError: an element that ends behind the file's end, or bytes that are no element.
    """
    layout, begin, at = Layout([]), start, start
    while at < file.size:
        element = _element(file, at)
        if element is None:
            if file.is_zero(at):
                break
            raise AudioError(f"{name}: damaged: byte {at} begins no element of Matroska; {CONVERT}")
        kind, body, size = element
        if kind == _EBML and at > begin:
            layout.parts.append(Part(begin, at))
            begin = at
        # The content of these is walked: that of a live stream has no size.
        if kind == _SEGMENT or size == _UNKNOWN:
            if size != _UNKNOWN and body + size > file.size:
                at = body + size
                break
            at = body
        else:
            at = body + size
    if at > file.size:
        raise AudioError(
            f"{name}: cut short: {at - file.size} bytes of its last part are missing; {COPY_AGAIN}"
        )
    layout.parts.append(Part(begin, file.size))
    return layout


def _element(file: Bytes, at: int) -> tuple[bytes, int, int] | None:
    """Id, first byte of the content, and size of the element at an offset; None where none begins."""
    head = file.at(at, _MAX_ID + _MAX_SIZE)
    id_width = _width(head[:1])
    if not 0 < id_width <= _MAX_ID or len(head) <= id_width:
        return None
    width = _width(head[id_width : id_width + 1])
    if not 0 < width <= _MAX_SIZE:
        return None
    if len(head) < id_width + width:
        return head[:id_width], file.size, 1
    size = int.from_bytes(head[id_width : id_width + width], "big") & (1 << 7 * width) - 1
    if size == (1 << 7 * width) - 1:
        size = _UNKNOWN
    return head[:id_width], at + id_width + width, size


def _width(first: bytes) -> int:
    """Bytes of a number of variable width, from the zeros that its first byte begins with."""
    return 9 - first[0].bit_length() if first and first[0] else 0
