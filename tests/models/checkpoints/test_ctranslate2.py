"""CTranslate2's model.bin: what is read, and each way in which a file can be wrong."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from ctranslate2_files import model, text, variable, write

from tritone.models.checkpoints.ctranslate2 import read_ctranslate2


def test_variables_and_aliases_are_read_by_name(tmp_path: Path) -> None:
    weight = np.arange(6, dtype=np.float16).reshape(2, 3)
    data = model(
        variable("a/weight", weight),
        variable("n", np.array(7, np.int16)),
        aliases=(("b/weight", "a/weight"),),
    )
    read = read_ctranslate2(write(tmp_path, data))
    assert (read.spec, read.revision) == ("WhisperSpec", 3)
    assert torch.equal(read.tensors["a/weight"], torch.from_numpy(weight))
    assert read.tensors["b/weight"] is read.tensors["a/weight"]
    assert int(read.tensors["n"]) == 7


def test_quantized_weights_are_divided_by_their_scales(tmp_path: Path) -> None:
    bytes_, words = np.array([[127, -64], [3, 0]], np.int8), np.array([[1000, -1]], np.int16)
    kernel = np.ones((2, 3, 2), np.int8)
    scales = np.array([10.0, 4.0], np.float32)
    data = model(
        variable("a", bytes_),
        variable("a_scale", scales),
        variable("b", words),
        variable("b_scale", np.array(8.0, np.float32)),
        variable("c", kernel),
        variable("c_scale", scales),
    )
    tensors = read_ctranslate2(write(tmp_path, data)).tensors
    assert sorted(tensors) == ["a", "b", "c"]
    assert tensors["a"].tolist() == [[pytest.approx(12.7), pytest.approx(-6.4)], [0.75, 0.0]]
    assert tensors["b"].tolist() == [[125.0, -0.125]]
    assert tensors["c"][1].unique().tolist() == [0.25]


_ONE = variable("a", np.ones((2, 3), np.float32))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends too early"),
        (model(_ONE)[:-1], "ends too early"),
        (model(_ONE)[:40], "ends too early|takes bytes"),
        (model(_ONE) + b"x", "1 bytes follow"),
        (model(_ONE, version=3), "binary version 3"),
        (model(_ONE, version=2**31), "binary version"),
        (model(_ONE, _ONE), "'a' twice"),
        (model(variable("a", np.ones(2, np.float32), number=9)), "number 9"),
        (model(variable("a", np.ones(2, np.float32), size=4)), "has 8 bytes, not 4"),
        (model(_ONE, aliases=(("b", "c"),)), "'b' is an alias of 'c'"),
        (model(_ONE, aliases=(("a", "a"),)), "'a' is an alias of 'a'"),
        (model(variable("a", np.ones((2, 3), np.int8))), "without scales"),
        (
            model(variable("a", np.ones((2, 3), np.int8)), variable("a_scale", np.ones(3, np.float32))),
            "scales of shape",
        ),
        (
            model(
                text("a")
                + struct.pack("<B", 4)
                + struct.pack("<4I", *[2**32 - 1] * 4)
                + struct.pack("<BI", 0, 8)
            ),
            "bytes, not 8",
        ),
        (model(text("a") + struct.pack("<B", 200) + bytes(9)), "dimensions|early"),
        (struct.pack("<I", 6) + struct.pack("<H", 3) + b"\xff\xfe\0", "not UTF-8"),
    ],
)
def test_a_damaged_file_is_refused_with_the_reason(tmp_path: Path, data: bytes, message: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(ValueError, match=message) as refused:
        read_ctranslate2(path)
    assert str(path) in str(refused.value)
