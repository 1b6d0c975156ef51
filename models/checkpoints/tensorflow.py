"""Reader of TensorFlow checkpoints, `model.ckpt.index` with its data files, without TensorFlow.

The index is a sorted table in LevelDB's format
(https://github.com/google/leveldb/blob/main/doc/table_format.md) from the name of a tensor to a
BundleEntryProto (tensorflow/core/protobuf/tensor_bundle.proto): the file that holds its bytes, and their
offset. Blocks and tensors are checked against their checksums, offsets against the bounds of their file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from .contents import check_file
from .extras import import_for
from .files import Checkpoint
from .mapped_file import MAX_DIMENSIONS, MAX_NAME_LENGTH, MAX_TENSORS, MappedFile
from .protobuf import as_bytes, as_int, read_fields, read_varint

SUFFIX = ".index"
MAX_INDEX_BYTES = 16 * 2**20  # a hundred thousand entries take about that
MAX_SHARDS = 10_000
CHECKSUM_BYTES = 2**22  # copied at a time for a checksum
_FOOTER = 48
_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"  # key in checkpoints by objects, not by names
# tensorflow/core/framework/types.proto
_DTYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64"}
_DTYPES |= {10: "bool", 14: "bfloat16", 19: "float16"}
_DTYPES |= {7: "string", 8: "complex64", 17: "uint16", 22: "uint32", 23: "uint64"}  # to be refused by name


class _Entry(NamedTuple):
    """Index entry of one tensor: its dtype, its shape, and its place in a data file."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int | None  # of its bytes


def read_index(checkpoint: Checkpoint, filename: str) -> dict[str, Tensor]:
    """Read every tensor of a TensorFlow checkpoint, by the name of its variable.

    Args:
        checkpoint: checkpoint with the index and its data files.
        filename: name of the index file.

    Raises:
        ImportError: google-crc32c is not installed.
        OSError: a data file is missing.
        ValueError: a file is damaged, or the index is by objects instead of names.
    """
    path = checkpoint.require(filename)
    import_for(path, "google_crc32c", "google-crc32c", "tensorflow")
    shards, entries = _read_table(path)
    tensors: dict[str, Tensor] = {}
    prefix = filename.removesuffix(SUFFIX)
    for number in sorted({entry.shard for entry in entries}):
        if not 0 <= number < shards:
            raise _damaged(path, f"it names file {number} of {shards}")
        shard = f"{prefix}.data-{number:05d}-of-{shards:05d}"
        found = checkpoint.find(shard)
        if found is None:
            raise checkpoint.lacks(f"{shard}, which its index names", "fetch it again")
        with MappedFile(found) as file:
            for entry in entries:
                if entry.shard == number:
                    dtype = _DTYPES.get(entry.dtype, f"number {entry.dtype} of TensorFlow's")
                    tensors[entry.name] = file.tensor(
                        entry.name, dtype, entry.shape, entry.offset, entry.size
                    )
                    _check_bytes(file, entry)
    return tensors


def masked_crc(data: bytes | memoryview) -> int:
    """CRC-32C checksum of data, rotated and with an offset, as LevelDB stores it."""
    from google_crc32c import extend

    crc = 0
    for start in range(0, len(data), CHECKSUM_BYTES):
        crc = extend(crc, bytes(data[start : start + CHECKSUM_BYTES]))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _check_bytes(file: MappedFile, entry: _Entry) -> None:
    """Compare a tensor's bytes, which lie inside the file, with their checksum; ValueError if wrong."""
    if entry.crc is None:
        return
    with memoryview(file.data) as data, data[entry.offset : entry.offset + entry.size] as own:
        if masked_crc(own) != entry.crc:
            raise file.damaged(f"{entry.name!r} does not have its checksum")


def _read_table(path: Path) -> tuple[int, list[_Entry]]:
    """Number of data files, and the entries of their tensors, from an index file."""
    check_file(path, MAX_INDEX_BYTES)
    data = path.read_bytes()
    shards: int | None = None
    entries: list[_Entry] = []
    try:
        for key, value in _table_entries(data):
            if shards is None:
                if key:
                    raise ValueError("it does not begin with its header")
                shards = _read_header(value)
                continue
            name = key.decode()
            if name == _OBJECTS:
                raise _Refused(
                    "it goes by objects, as tf.train.Checkpoint and save_weights without .h5 write it; "
                    "only those by names are read: write tf_model.h5 with save_pretrained"
                )
            if len(entries) >= MAX_TENSORS:
                raise ValueError(f"it has over {MAX_TENSORS} tensors")
            entries.append(_read_entry(name, value))
    except _Refused as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    except UnicodeDecodeError:
        raise _damaged(path, "a name is not UTF-8") from None
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    if shards is None:
        raise _damaged(path, "it is empty")
    return shards, entries


