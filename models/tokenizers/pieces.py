"""Bytes of pieces: a vocabulary's spelling of a token, turned back into its part of a text."""

import re

_BOUNDARY = "▁"  # SentencePiece's mark of a space
_BYTE = re.compile("<0x([0-9A-F]{2})>")
_SELF = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}  # bytes that byte-level BPE leaves


def _byte_letters() -> dict[str, int]:
    """Byte of each letter of byte-level BPE: itself, or one from 256 on where it would not be printed."""
    others = sorted(set(range(256)) - _SELF)
    return {chr(one): one for one in _SELF} | {chr(256 + place): one for place, one in enumerate(others)}


_BYTE_LETTERS = _byte_letters()


def byte_level_bytes(piece: str) -> bytes:
    """Bytes of a piece of byte-level BPE, which may be a part of a character."""
    if not all(letter in _BYTE_LETTERS for letter in piece):
        return piece.encode()  # no piece of the training, but added by hand
    return bytes(_BYTE_LETTERS[letter] for letter in piece)


def sentencepiece_bytes(piece: str) -> bytes:
    """Bytes of a piece of SentencePiece, with the space before a word."""
    byte = _BYTE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace(_BOUNDARY, " ").encode()


def word_piece_bytes(piece: str, prefix: str) -> bytes:
    """Bytes of a piece of WordPiece, with the space before a word; others bear the prefix."""
    return piece.removeprefix(prefix).encode() if piece.startswith(prefix) else f" {piece}".encode()
