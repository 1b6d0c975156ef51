"""Files of a checkpoint that are something else, damaged or out of reach: errors that say so, by path."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
from checkpoint_fuzz import train_pieces
from checkpoints import replace_by_bin, weights_of

import tritone
from tritone.models.checkpoints.contents import read_json

LFS = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
PAGE = "<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"
Model = tritone.Speech2TextForConditionalGeneration


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> Path:
    return factories.write_checkpoint(tmp_path_factory.mktemp("speech"))


@pytest.fixture
def checkpoint(speech, tmp_path) -> Path:
    return Path(shutil.copytree(speech, tmp_path / "model"))


def load(folder: Path) -> None:
    Model.from_pretrained(folder)
    tritone.AutoProcessor.from_pretrained(folder)


def with_index(name: str) -> Callable[[Path], Any]:
    def load(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        if ".bin" in name:
            torch.save({}, folder / "pytorch_model.bin.part")
        Model.from_pretrained(folder)

    return load


def from_tf(folder: Path) -> None:
    Model.from_pretrained(folder, from_tf=True)


def from_flax(folder: Path) -> None:
    Model.from_pretrained(folder, from_flax=True)


def t5(folder: Path) -> None:
    tritone.T5Tokenizer.from_pretrained(folder)


FILES: dict[str, Callable[[Path], Any]] = {
    "config.json": load,
    "generation_config.json": load,
    "model.safetensors": load,
    "preprocessor_config.json": load,
    "processor_config.json": load,
    "tokenizer_config.json": load,
    "vocab.json": load,
    "sentencepiece.bpe.model": load,
    "model.safetensors.index.json": with_index("model.safetensors"),
    "pytorch_model.bin": with_index("pytorch_model.bin"),
    "pytorch_model.bin.index.json": with_index("pytorch_model.bin"),
    "tf_model.h5": from_tf,
    "model.ckpt.index": from_tf,
    "flax_model.msgpack": from_flax,
    "spiece.model": t5,
    "tokenizer.json": t5,
}


@pytest.mark.filterwarnings("ignore:.* which Tritone does not use")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (LFS, "is a Git LFS pointer, not the file itself; fetch that with `git lfs pull`"),
        (PAGE, "is a web page, perhaps an error in place of the file; fetch it again"),
    ],
    ids=["pointer", "page"],
)
def test_a_pointer_or_a_page_in_the_place_of_a_file_is_called_that(name, content, problem, checkpoint):
    for package, suffix in (("h5py", ".h5"), ("msgpack", ".msgpack"), ("google_crc32c", "ckpt.index")):
        if name.endswith(suffix):
            pytest.importorskip(package)
    (checkpoint / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=problem) as raised:
        FILES[name](checkpoint)
    assert str(checkpoint / name) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_shard_that_is_a_pointer_is_called_that(checkpoint):
    Model.from_pretrained(checkpoint).save_pretrained(checkpoint, max_shard_size="20KB")
    shard = sorted(checkpoint.glob("model-*.safetensors"))[1]
    shard.write_text(LFS, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{shard.name} is a Git LFS pointer"):
        Model.from_pretrained(checkpoint)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.json", "generation_config.json"])
@pytest.mark.parametrize("damage", ["empty", "zeros", "cut", "folder", "link", "pipe"])
def test_a_file_that_is_none_is_named_with_the_problem(name, damage, checkpoint):
    path = checkpoint / name
    size = path.stat().st_size
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "zeros":
            path.write_bytes(bytes(size))
        case "cut":
            path.write_bytes(path.read_bytes()[: size // 2])
        case _:
            path.unlink()
    match damage:
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(checkpoint / "nowhere")
        case "pipe":
            os.mkfifo(path)
    problems = {
        "folder": "is a folder, not a",
        "link": "is a link to nowhere, not",
        "pipe": "is a device or pipe",
    }
    with pytest.raises((ValueError, OSError), match=problems.get(damage, "is not JSON|is damaged")) as raised:
        load(checkpoint)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "."])
def test_a_file_without_rights_is_named(name, speech):
    """As a user who is not root, in a process of its own where this one is."""
    with tempfile.TemporaryDirectory() as parent:  # another run of pytest closes its folder to others
        Path(parent).chmod(0o755)
        checkpoint = Path(shutil.copytree(speech, Path(parent) / "model"))
        checkpoint.chmod(0o755)
        run, wanted = load_as_another(checkpoint, name)
    assert "PermissionError" in run.stdout, run.stdout + run.stderr
    assert str(wanted) in run.stdout
    assert "cannot be read: Permission denied; check the file and its rights" in run.stdout


def load_as_another(checkpoint: Path, name: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run of a process without rights to the file, or to the folder for "."; and the path to be named."""
    (checkpoint / name).chmod(0)
    code = (
        "import tritone, sys\n"
        "try:\n    tritone.AutoProcessor.from_pretrained(sys.argv[1])\n"
        "    tritone.AutoModelForSpeechSeq2Seq.from_pretrained(sys.argv[1])\n"
        "except OSError as error:\n    print(type(error).__name__, error)\n"
    )
    user = [] if os.getuid() else ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if user and shutil.which("setpriv") is None:
        pytest.skip("needs setpriv to be another user than root")
    command = [*user, sys.executable, "-c", code, str(checkpoint)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    (checkpoint / name).chmod(0o755)
    if "No module named" in run.stderr or "Permission denied" in run.stderr:
        pytest.skip("the other user has no rights to this installation")
    return run, checkpoint / name


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_configuration_in_another_encoding_of_unicode_is_read(encoding, checkpoint):
    path = checkpoint / "config.json"
    path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    Model.from_pretrained(checkpoint)


def test_a_name_that_is_there_twice_is_a_warning_and_the_last_value_counts(tmp_path):
    (tmp_path / "config.json").write_text('{"dropout": 0.1, "x": {"a": 1, "a": 2}, "dropout": 0.2}')
    with pytest.warns(UserWarning, match=r"config\.json has a name twice, .* last value counts: a, dropout"):
        assert read_json(tmp_path / "config.json") == {"dropout": 0.2, "x": {"a": 2}}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[" * 1_000_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", "a number has thousands of digits"),
        ('{"a": [' + "[]," * 3_000_000 + "0]}", "are the most that are read"),
        ('{"a": [' + "0," * 9_000_000 + "0]}", "are the most that are read"),
        ('"text"', "must hold a JSON object, it holds a str"),
        ("  \n", "it is empty; fetch it again"),
    ],
    ids=["deep", "deep objects", "long number", "lists", "numbers", "text", "blank"],
)
def test_a_json_file_that_cannot_be_used_is_named_before_it_takes_memory(content, problem, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=problem) as raised:
        read_json(tmp_path / "config.json")
    assert "config.json" in str(raised.value)
    assert "sys.set_int" not in str(raised.value)


