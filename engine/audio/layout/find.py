"""Choice of a file's layout and decoder, by its first bytes."""

from enum import Enum

from .boxes import avi_layout, ebml_layout, flv_layout, mp4_layout
from .chunks import chunk_layout, voc_layout
from .frames import AC3, ADTS, MPEG, amr_layout, frame_layout, skip_tags
from .ogg import ogg_layout
from .parts import Bytes, Layout, Part
from .transport import packet_size, transport_layout


class Decoder(Enum):
    """Library that is tried first; PyAV follows where libsndfile refuses."""

    LIBSNDFILE = 1
    PYAV = 2


# Formats without a layout here that libsndfile reads. Not MIDI sample dumps (SDS), for which it prints to
# standard output, nor MP3, for which libmpg123 prints to standard error.
_LIBSNDFILE = (
    *(b"NIST_1A", b" paf", b"fap ", b"PVF1"),
    *(b"\x64\xa3\x01\x00", b"\x64\xa3\x02\x00", b"\x64\xa3\x03\x00", b"\x00\x00\xa3\x64"),
    *(b"\x00\x01\xa3\x64", b"\x00\x02\xa3\x64", b"\x00\x03\xa3\x64"),
)


_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_MAGICS = (
    *(
        b"RIFF",
        b"RIFX",
        b"RF64",
        b"BW64",
        b"FORM",
        b"riff",
        b"caff",
        b".snd",
        b"dns.",
        b"OggS",
        b"fLaC",
        b"ID3",
    ),
    *(b"\x1a\x45\xdf\xa3", b"#!AMR", b"FLV", b"\x30\x26\xb2\x75"),
)


def find_layout(file: Bytes, name: str) -> tuple[Layout, Decoder]:
    """Find the parts of a file and the decoder for them.

    Raises:
        AudioError: a file that is known to be cut or damaged.
    """
    start = skip_tags(file, 0)
    head = file.at(start, 20)
    form = head[8:12]
    if (
        (head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and form == b"WAVE")
        or (head[:4] == b"FORM" and form in (b"AIFF", b"AIFC"))
        or head[:4] in (b"riff", b"caff", b".snd", b"dns.", b"NIST")
    ):
        return chunk_layout(file, name, start), Decoder.LIBSNDFILE
    if head[:4] == b"OggS":
        return ogg_layout(file, name, start), Decoder.LIBSNDFILE
    if head[:4] == b"fLaC":
        return _flac_layout(file, start), Decoder.LIBSNDFILE
    if head[4:8] in _BOXES:
        return mp4_layout(file, name, start), Decoder.PYAV
    if head[:19] == b"Creative Voice File":
        return voc_layout(file, name, start), Decoder.LIBSNDFILE
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return ebml_layout(file, name, start), Decoder.PYAV
    if head[:4] == b"RIFF" and form == b"AVI ":
        return avi_layout(file, name, start), Decoder.PYAV
    if head[:3] == b"FLV":
        return flv_layout(file, name, start), Decoder.PYAV
    if head[:5] == b"#!AMR":
        return amr_layout(file, name, start), Decoder.PYAV
    if (packet := packet_size(file, start)) is not None:
        return transport_layout(file, name, start, *packet), Decoder.PYAV
    for frames in (ADTS, MPEG, AC3):
        length = frames.length(file.at(start, 200))
        if length and (start + length >= file.size or frames.length(file.at(start + length, 200))):
            return frame_layout(file, name, frames, start), Decoder.PYAV
    is_known = head.startswith(_LIBSNDFILE) or head[8:12] == b"\x00\x02\x00\x00"  # HTK: two bytes a sample
    return Layout([Part(start, file.size)]), Decoder.LIBSNDFILE if is_known else Decoder.PYAV


def has_header(file: Bytes) -> bool:
    """Check whether a file begins like one of a format with a header."""
    head = file.at(0, 16)
    return head.startswith(_MAGICS + _LIBSNDFILE) or head[4:8] in _BOXES


def _flac_layout(file: Bytes, start: int) -> Layout:
    has_tag = file.at(max(file.size - 128, start), 3) == b"TAG"
    return Layout([Part(start, file.size - 128 if has_tag else file.size)])
