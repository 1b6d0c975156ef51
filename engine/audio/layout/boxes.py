"""Layout of files whose containers nest: MP4 and QuickTime (boxes), Matroska and WebM (EBML)."""

from ..errors import CONVERT, COPY_AGAIN, AudioError
from .parts import Bytes, Layout, Part

_INDEX = b"moov"
_BOXES = {  # of the top level
    *(
        b"ftyp",
        b"moov",
        b"mdat",
        b"free",
        b"skip",
        b"wide",
        b"pnot",
        b"udta",
        b"uuid",
        b"meta",
        b"pdin",
        b"styp",
    ),
    *(
        b"moof",
        b"mfra",
        b"sidx",
        b"ssix",
        b"emsg",
        b"prft",
        b"PICT",
        b"junk",
        b"jumb",
        b"bloc",
        b"imda",
        b"thum",
    ),
}
_UNKNOWN = -1  # size of an EBML element of a live stream: it ends where another one of its level begins
_EBML, _SEGMENT, _CLUSTER = "1a45dfa3", "18538067", "1f43b675"
_ELEMENTS = {  # of a file, a segment and a cluster
    *(
        _EBML,
        _SEGMENT,
        _CLUSTER,
        "114d9b74",
        "1549a966",
        "1654ae6b",
        "1c53bb6b",
        "1941a469",
        "1043a770",
        "1254c367",
    ),
    *("ec", "bf", "e7", "a3", "a0", "ab", "a7", "af", "5854"),
}
_MAX_ID, _MAX_SIZE = 4, 8  # bytes


def mp4_layout(file: Bytes, name: str, start: int = 0) -> Layout:
    """Check that the boxes of an MP4, M4A, 3GP or QuickTime file are whole and its index is there.

    Files joined end to end become parts.

    Raises:
        AudioError: a box that ends behind the file's end, or no index.
    """
    layout, begin, at = Layout([]), start, start
    kinds: set[bytes] = set()
    while at + 8 <= file.size:
        head = file.at(at, 16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if kind not in _BOXES or 0 < size < 8:
            break
        if kind == b"ftyp" and _INDEX in kinds:
            layout.parts.append(Part(begin, at))
            begin, kinds = at, set()
        kinds.add(kind)
        at = at + size if size else file.size
    if at > file.size:
        raise AudioError(
            f"{name}: cut short: {at - file.size} bytes of its last part are missing; {COPY_AGAIN}"
        )
    if _INDEX not in kinds:
        raise AudioError(
            f"{name}: cut short, damaged or never finished: its index (moov) is missing; copy it again, or "
            "repair it with another recording of the device (untrunc)"
        )
    layout.parts.append(Part(begin, file.size))
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
        # Blocks of audio are walked one by one: those of a live stream stand in clusters without a size.
        is_entered = kind in (_SEGMENT, _CLUSTER) and (size == _UNKNOWN or body + size <= file.size)
        at = body if is_entered else body + size
    if at > file.size:
        raise AudioError(
            f"{name}: cut short: {at - file.size} bytes of its last part are missing; {COPY_AGAIN}"
        )
    layout.parts.append(Part(begin, file.size))
    return layout


def _element(file: Bytes, at: int) -> tuple[str, int, int] | None:
    """Id, first byte of the content, and size of the element at an offset; None where no known one begins."""
    head = file.at(at, _MAX_ID + _MAX_SIZE)
    id_width = _width(head[:1])
    kind = head[:id_width].hex()
    width = _width(head[id_width : id_width + 1])
    if len(head) < id_width + max(width, 1):  # cut in the element's head
        return kind, file.size, 1
    if kind not in _ELEMENTS or width > _MAX_SIZE:
        return None
    size = int.from_bytes(head[id_width : id_width + width], "big") & (1 << 7 * width) - 1
    is_unknown = size == (1 << 7 * width) - 1 and kind in (_SEGMENT, _CLUSTER)
    return kind, at + id_width + width, _UNKNOWN if is_unknown else size


def _width(first: bytes) -> int:
    """Bytes of a number of variable width, from the zeros that its first byte begins with."""
    return 9 - first[0].bit_length() if first and first[0] else 0


def flv_layout(file: Bytes, name: str, start: int = 0) -> Layout:
    """Check the tags of a Flash video; joined files become parts.

    Raises:
        AudioError: a tag that ends behind the file's end, or bytes that are no tag.
    """
    layout, begin, at = Layout([]), start, start
    while at < file.size:
        head = file.at(at, 13)
        if head[:3] == b"FLV" and len(head) == 13:
            if at > begin:
                layout.parts.append(Part(begin, at))
            begin, at = at, at + 13
            continue
        if head[0] & 0x1F not in (8, 9, 18):
            if file.is_zero(at):
                break
            raise AudioError(f"{name}: damaged: byte {at} begins no tag of Flash video; {COPY_AGAIN}")
        at += 15 + int.from_bytes(head[1:4], "big")
    # The last four bytes repeat the tag's size, and some writers leave them out.
    if at > file.size + 4:
        raise AudioError(
            f"{name}: cut short: {at - file.size} bytes of its last part are missing; {COPY_AGAIN}"
        )
    layout.parts.append(Part(begin, file.size))
    return layout


def avi_layout(file: Bytes, name: str, start: int = 0) -> Layout:
    """Check the chunks of an AVI video, down to those of one frame; joined files become parts.

    Raises:
        AudioError: a chunk that ends behind the file's end, or bytes that are no chunk.
    """
    layout, begin, at = Layout([]), start, start
    while at + 8 <= file.size:
        head = file.at(at, 12)
        kind, size = head[:4], int.from_bytes(head[4:8], "little")
        if kind == b"RIFF" and head[8:] == b"AVI " and at > begin:
            layout.parts.append(Part(begin, at))
            begin = at
        if not all(32 <= byte < 127 for byte in kind):
            if file.is_zero(at):
                break
            raise AudioError(f"{name}: damaged: byte {at} begins no chunk of AVI; {COPY_AGAIN}")
        # What holds other chunks is entered: a recorder that was cut off left its size 0.
        at += (
            12
            if kind == b"RIFF" or (kind == b"LIST" and head[8:] in (b"movi", b"rec "))
            else 8 + size + size % 2
        )
    if at > file.size + 1:
        raise AudioError(
            f"{name}: cut short: {at - file.size} bytes of its last part are missing; {COPY_AGAIN}"
        )
    layout.parts.append(Part(begin, file.size))
    return layout
