"""Lengths that a header gets wrong, joined, cut and damaged files: all is read, or a word says what not."""

import contextlib
import io
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile
from recordings import FORMATS, SOUNDFILE, encode
from watchdog import within

from tritone.engine.audio.layout.frames import mpeg_frame
from tritone.engine.audio.reader import AudioError, load_audio

RATE = 16_000
SECONDS = 4
# Frames that are whole, and nothing that tells how many there were.
WITHOUT_A_LENGTH = {"mp2", "ac3", "ts"}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Four seconds of noise that comes and goes, in every format."""
    samples = 0.1 * np.random.default_rng(0).standard_normal(SECONDS * RATE)
    samples *= np.sin(np.arange(len(samples)) / 3000)
    return {suffix: encode(samples.astype(np.float32), RATE, suffix) for suffix in (*SOUNDFILE, *FORMATS)}


def seconds(content: bytes) -> float:
    """Duration of what is read without a warning."""
    audio = load_audio(content, RATE)
    assert audio.warnings == ()
    return len(audio.samples) / RATE


def is_told(content: bytes, whole: float) -> bool:
    """Check that all is read, or that an error or a warning says otherwise."""
    try:
        audio = load_audio(content, RATE)
    except AudioError:
        return True
    return bool(audio.warnings) or len(audio.samples) / RATE > whole - 0.1


@pytest.mark.parametrize("suffix", [*SOUNDFILE, *(one for one in FORMATS if one not in ("wma", "wv"))])
def test_two_files_joined_give_both(files, suffix):
    content = files[suffix]
    assert seconds(content + content) == pytest.approx(2 * seconds(content), abs=0.15)


@pytest.mark.parametrize("suffix", ["wma", "wv"])
def test_a_second_file_that_cannot_be_read_is_told(files, suffix):
    assert is_told(files[suffix] * 2, 2 * SECONDS)


@pytest.mark.parametrize("suffix", [*SOUNDFILE, *FORMATS])
@pytest.mark.parametrize("share", [0.35, 0.5, 0.9])
def test_a_cut_file_is_an_error(files, suffix, share):
    content = files[suffix]
    size = int(len(content) * share)
    if suffix in WITHOUT_A_LENGTH:
        size += 10 - size % 188  # in the middle of a packet or frame
    with pytest.raises(AudioError):
        load_audio(content[:size], RATE)


@pytest.mark.parametrize("suffix", [*SOUNDFILE, *FORMATS])
@pytest.mark.parametrize("kind", ["zeros", "noise", "removed", "inserted"])
def test_damage_in_the_middle_is_never_a_shorter_recording_without_a_word(files, suffix, kind):
    content = files[suffix]
    middle = len(content) // 2
    noise = np.random.default_rng(1).bytes(3000)
    put = {"zeros": bytes(3000), "noise": noise, "removed": b"", "inserted": noise}[kind]
    rest = content[middle:] if kind == "inserted" else content[middle + 3000 :]
    assert is_told(content[:middle] + put + rest, seconds(content))


@pytest.mark.parametrize("suffix", [*SOUNDFILE, *FORMATS])
def test_bytes_behind_the_audio_are_told_and_zeros_are_nothing(files, suffix):
    content = files[suffix]
    assert is_told(content + bytes(5000), seconds(content))
    junk = content + b"\x13 junk " * 1000
    try:
        audio = load_audio(junk, RATE)
    except AudioError:
        return
    assert audio.warnings


def wav(data: bytes, declared: int, behind: bytes = b"") -> bytes:
    """A PCM file that declares a number of bytes."""
    header = b"RIFF" + struct.pack("<I", (36 + declared) & 0xFFFFFFFF) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return header + b"data" + struct.pack("<I", declared) + data + behind


PCM = (np.random.default_rng(2).standard_normal(RATE) * 3000).astype("<i2").tobytes()


@pytest.mark.parametrize(
    "declared", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFFFFF - 36, 0xFFFFFFFF - 36]
)
def test_a_wav_of_unknown_length_is_read_to_its_end(declared):
    assert seconds(wav(PCM, declared)) == 1.0


def test_samples_behind_the_declared_ones_are_read_and_told():
    audio = load_audio(wav(PCM, len(PCM) // 4), RATE)
    assert len(audio.samples) == RATE
    assert "more follow; all were read" in audio.warnings[0]


def test_chunks_and_tags_behind_the_samples_are_no_samples():
    note = b"LIST" + struct.pack("<I", 4) + b"INFO"
    for behind in (note, note * 3, b"TAG" + bytes(125), note + b"TAG" + bytes(125), bytes(5000)):
        assert seconds(wav(PCM, len(PCM), behind)) == 1.0
    assert seconds(wav(PCM[:-1], len(PCM) - 1, b"\0" + note)) == pytest.approx(1.0, abs=0.001)
    assert seconds(wav(PCM[:-1], len(PCM) - 1, note)) == pytest.approx(1.0, abs=0.001)  # unpadded


def test_a_wav_without_samples_holds_none():
    with pytest.raises(AudioError, match="no samples"):
        load_audio(wav(b"", 0), RATE)
    with pytest.raises(AudioError, match="no samples"):
        load_audio(wav(b"", 0, b"LIST" + struct.pack("<I", 4) + b"INFO"), RATE)


@pytest.mark.parametrize(
    ("suffix", "field", "width", "order"),
    [
        ("aiff", b"SSND", 4, "big"),
        ("au", b".snd", 4, "big"),
        ("caf", b"data", 8, "big"),
        ("w64", b"data", 8, "little"),
    ],
)
def test_other_containers_of_size_zero_are_read_to_their_end(files, suffix, field, width, order):
    content = bytearray(files[suffix])
    at = content.index(field, 1 if suffix != "au" else 0) + {"au": 8, "w64": 16}.get(suffix, 4)
    content[at : at + width] = ((1 << 8 * width) - 1 if suffix == "caf" else 0).to_bytes(width, order)
    if suffix == "aiff":  # its offset and block size are part of the chunk
        content[at : at + width] = (0).to_bytes(width, order)
    assert seconds(bytes(content)) == pytest.approx(SECONDS, abs=0.01)


@pytest.mark.parametrize("total", [0, 1000])
def test_a_flac_is_read_to_its_last_frame_whatever_it_declares(files, total):
    content = bytearray(files["flac"])
    fields = int.from_bytes(content[18:26], "big")
    content[18:26] = (fields & ~((1 << 36) - 1) | total).to_bytes(8, "big")
    assert seconds(bytes(content)) == SECONDS


def test_a_flac_that_declares_more_is_cut(files):
    content = bytearray(files["flac"])
    fields = int.from_bytes(content[18:26], "big")
    content[18:26] = (fields + RATE).to_bytes(8, "big")
    with pytest.raises(AudioError, match=f"cut short: {SECONDS * RATE} of {(SECONDS + 1) * RATE} samples"):
        load_audio(bytes(content), RATE)


@pytest.mark.parametrize("keep", [4, 10, 30])
def test_an_mp3_cut_between_frames_is_known_by_its_header(files, keep):
    content = files["mp3"]
    start = content.index(b"\xff\xf3") if b"\xff\xf3" in content else content.index(b"\xff\xfb")
    at = start
    for _ in range(keep):
        at += mpeg_frame(content[at : at + 4])
    with pytest.raises(AudioError, match=f"cut short: {keep - 1} of "):
        load_audio(content[:at], RATE)


def test_tags_around_an_mp3_are_not_audio(files):
    whole = seconds(files["mp3"])
    picture = b"ID3\x03\0\0" + bytes([0, 0, 64, 0]) + b"\xff\xfb\x90\x00" * 2048
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8)
    for content in (
        picture + files["mp3"],
        files["mp3"] + b"TAG" + b"x" * 125,
        files["mp3"] + picture + files["mp3"][files["mp3"].index(b"\xff") :],
        files["mp3"] + ape + b"TAG" + b"x" * 125,
    ):
        audio = load_audio(content, RATE)
        assert audio.warnings == ()
        assert round(len(audio.samples) / RATE / whole) == (
            2 if content.count(b"Info") + content.count(b"Xing") == 2 else 1
        )


def test_an_ogg_without_its_end_or_a_page_is_refused():
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).standard_normal(RATE * 20) / 10, RATE, format="OGG")
    content = file.getvalue()
    pages = [at for at in range(len(content)) if content.startswith(b"OggS", at)]
    with pytest.raises(AudioError, match="last page is missing"):
        load_audio(content[: pages[-1]], RATE)
    with pytest.raises(AudioError, match="1 of its pages are missing"):
        load_audio(content[: pages[4]] + content[pages[5] :], RATE)


def test_an_mp4_without_its_index_is_told(files):
    content = files["m4a"]
    with pytest.raises(AudioError, match=r"index \(moov\) is missing"):
        load_audio(content[: content.index(b"moov") - 4], RATE)


@pytest.mark.parametrize("offset", [0, 1, 4, 24])
@pytest.mark.parametrize("declared", [0, 1, 4])
def test_an_au_header_that_points_at_itself_does_not_hang(offset, declared):
    content = b".snd" + struct.pack(">II", offset, declared)
    for length in (6, 12):
        with pytest.raises(AudioError):
            within(10, load_audio, content[:length], 16_000)


def test_an_mp3_that_ends_within_its_header_of_lengths_is_refused():
    with pytest.raises(AudioError):
        load_audio(b"\xff\xfb\x90\xc4" + bytes(17) + b"Info", RATE)


def test_a_chunk_of_a_gigabyte_that_is_not_there_reserves_no_memory():
    content = b"FORM" + struct.pack(">I", 0x7FFF_0000) + b"16SVVHDR" + struct.pack(">I", 20) + bytes(12)
    content += (
        struct.pack(">HBBI", 16_000, 1, 0, 65_536) + b"BODY" + struct.pack(">I", 0x7FFE_0000) + bytes(99)
    )
    tracemalloc.start()
    try:
        with contextlib.suppress(AudioError):
            load_audio(content, RATE)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
