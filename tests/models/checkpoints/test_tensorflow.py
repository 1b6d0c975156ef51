"""Hostile indexes, made by hand: a clear error each, before anything is allocated."""

import struct
import zipfile
from typing import Any

import pytest
from checkpoints import GOLDEN, read_converted

from tritone.models.checkpoints.tensorflow import masked_crc

pytest.importorskip("google_crc32c")
HUGE = 1 << 40


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def block(rows: list[tuple[bytes, bytes]], kind: int = 0, content: bytes | None = None) -> bytes:
    data = b"".join(b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in rows)
    data = data + struct.pack("<II", 0, 1) if content is None else content
    return data + bytes([kind]) + struct.pack("<I", masked_crc(data + bytes([kind])))


def table(rows: list[tuple[bytes, bytes]], made: bytes | None = None) -> bytes:
    """An index of one block."""
    data = block(rows) if made is None else made
    places = block([(b"\xff", varint(0) + varint(len(data) - 5))])
    footer = varint(0) * 2 + varint(len(data)) + varint(len(places) - 5)
    return data + places + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def place(
    shape: tuple[int, ...] = (2,),
    offset: int = 0,
    size: int = 8,
    shard: int = 0,
    dtype: int = 1,
    more: bytes = b"",
) -> bytes:
    """A BundleEntryProto."""
    lengths = b"".join(
        b"\x12" + varint(len(varint(length % 2**64)) + 1) + b"\x08" + varint(length % 2**64)
        for length in shape
    )
    out = b"\x08" + varint(dtype) + b"\x12" + varint(len(lengths)) + lengths
    return out + b"\x18" + varint(shard) + b"\x20" + varint(offset % 2**64) + b"\x28" + varint(size) + more


ONE = (b"", b"\x08\x01")  # one file of data


def index_files() -> dict[str, tuple[bytes, str]]:
    def tensor(**fields: Any) -> bytes:
        return table([ONE, (b"m/w", place(**fields))])

    return {
        "nothing": (b"", "no TensorFlow index"),
        "no table": (b"x" * 500, "no TensorFlow index"),
        "an offset outside": (tensor(offset=9), "takes bytes 9 to 17 of 16"),
        "an offset beyond numbers": (tensor(offset=2**63 - 1), "takes bytes 9223372036854775807"),
        "an offset before the start": (tensor(offset=-8), "takes bytes -8"),
        "an absurd shape": (tensor(shape=(HUGE, HUGE)), "has 4835703278458516698824704 bytes, not 8"),
        "an absurd shape that says so": (
            tensor(shape=(HUGE,), size=4 * HUGE),
            "takes bytes 0 to 4398046511104 of 16",
        ),
        "a negative shape": (tensor(shape=(-2,)), "has the shape"),
        "nine dimensions": (tensor(shape=(1,) * 9, size=4), "has over 8 dimensions"),
        "text": (tensor(dtype=7), "has dtype 'string'"),
        "resources": (tensor(dtype=20), 'has dtype "number 20 of TensorFlow\'s"'),
        "another file of data": (tensor(shard=1), "names file 1 of 1"),
        "no files of data": (table([(b"", b"\x08\x00")]), "there are 0 files"),
        "a billion files of data": (table([(b"", b"\x08" + varint(10**9))]), "there are 1000000000 files"),
        "big-endian": (table([(b"", b"\x08\x01\x10\x01")]), "big-endian"),
        "slices": (tensor(more=b"\x3a\x00"), "in slices"),
        "no header": (table([(b"m/w", place())]), "does not begin with its header"),
        "objects": (table([ONE, (b"_CHECKPOINTABLE_OBJECT_GRAPH", place())]), "goes by objects"),
        "one place for all": (
            table([ONE, *[(b"m/w%d" % number, place((4,), 0, 16)) for number in range(3)]]),
            "its tensors overlap",
        ),
        "names out of order": (table([ONE, (b"m/b", place()), (b"m/a", place(offset=8))]), "not in order"),
        "a name without an end": (table([ONE, (b"x" * 600, place())]), "over 512 bytes"),
        "a name that is no text": (table([ONE, (b"\xff\xfe", place())]), "is damaged"),
        "a message that ends": (table([ONE, (b"m/w", b"\x12\x7f\x08")]), "ends too early"),
        "a number without an end": (table([ONE, (b"m/w", b"\x08" + b"\xff" * 20)]), "a number has no end"),
        "a field of no kind": (table([ONE, (b"m/w", b"\x0f\x01")]), "a field of kind 7"),
        "a block of nothing": (table([]), "a block of nothing"),
        "a block shorter than its restarts": (
            table([], block([], content=struct.pack("<I", 2**30))),
            "shorter than it says",
        ),
        "a row longer than its block": (
            table([], block([], content=b"\0\0" + varint(HUGE) + struct.pack("<II", 0, 1))),
            "a row is longer",
        ),
    }


