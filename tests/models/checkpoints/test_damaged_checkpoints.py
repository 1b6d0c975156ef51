"""Damaged safetensors and absurd configurations: refused by name, in little memory."""

import json
import random
import resource
import struct
import warnings
from typing import Any

import pytest
from checkpoints import replace_by_bin, weights_of

import tritone

Model = tritone.Speech2TextForConditionalGeneration


def header(**tensors: Any) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


def tensor(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


DAMAGED = {
    "empty": b"",
    "short": b"\x08\0\0",
    "no header": struct.pack("<Q", 0),
    "absurd header": struct.pack("<Q", 2**60) + b"{}",
    "header beyond the file": struct.pack("<Q", 10_000) + b"{}",
    "not JSON": struct.pack("<Q", 4) + b"{{{{",
    "not UTF-8": struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
    "a list": struct.pack("<Q", 2) + b"[]",
    "absurd tensor": header(a=tensor([10**6, 10**6], 0, 4 * 10**12)) + bytes(64),
    "shape beyond its data": header(a=tensor([10**9], 0, 64)) + bytes(64),
    "product that overflows": header(a=tensor([2**33, 2**33], 0, 64)) + bytes(64),
    "offsets outside": header(a=tensor([16], 64, 128)) + bytes(64),
    "offsets backwards": header(a=tensor([16], 64, 0)) + bytes(64),
    "overlap": header(a=tensor([16], 0, 64), b=tensor([16], 32, 96)) + bytes(96),
    "unknown dtype": header(a=tensor([16], 0, 64, "F33")) + bytes(64),
    "deep": struct.pack("<Q", 100_000) + b"[" * 100_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_safetensors_are_refused_by_name_in_little_memory(content, folder):
    (folder / "model.safetensors").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged .*; fetch it again"):
        Model.from_pretrained(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_mutated_weights_load_or_are_refused(model, folder):
    """No crash and nothing else than what is documented, whichever bytes are changed, lost or added."""
    saved = (folder / "model.safetensors").read_bytes()
    pickled = (replace_by_bin(folder, weights_of(folder)) / "pytorch_model.bin").read_bytes()
    draw, refused = random.Random(0), 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for round_ in range(120):
        name, content = ("model.safetensors", saved) if round_ % 2 else ("pytorch_model.bin", pickled)
        for other in ("model.safetensors", "pytorch_model.bin"):
            (folder / other).unlink(missing_ok=True)
        data = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            at = int(len(data) * draw.random() ** 3)  # most of them in the header
            data[at : at + draw.choice((0, 1, 1, 8))] = draw.randbytes(draw.choice((0, 1, 1, 8)))
        (folder / name).write_bytes(data[: draw.choice((len(data), len(data), draw.randrange(len(data))))])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                loaded = Model.from_pretrained(folder)
            except ValueError:
                refused += 1
            else:
                assert loaded.state_dict().keys() == model.state_dict().keys()
    assert 40 < refused < 120
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"vocab_size": 10**12}, "config.json: vocab_size must be .* from 1 to .*, got 1000000000000"),
        (
            {"vocab_size": 10**7},
            "describes a model of over .* tensors; correct its sizes: vocab_size 10000000",
        ),
        ({"encoder_layers": 10**7}, "encoder_layers must be a whole number from 0 to 4,096, got 10000000"),
        (
            {"encoder_layers": 4000},
            "describes a model of over .* weights are 51 tensors; correct its sizes: encoder_layers 4000",
        ),
        ({"max_source_positions": 10**9}, "max_source_positions must be a whole number from 1 to"),
        ({"max_target_positions": 10**7}, "max_target_positions must be a whole number from 1 to"),
        (
            {
                "max_target_positions": 2**20,
                "d_model": 160,
                "encoder_attention_heads": 1,
                "decoder_attention_heads": 1,
            },
            "asks for a table of .*; correct its sizes: max_target_positions",
        ),
        ({"vocab_size": -1}, "vocab_size must be a whole number from 1 to .*, got -1"),
        ({"vocab_size": "many"}, "vocab_size must be a whole number from 1 to .*, got 'many'"),
        ({"encoder_layers": None}, "encoder_layers must be a whole number from 0 to .*, got None"),
        ({"d_model": None}, "d_model must be a whole number from 1 to .*, got None"),
        ({"conv_kernel_sizes": 5}, "conv_kernel_sizes must be a list, each item a whole number .*, got 5"),
        (
            {"encoder_attention_heads": 0},
            "encoder_attention_heads must be a whole number from 1 to .*, got 0",
        ),
    ],
    ids=str,
)
def test_absurd_sizes_in_a_configuration_are_refused_before_they_are_allocated(fields, problem, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=problem):
        Model.from_pretrained(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 10**6, "nested too deeply"),
        ("\xff", "is not JSON"),
        ("1" * 5000, "is not JSON"),
        ("3", "it holds a int"),
    ],
    ids=["deep", "not UTF-8", "long number", "number"],
)
def test_a_configuration_that_is_no_json_object_is_refused(text, problem, folder):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=problem):
        Model.from_pretrained(folder)


def test_a_configuration_of_gigabytes_is_not_read(folder):
    with (folder / "config.json").open("wb") as file:
        file.truncate(2**32)  # a hole, which takes no space
    with pytest.raises(ValueError, match="has 4294967296 bytes, more than the"):
        Model.from_pretrained(folder)