class _Refused(Exception):
    """Error for an undamaged index of an unsupported kind."""


def _damaged(path: Path, how: str) -> ValueError:
    return ValueError(f"{path} is damaged ({how}); fetch it again")


def _table_entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table, in order; ValueError for a damaged one."""
    if len(data) < _FOOTER or data[-8:] != _MAGIC:
        raise ValueError("it is no TensorFlow index, or its end is missing")
    footer = data[-_FOOTER:-8]
    at = 0
    handle = [0, 0, 0, 0]  # offset and size of the meta-index block, then of the index block
    for part in range(4):
        handle[part], at = read_varint(footer, at)
    last: bytes | None = None
    end = 0
    for _, place in _block_entries(_block(data, handle[2], handle[3])):
        offset, at = read_varint(place, 0)
        size, _ = read_varint(place, at)
        if offset < end:  # overlaps would let a small file take hours
            raise ValueError("its blocks overlap")
        end = offset + size
        count = 0
        for key, value in _block_entries(_block(data, offset, size)):
            if last is not None and key <= last:
                raise ValueError("its names are not in order")
            last, count = key, count + 1
            yield key, value
        if not count:
            raise ValueError("it has a block of nothing")


def _block(data: bytes, offset: int, size: int) -> bytes:
    """Bytes of one uncompressed block, which must match its checksum."""
    if offset + size + 5 > len(data) - _FOOTER:
        raise ValueError(f"a block takes bytes {offset} to {offset + size} of {len(data)}")
    stored = int.from_bytes(data[offset + size + 1 : offset + size + 5], "little")
    if masked_crc(data[offset : offset + size + 1]) != stored:
        raise ValueError("a block does not have its checksum")
    if data[offset + size] != 0:
        raise _Refused(
            "its blocks are compressed, as no TensorFlow from 1.2 on writes them; save it with one of those"
        )
    return data[offset : offset + size]


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one block, where each key is stored without the prefix shared with the last."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise ValueError("a block is shorter than it says")
    at, key = 0, b""
    while at < end:
        shared, at = read_varint(block, at)
        own, at = read_varint(block, at)
        length, at = read_varint(block, at)
        if shared > len(key) or at + own + length > end:
            raise ValueError("a row is longer than its block")
        if shared + own > MAX_NAME_LENGTH:
            raise ValueError(f"a name has over {MAX_NAME_LENGTH} bytes")
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


def _read_header(data: bytes) -> int:
    """Number of data files, from a BundleHeaderProto."""
    shards = 0
    for field, value in read_fields(data):
        if field == 1:
            shards = as_int(value)
        elif field == 2 and value:
            raise _Refused("its tensors are big-endian; write it again on another machine")
    if not 0 < shards <= MAX_SHARDS:
        raise ValueError(f"it says that there are {shards} files of data")
    return shards


def _read_entry(name: str, data: bytes) -> _Entry:
    dtype = shard = offset = size = 0
    crc: int | None = None
    shape: tuple[int, ...] = ()
    for field, value in read_fields(data):
        match field:
            case 1:
                dtype = as_int(value)
            case 2:
                shape = _read_shape(name, as_bytes(value))
            case 3:
                shard = as_int(value)
            case 4:
                offset = as_int(value)
            case 5:
                size = as_int(value)
            case 6:
                crc = int.from_bytes(as_bytes(value), "little")
            case 7:
                raise _Refused(
                    f"{name!r} is in slices, of a variable that was partitioned; "
                    "write it again without a partitioner"
                )
    return _Entry(name, dtype, shape, shard, offset, size, crc)


def _read_shape(name: str, data: bytes) -> tuple[int, ...]:
    shape = []
    for field, value in read_fields(data):
        if field == 2:
            lengths = [as_int(length) for part, length in read_fields(as_bytes(value)) if part == 1]
            shape.append(lengths[-1] if lengths else 0)
            if len(shape) > MAX_DIMENSIONS:
                raise ValueError(f"{name!r} has over {MAX_DIMENSIONS} dimensions")
        elif field == 3 and value:
            raise ValueError(f"{name!r} has a shape that is not known")
    return tuple(shape)
