"""Layout of MPEG transport streams: packets of one size, numbered in each stream."""

import numpy as np

from ..errors import COPY_AGAIN, AudioError
from .parts import Bytes, Layout, Part

_SYNC = 0x47
# Bytes of a packet, and the offset of its first one: .ts, .m2ts, with parity.
_SIZES = ((188, 0), (192, 4), (204, 0))
_BLOCK = 4096  # packets looked at together
_NULL = 0x1FFF  # stream of padding, whose packets have no numbers


def packet_size(file: Bytes, start: int) -> tuple[int, int] | None:
    """Bytes of a packet, and the offset of its sync byte; None for another format."""
    for size, offset in _SIZES:
        if all(file.at(start + offset + size * index, 1) == b"\x47" for index in range(4)):
            return size, offset
    return None


def transport_layout(file: Bytes, name: str, start: int, size: int, offset: int) -> Layout:
    """Check that packets follow one another, by their first byte and their numbers.

    Raises:
        AudioError: bytes that begin no packet, or a cut last packet.
    """
    layout = Layout([Part(start, file.size)])
    last = np.full(1 << 13, -1)  # number of the last packet of each stream
    lost = 0
    for at in range(start, file.size, size * _BLOCK):
        content = np.frombuffer(file.at(at, size * _BLOCK), np.uint8)
        packets = content[: len(content) // size * size].reshape(-1, size)[:, offset:]
        wrong = np.flatnonzero(packets[:, 0] != _SYNC)
        if len(wrong):
            where = at + int(wrong[0]) * size
            if file.is_zero(where):
                break
            raise AudioError(f"{name}: damaged: byte {where} begins no packet; {COPY_AGAIN}")
        if len(content) % size:
            raise AudioError(f"{name}: cut short: its last packet is not whole; {COPY_AGAIN}")
        lost += _lost(packets, last)
    if lost:
        layout.warnings.append(f"packets are missing in {lost} places")
    return layout


def _lost(packets: np.ndarray, last: np.ndarray) -> int:
    """Number of places where a stream's numbers do not follow one another."""
    streams = (packets[:, 1] & 0x1F).astype(np.int64) << 8 | packets[:, 2]
    has_payload = packets[:, 3] & 0x10 != 0
    # A new recording may begin anywhere, with numbers from 0; so may one that says so.
    begins = (packets[:, 1] & 0x40 != 0) & (packets[:, 3] & 0xF == 0)
    begins |= (packets[:, 3] & 0x20 != 0) & (packets[:, 4] > 0) & (packets[:, 5] & 0x80 != 0)
    lost = 0
    for stream in np.unique(streams[has_payload & (streams != _NULL)]):
        chosen = (streams == stream) & has_payload
        numbers = (packets[chosen, 3] & 0xF).astype(np.int64)
        before = np.concatenate([[last[stream] if last[stream] >= 0 else numbers[0]], numbers[:-1]])
        step = (numbers - before) & 0xF
        lost += int(np.count_nonzero((step > 1) & ~begins[chosen]))
        last[stream] = numbers[-1]
    return lost