@pytest.mark.parametrize("name", index_files())
def test_a_hostile_index_is_refused(name, tmp_path):
    content, problem = index_files()[name]
    (tmp_path / "model.ckpt.index").write_bytes(content)
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(bytes(16))
    with pytest.raises(ValueError, match=problem) as caught:
        read_converted(tmp_path, "TensorFlow")
    assert str(tmp_path / "model.ckpt.") in str(caught.value)


def test_an_index_made_by_hand_is_read_and_wants_its_data(tmp_path):
    rows = [ONE, (b"m/a/kernel", place((1, 2))), (b"m/b", place((2,), 8))]
    (tmp_path / "model.ckpt.index").write_bytes(table(rows))
    with pytest.raises(FileNotFoundError, match=r"no model\.ckpt\.data-00000-of-00001"):
        read_converted(tmp_path, "TensorFlow")
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(struct.pack("<4f", 1, 2, 3, 4))
    tensors = read_converted(tmp_path, "TensorFlow")
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "a.weight": [[1], [2]],
        "b": [3, 4],
    }


def blocks(*made: tuple[bytes, int, int], data: bytes) -> bytes:
    """An index of several blocks: last name, offset and size of each."""
    places = block([(name, varint(offset) + varint(size)) for name, offset, size in made])
    footer = varint(0) * 2 + varint(len(data)) + varint(len(places) - 5)
    return data + places + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def test_blocks_in_blocks_are_refused_or_a_small_file_would_be_gone_through_for_hours(tmp_path):
    inner = block([(b"m/w", place())])
    header = ONE[1] + b"\x7a" + varint(len(inner)) + inner  # in a field that is passed over
    outer = block([(b"", header)])
    made = blocks((b"", 0, len(outer) - 5), (b"x", outer.index(inner), len(inner) - 5), data=outer)
    (tmp_path / "model.ckpt.index").write_bytes(made)
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(bytes(16))
    with pytest.raises(ValueError, match="its blocks overlap"):
        read_converted(tmp_path, "TensorFlow")


def test_compressed_blocks_are_refused_with_the_versions_that_write_none(tmp_path):
    (tmp_path / "model.ckpt.index").write_bytes(table([], block([ONE], kind=1)))
    with pytest.raises(ValueError, match=r"compressed, as no TensorFlow from 1\.2 on writes them"):
        read_converted(tmp_path, "TensorFlow")


def test_a_flipped_bit_of_a_tensor_is_found_in_what_tensorflow_wrote(tmp_path):
    with zipfile.ZipFile(GOLDEN / "tensorflow_checkpoints.zip") as archive:
        for name in archive.namelist():
            if name.startswith("bert/index/model.ckpt"):
                (tmp_path / name.rpartition("/")[2]).write_bytes(archive.read(name))
    assert read_converted(tmp_path, "TensorFlow")
    shard = tmp_path / "model.ckpt.data-00001-of-00003"
    content = bytearray(shard.read_bytes())
    content[500] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"data-00001-of-00003 is damaged \('tf_bert.*its checksum\)"):
        read_converted(tmp_path, "TensorFlow")


def test_a_flipped_bit_of_an_index_is_found(tmp_path):
    content = bytearray(table([ONE, (b"m/w", place())]))
    content[8] ^= 4
    (tmp_path / "model.ckpt.index").write_bytes(content)
    with pytest.raises(ValueError, match="does not have its checksum"):
        read_converted(tmp_path, "TensorFlow")
