"""Decoding of a source of encoded audio: its parts in order, each by the library that reads it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from ...models.checkpoints.contents import stand_in
from . import flac, g711, libsndfile, pyav
from .blocks import Block, Header
from .errors import AudioError
from .formats import HEADERLESS, Headerless
from .layout.find import Decoder, find_layout, has_header
from .layout.parts import Bytes, Part
from .sources import Source, window

ENCODINGS = ("mulaw", "alaw")


def decode(source: Source, encoding: str | None, rate: int | None, warnings: list[str]) -> Iterator[Block]:
    """Decode a source from its start to its end.

    Args:
        source: encoded audio.
        encoding: "mulaw" or "alaw" for audio without a header.
        rate: sampling rate in Hz of audio without a header; the usual one of its encoding by default.
        warnings: list that gains what was passed over.

    Raises:
        AudioError: not audio, damaged, or cut.
    """
    with source.open() as file:
        raw = _headerless(source, file, encoding)
        if raw is not None:
            yield from _decode_headerless(raw, file, source.name, rate, warnings)
            return
        layout, decoder = find_layout(Bytes(file), source.name)
        for part in layout.parts:
            yield from _decode_part(source, file, part, decoder, warnings)
        warnings += layout.warnings


def read_header(source: Source, encoding: str | None = None, rate: int | None = None) -> Header:
    """Header of the first part, with the seconds of all, in proportion to their bytes.

    Args:
        source, encoding, rate: as of `decode`.

    Raises:
        AudioError: not audio, damaged, or cut.
    """
    with source.open() as file:
        if (raw := _headerless(source, file, encoding)) is not None:
            return Header(1, source.size / (rate or raw.rate) if raw.encoding in ENCODINGS else None)
        layout, decoder = find_layout(Bytes(file), source.name)
        part = layout.parts[0]
        content = window(file, part.start, part.stop, part.patches)
        header = None
        if decoder is Decoder.LIBSNDFILE:
            with suppress(libsndfile.UnsupportedError):
                header = libsndfile.read_header(content)
        if header is None:
            content.seek(0)
            header = pyav.read_header(content, source.name)
        if header.seconds is None or len(layout.parts) == 1:
            return header
        share = sum(one.stop - one.start for one in layout.parts) / (part.stop - part.start)
        return Header(header.channels, header.seconds * share)


def _headerless(source: Source, file: BinaryIO, encoding: str | None) -> Headerless | None:
    if encoding is not None:
        if encoding not in ENCODINGS:
            raise AudioError(f"{source.name}: encoding {encoding!r}; 'mulaw' and 'alaw' are known")
        return Headerless(encoding)
    if source.suffix in HEADERLESS and not has_header(Bytes(file)):
        return HEADERLESS[source.suffix]
    return None


def _decode_headerless(
    raw: Headerless, file: BinaryIO, name: str, rate: int | None, warnings: list[str]
) -> Iterator[Block]:
    if raw.encoding in ENCODINGS:
        return g711.decode(file, raw.encoding, rate or raw.rate)
    file.seek(0)
    return pyav.decode(file, name, warnings, raw.encoding, rate or raw.rate)


def _decode_part(
    source: Source, file: BinaryIO, part: Part, decoder: Decoder, warnings: list[str]
) -> Iterator[Block]:
    name = source.name
    if decoder is Decoder.LIBSNDFILE:
        try:
            if Bytes(file).at(part.start, 4) == b"fLaC":
                yield from flac.decode(window(file, part.start, part.stop, part.patches), name, warnings)
            elif source.path is not None and part == Part(0, source.size):
                # libsndfile reads a file descriptor faster than a Python file.
                os.lseek(file.fileno(), 0, os.SEEK_SET)
                yield from libsndfile.decode(file.fileno(), name)
            else:
                yield from libsndfile.decode(window(file, part.start, part.stop, part.patches), name)
            return
        except libsndfile.UnsupportedError:
            pass
    try:
        yield from pyav.decode(window(file, part.start, part.stop, part.patches), name, warnings)
    except AudioError as error:
        if (other := stand_in(Bytes(file).at(0, 256))) is not None:
            raise AudioError(f"{name}: is {other}") from error
        if source.suffix in (".raw", ".pcm") and "not audio" in str(error):
            raise AudioError(
                f"{name}: headerless audio; convert it: ffmpeg -f s16le -ar RATE -i IN out.wav"
            ) from error
        raise