class Call:
    """Pickled as a call of a function."""

    def __reduce__(self) -> Any:
        return os.getcwd, ()


PICKLES: dict[str, tuple[Any, str]] = {
    "a function": ({"x": Call()}, r"it names (posix|nt)\.getcwd, which is no part of tensors"),
    "an object": ({"x": Path("x")}, "it names pathlib.*, which is no part of tensors"),
    "a module": (torch.nn.Linear(2, 2), "it names torch.nn.*Linear, which is no part of tensors"),
    "text": (b"This is no model.\n" * 99, "it is no pickle of tensors"),
    "zeros": (bytes(999), "it is no pickle of tensors"),
    "a zip that is none": (b"PK\x03\x04" + b"x" * 99, "damaged"),
    "a cut pickle": (b"\x80\x02]q\x00(", "it ends too early"),
    "another protocol": (b"\x80\x05\x95\x09\0\0\0\0\0\0\0}\x94\x8c\x01a\x94K\x01s.", "no pickle of tensors"),
}


@pytest.mark.parametrize("kind", PICKLES)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_torchs_advice_to_unpickle_anything_never_reaches_a_user(kind, zipped, folder):
    content, problem = PICKLES[kind]
    replace_by_bin(folder, content, _use_new_zipfile_serialization=zipped)
    if isinstance(content, bytes):
        (folder / "pytorch_model.bin").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=problem) as raised:
            Model.from_pretrained(folder)
    message = str(raised.value)
    assert str(folder / "pytorch_model.bin") in message
    assert len(message.splitlines()) == 1
    assert not any(word in message for word in ("weights_only", "torch.load", "safe_globals"))


def test_a_cut_pickle_is_named_at_every_length(folder):
    path = replace_by_bin(folder, weights_of(folder)) / "pytorch_model.bin"
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"pytorch_model\.bin is damaged") as raised:
            Model.from_pretrained(folder)
        assert "weights_only" not in str(raised.value)


def test_two_hundred_thousand_added_tokens_are_refused_by_name(checkpoint):
    tokens = {str(index): {"content": f"<t{index}>"} for index in range(200_000)}
    factories.edit_json(checkpoint / "tokenizer_config.json", added_tokens_decoder=tokens)
    with pytest.raises(ValueError, match="added_tokens_decoder has 200000 added tokens, and 100000 are"):
        tritone.AutoTokenizer.from_pretrained(checkpoint)
    factories.edit_json(checkpoint / "tokenizer_config.json", added_tokens_decoder=None)
    (checkpoint / "added_tokens.json").write_text(json.dumps({f"<t{n}>": n for n in range(200_000)}))
    with pytest.raises(ValueError, match=r"added_tokens\.json has 200000 added tokens"):
        tritone.AutoTokenizer.from_pretrained(checkpoint)


@pytest.mark.parametrize("name", ["spiece.model", "sentencepiece.bpe.model"])
def test_a_damaged_model_of_sentencepiece_is_refused_and_ends_no_process(name, tmp_path):
    """Cut, and with bits of its normalization rules changed: the libraries that apply these check nothing."""
    train_pieces(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    rules = whole.index(b"nmt_nfkc")
    pieces = ["<s>", "<pad>", "</s>", "<unk>"]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    code = (
        "import random, sys, warnings\nfrom pathlib import Path\nimport tritone\n"
        "folder, name, rules = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])\n"
        "whole, draw, refused = (folder / name).read_bytes(), random.Random(0), 0\n"
        "kind = tritone.T5Tokenizer if name == 'spiece.model' else tritone.Speech2TextTokenizer\n"
        "warnings.simplefilter('ignore')\n"
        "for number in range(60):\n"
        "    data = bytearray(whole)\n"
        "    for _ in range(draw.choice([1, 40])):\n"
        "        data[draw.randrange(rules if number % 3 else 0, len(data))] ^= 1 << draw.randrange(8)\n"
        "    (folder / name).write_bytes(data[: len(data) if number % 5 else draw.randrange(len(data))])\n"
        "    try:\n"
        "        tokenizer = kind.from_pretrained(folder)\n"
        "        tokenizer.decode(tokenizer.encode('One ﬁne ½ ｆｕｌｌ naïve 今 e\\u0301'))\n"
        "    except ValueError as error:\n"
        "        refused += 1\n"
        "        assert str(folder) in str(error), error\n"
        "print(refused)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path), name, str(rules)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    assert 20 < int(run.stdout) <= 60
    assert "panicked" not in run.stderr
