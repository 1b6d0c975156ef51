"""Layout of Ogg files: chained streams, missing pages, a missing end."""

from ..errors import COPY_AGAIN, AudioError
from .parts import Bytes, Layout, Part

_FIRST, _LAST = 2, 4  # flags of a page
_HEADER = 27  # bytes before the segment table


def ogg_layout(file: Bytes, name: str, start: int = 0) -> Layout:
    """Find the recordings of an Ogg file, one after the other where they are chained.

    Raises:
        AudioError: pages are missing in the middle or at the end.
    """
    layout = Layout([])
    at, begin, skipped = start, start, 0
    pages: dict[bytes, int] = {}  # number of the last page of each stream
    only_first, ended = True, False
    while at < file.size:
        header = file.at(at, _HEADER + 255)
        if header[:4] != b"OggS":
            following = file.find(b"OggS", at + 1)
            skipped += following - at
            at = following
            continue
        length = (
            _HEADER + header[26] + sum(header[_HEADER : _HEADER + header[26]]) if len(header) > 26 else 27
        )
        if at + length > file.size:
            break
        flags, serial, number = header[5], header[14:18], int.from_bytes(header[18:22], "little")
        if flags & _FIRST and not only_first:
            _check_end(ended, name)
            layout.parts.append(Part(begin, at))
            begin, only_first, ended = at, True, False
            pages.clear()
        if serial in pages and number > pages[serial] + 1:
            missing = number - pages[serial] - 1
            raise AudioError(f"{name}: damaged: {missing} of its pages are missing; {COPY_AGAIN}")
        pages[serial] = number
        only_first = only_first and bool(flags & _FIRST)
        ended = ended or bool(flags & _LAST)
        at += length
    _check_end(ended, name)
    layout.parts.append(Part(begin, file.size))
    if skipped:
        layout.warnings.append(f"{skipped} bytes between its pages are not audio, and were left out")
    return layout


def _check_end(ended: bool, name: str) -> None:
    if not ended:
        raise AudioError(f"{name}: cut short: its last page is missing; {COPY_AGAIN}")
