"""Hostile msgpack files, made by hand: a clear error each, before anything is allocated."""

import json
import struct

import pytest
from checkpoints import read_converted

from tritone.models.checkpoints.flax import read_msgpack

pytest.importorskip("msgpack")
HUGE = 1 << 40


def text(value: str) -> bytes:
    return bytes([0xD9, len(value)]) + value.encode()


def array(shape: tuple[int, ...], data: bytes = b"", dtype: str = "float32", kind: int = 1) -> bytes:
    lengths = b"".join(b"\xcf" + struct.pack(">Q", length) for length in shape)
    body = (
        b"\x93" + bytes([0x90 | len(shape)]) + lengths + text(dtype) + b"\xc6" + struct.pack(">I", len(data))
    )
    return b"\xc9" + struct.pack(">I", len(body) + len(data)) + bytes([kind]) + body + data


def entry(value: bytes, key: str = "w") -> bytes:
    """A map of one entry."""
    return b"\x81" + text(key) + value


def chunked(shape: tuple[int, ...], *chunks: bytes) -> bytes:
    """An array of over a gigabyte, as Flax writes it."""
    lengths = b"".join(text(str(number)) + bytes([length]) for number, length in enumerate(shape))
    pieces = b"".join(text(str(number)) + chunk for number, chunk in enumerate(chunks))
    out = b"\x83" + text("__msgpack_chunked_array__") + b"\xc3"
    out += text("shape") + bytes([0x80 | len(shape)]) + lengths
    return out + text("chunks") + bytes([0x80 | len(chunks)]) + pieces


FLAX = {
    "nothing": (b"", "incomplete input"),
    "no map": (b"\x93\x01\x02\x03", "a list at its start, not a map"),
    "maps in maps": (entry(b"", "x") * 3000, "nested over 32 deep"),
    "maps in lists": (b"\x81" + text("x") + b"\xdd\x7f\xff\xff\xff" * 3000, "exceeds max_array_len"),
    "a map of four billion": (
        b"\xdf\xff\xff\xff\xff" + entry(array((1,), b"1234"))[1:],
        "exceeds max_map_len",
    ),
    "a key of two gigabytes": (b"\x81\xdb\x7f\xff\xff\xff" + b"x" * 99, "incomplete input"),
    "a tensor of four gigabytes": (
        b"\x81" + text("x") + b"\xc9\xff\xff\xff\xff\x01abc",
        "exceeds max_ext_len",
    ),
    "bytes of four gigabytes": (
        entry(b"\xc7\x0d\x01\x93\x91\x01\xa4int8\xc6\xff\xff\xff\xff"),
        "incomplete input",
    ),
    "an absurd shape": (entry(array((HUGE, HUGE), b"1234")), r"has 4835703278458516698824704 bytes, not 4"),
    "a shape that overflows to what is there": (entry(array((1 << 62, 4), b"")), "bytes, not 0"),
    "an empty shape beyond strides": (entry(array((0, HUGE, HUGE))), "has the shape"),
    "a tensor of objects": (entry(array((1,), b"12345678", "object")), "has dtype 'object'"),
    "another extension": (entry(array((1,), b"1234", kind=5)), "extension of kind 5"),
    "text for a tensor": (entry(text("hello")), "'w' is no tensor but text"),
    "a key that is no text": (b"\x81\x01" + array((1,), b"1234"), "a key is no text"),
    "something behind": (entry(array((1,), b"1234")) + b"\0" * 7, "7 bytes behind its end"),
    "chunks of nothing": (entry(chunked(())), r"chunks of 'w' do not make up \[\]"),
    "chunks that do not fit": (
        entry(chunked((9,), array((1,), b"1234"))),
        r"chunks of 'w' do not make up \[9\]",
    ),
    "chunks of several dtypes": (
        entry(chunked((2,), array((1,), b"1234"), array((1,), b"12345678", "int64"))),
        "chunks of 'w' are of several dtypes",
    ),
    "chunks of nine dimensions": (
        entry(chunked((1,) * 9, array((1,), b"1234"))),
        "'w' in chunks has a wrong shape",
    ),
    "chunks beside a tensor": (
        entry(b"\x84" + text("a") + array((1,), b"1234") + chunked((1,), array((1,), b"1234"))[1:]),
        "'w' in chunks is not made of shape and chunks alone",
    ),
    "chunks that are none": (
        entry(chunked((1,), array((1,), b"1234")).replace(b"\xc3", b"\xc2", 1)),
        "'w' in chunks is not made of shape and chunks alone",
    ),
    "a tensor twice": (
        b"\x82" + 2 * (text("w") + array((1,), b"1234")),
        "it has 'w' twice",
    ),
    "a tensor twice, once in chunks": (
        b"\x82" + text("w") + array((1,), b"1234") + text("w") + chunked((1,), array((1,), b"5678")),
        "it has 'w' twice",
    ),
    "two names that are one in PyTorch": (
        entry(b"\x82" + text("kernel") + array((1,), b"1234") + text("scale") + array((1,), b"5678")),
        "two values of what is 'w.weight' in PyTorch",
    ),
}


