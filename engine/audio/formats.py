"""Formats of recordings: the suffixes that folders are searched for, and headerless encodings.

A file is opened by its content; suffixes only tell which files of a folder are recordings, and the encoding
of files without a header.
"""

from typing import NamedTuple


class Headerless(NamedTuple):
    """Encoding of samples without a header: its name, and the rate in Hz that is usual."""

    encoding: str
    rate: int = 8_000


# Telephone systems write these. "mulaw" and "alaw" are also what a caller may ask for.
HEADERLESS = {
    **dict.fromkeys((".ulaw", ".ul", ".mulaw", ".mu", ".pcmu", ".u"), Headerless("mulaw")),
    **dict.fromkeys((".alaw", ".al", ".pcma"), Headerless("alaw")),
    ".gsm": Headerless("gsm"),
    ".sln": Headerless("s16le"),
    ".sln16": Headerless("s16le", 16_000),
    ".g722": Headerless("g722", 16_000),
}

_MUSIC = (
    *("wav", "wave", "w64", "rf64", "bwf", "bw64", "flac", "fla", "ogg", "oga", "opus", "spx"),
    *("mp3", "mp2", "mp1", "mpa", "mpga", "m2a", "aif", "aiff", "aifc", "au", "snd", "caf"),
    *("sph", "nist", "voc", "paf", "sf", "ircam", "svx", "8svx", "iff", "pvf", "avr", "htk"),
    *("m4a", "m4b", "m4p", "m4r", "aac", "adts", "loas", "latm", "alac", "3ga", "wma", "xwma"),
    *("ape", "wv", "tta", "tak", "mpc", "mpp", "mp+", "dsf", "dff", "shn", "ofr", "la"),
    *("ac3", "eac3", "ec3", "ac4", "dts", "dtshd", "thd", "mlp", "truehd", "mka", "weba"),
    *("amr", "awb", "3gpp", "3gpp2", "qcp", "evrc", "dss", "ds2", "msv", "dvf", "vox", "aa", "aax"),
    *("ra", "rm", "ram", "rmvb", "oma", "aa3", "at3", "atrac"),
)
# Recordings with a picture. No .ts: it is TypeScript's suffix too, and cameras write .mts or .m2ts.
_FILM = (
    *("mp4", "m4v", "f4v", "f4a", "f4b", "mov", "qt", "3gp", "3g2", "mj2", "ismv", "isma"),
    *("mkv", "mk3d", "webm", "avi", "divx", "flv", "wmv", "asf", "dvr-ms", "wtv"),
    *("mpg", "mpeg", "mpe", "m1v", "m2v", "m2p", "vob", "evo", "dat", "mts", "m2ts", "m2t", "mod", "tod"),
    *("ogv", "ogm", "ogx", "mxf", "gxf", "dv", "dif", "nut", "nsv", "swf", "dav", "trp", "tp"),
)

# Suffixes of recordings, in lower case. Formats that cannot be decoded (.ofr, .dvf, .ram) are among them: a
# failure with a remedy is better than a recording silently skipped.
AUDIO_SUFFIXES = frozenset(f".{suffix}" for suffix in (*_MUSIC, *_FILM)) | HEADERLESS.keys()