@pytest.mark.parametrize("name", FLAX)
def test_a_hostile_msgpack_is_refused(name, tmp_path):
    content, problem = FLAX[name]
    (tmp_path / "flax_model.msgpack").write_bytes(content)
    with pytest.raises(ValueError, match=problem) as caught:
        read_converted(tmp_path, "Flax")
    assert "flax_model.msgpack" in str(caught.value)


def test_a_msgpack_of_more_tensors_than_any_model_is_refused(tmp_path):
    one = array((0,))
    body = b"".join(text(str(number)) + one for number in range(100_001))
    (tmp_path / "flax_model.msgpack").write_bytes(b"\xdf" + struct.pack(">I", 100_001) + body)
    with pytest.raises(ValueError, match="over 100000 tensors"):
        read_converted(tmp_path, "Flax")


@pytest.mark.parametrize(
    ("framework", "index"), [("Flax", "flax_model.msgpack"), ("TensorFlow", "tf_model.h5")]
)
@pytest.mark.parametrize("shard", ["../outside", "/etc/passwd", "sub/file", "..", "x" * 300, ".\0"])
def test_a_shard_outside_the_folder_is_refused(framework, index, shard, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "outside").write_bytes(entry(array((1,), b"1234")))
    (folder / f"{index}.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(ValueError, match="names a shard outside its folder"):
        read_converted(folder, framework)


def test_a_tensor_in_two_shards_with_two_values_is_refused(tmp_path):
    for number in range(2):
        (tmp_path / f"shard{number}").write_bytes(entry(array((1,), b"123%d" % number)))
    shards = {"w": "shard0", "x": "shard1"}
    (tmp_path / "flax_model.msgpack.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ValueError, match="leads to several values of 'w'"):
        read_converted(tmp_path, "Flax")


def test_half_precision_integers_and_scalars_are_read_to_the_bit(tmp_path):
    content = b"\x84" + text("params") + b"\x82"
    content += text("a") + array((2, 1), b"\x80\x3f\x00\xc0", "bfloat16")
    content += text("b") + array((), b"\x00\x3c", "float16", kind=3)
    content += text("rest") + b"\x80"
    content += text("n") + entry(array((3,), b"\x01\xff\x80", "int8"))
    content += text("t") + entry(array((2,), b"\x00\x07", "bool"))
    (tmp_path / "flax_model.msgpack").write_bytes(content)
    tensors = read_msgpack(tmp_path / "flax_model.msgpack")
    assert [str(tensor.dtype)[6:] for tensor in tensors.values()] == ["bfloat16", "float16", "int8", "bool"]
    values = {name: tensor.tolist() for name, tensor in tensors.items()}
    assert values == {"params/a": [[1], [-2]], "params/b": 1, "n/w": [1, -1, -128], "t/w": [False, True]}
