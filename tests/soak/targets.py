"""Readers that this project wrote, each as a target of coverage-guided fuzzing.

A target's `make` returns seeds, and a function that reads bytes and raises errors of `refused()` or nothing.
Nothing of Tritone is imported before, so that its modules can be instrumented.
"""

import importlib.util
import io
import json
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
DIGITS = TESTS.parent / "models" / "digits"
GOLDEN = TESTS / "conformance" / "golden"

Read = Callable[[bytes], Any]
Made = tuple[list[bytes], Read]


@dataclass(frozen=True)
class Target:
    """A reader with the modules to measure coverage of.

    Args:
        make: returns seeds and the function, which may use the folder.
        modules: modules of Tritone whose branches count.
        is_json: True where seeds are JSON, which is mutated as values too.
    """

    make: Callable[[Path], Made]
    modules: tuple[str, ...]
    is_json: bool = False


def golden(framework: str, name: str) -> bytes:
    with zipfile.ZipFile(GOLDEN / f"{framework}_checkpoints.zip") as archive:
        return archive.read(name)


def refused() -> tuple[type[BaseException], ...]:
    """Errors by which a reader refuses a file."""
    return (ValueError, OSError)


def through_file(folder: Path, name: str, read: Callable[[Path], Any]) -> Read:
    """A function of bytes that writes them to a file and reads that."""

    def call(data: bytes) -> Any:
        (folder / name).write_bytes(data)
        return read(folder / name)

    return call


def sentencepiece(folder: Path) -> Made:
    from tritone.models.tokenizers.sentencepiece_model import read_sentencepiece

    seeds = [(DIGITS / "sentencepiece.bpe.model").read_bytes()[:3000]]

    def read(path: Path) -> None:
        model = read_sentencepiece(path)
        assert len(model.pieces) == len(model.kinds)

    return seeds, through_file(folder, "spiece.model", read)


def tensorflow_index(folder: Path) -> Made:
    from tritone.models.checkpoints.tensorflow import _read_table

    names = ("model.ckpt", "compressed.model.ckpt")
    seeds = [golden("tensorflow", f"bert/index/{name}.index") for name in names]
    return seeds, through_file(folder, "model.ckpt.index", _read_table)


def tensorflow_block(folder: Path) -> Made:
    """A block's content, with its checksum put right, as a whole index."""
    from tritone.models.checkpoints.tensorflow import _read_table

    made = by_path(TESTS / "models" / "checkpoints" / "test_tensorflow.py")
    rows = [made.ONE, (b"m/a", made.place()), (b"m/b", made.place((2, 3), 8, 24))]
    plain = made.block(rows)[:-5]

    def read(path: Path) -> None:
        _read_table(path)

    call = through_file(folder, "model.ckpt.index", read)
    kinds = (0, 1)  # as it is, and compressed by Snappy
    return [b"\0" + plain, b"\1" + snappy(plain)], lambda data: call(
        made.table([], made.block([], kinds[data[0] & 1] if data else 0, data[1:]))
    )


def snappy(data: bytes) -> bytes:
    """Data in Snappy's format, all of it literals."""
    made = by_path(TESTS / "models" / "checkpoints" / "test_tensorflow.py")
    pieces = [data[start : start + 60] for start in range(0, len(data), 60)]
    return bytes(made.varint(len(data))) + b"".join(bytes([len(piece) - 1 << 2]) + piece for piece in pieces)


def flax(folder: Path) -> Made:
    from tritone.models.checkpoints.flax import read_msgpack

    seeds = [golden("flax", f"{name}/flax_model.msgpack")[:20_000] for name in ("bert", "bert_decoder")]
    import msgpack

    seeds += [msgpack.packb({"a": {"b": msgpack.ExtType(1, msgpack.packb(((2,), "float32", bytes(8))))}})]
    return seeds, through_file(folder, "flax_model.msgpack", read_msgpack)


def ctranslate2(folder: Path) -> Made:
    import numpy as np
    from ctranslate2_files import model, variable

    from tritone.models.checkpoints.ctranslate2 import read_ctranslate2

    one, many = np.ones((2, 3), np.float16), np.ones((2, 3), np.int8)
    seeds = [
        model(variable("a/b", one), aliases=(("c", "a/b"),)),
        model(variable("a", many), variable("a_scale", np.ones(2, np.float32)), version=5),
    ]
    return seeds, through_file(folder, "model.bin", read_ctranslate2)


def safetensors(folder: Path) -> Made:
    import torch
    from safetensors.torch import save

    from tritone.models.checkpoints.files import Checkpoint
    from tritone.models.checkpoints.weights import read_weights

    seeds = [save({"a": torch.ones(2, 3), "b": torch.zeros(1, dtype=torch.float16)}, {"format": "pt"})]

    def read(_: Path) -> None:
        for tensor in read_weights(Checkpoint("x", folder)).values():
            tensor.float().sum()

    return seeds, through_file(folder, "model.safetensors", read)


def pickled(folder: Path) -> Made:
    import torch

    from tritone.models.checkpoints.files import Checkpoint
    from tritone.models.checkpoints.weights import read_weights

    file, old = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.ones(2, 3)}, file)
    torch.save({"a": torch.ones(2, 3)}, old, _use_new_zipfile_serialization=False)
    return [file.getvalue(), old.getvalue()], through_file(
        folder, "pytorch_model.bin", lambda _: read_weights(Checkpoint("x", folder))
    )


def config(folder: Path) -> Made:
    from tritone.models.auto import AutoConfig

    seeds = [(DIGITS / "config.json").read_bytes()]
    seeds += [golden("flax", f"{name}/config.json") for name in ("bert", "bert_decoder")]
    return seeds, through_file(folder, "config.json", lambda _: AutoConfig.from_pretrained(folder))


def generation_config(folder: Path) -> Made:
    from tritone.models.core.generation_config import GenerationConfig

    seeds = [(DIGITS / "generation_config.json").read_bytes()]
    seeds.append(b'{"num_beams": 5, "max_length": 200, "eos_token_id": [2, 3], "bad_words_ids": [[5, 6]]}')
    return seeds, through_file(
        folder, "generation_config.json", lambda _: GenerationConfig.from_pretrained(folder)
    )


def feature_extractor(folder: Path) -> Made:
    from tritone.models.speech_to_text.feature_extractor import Speech2TextFeatureExtractor

    seeds = [(DIGITS / "preprocessor_config.json").read_bytes()]
    return seeds, through_file(
        folder,
        "preprocessor_config.json",
        lambda _: Speech2TextFeatureExtractor.from_pretrained(folder).frame_count(16_000),
    )


def shards(folder: Path) -> Made:
    from tritone.models.checkpoints.files import Checkpoint, find_shards

    (folder / "model-1.safetensors").write_bytes(b"")
    seeds = [json.dumps({"metadata": {}, "weight_map": {"a": "model-1.safetensors"}}).encode()]
    checkpoint = Checkpoint("x", folder)
    return seeds, through_file(
        folder, "model.safetensors.index.json", lambda path: list(find_shards(checkpoint, path))
    )


def _tokenizer(folder: Path, changed: str, files: dict[str, bytes], tokenizer_class: Any) -> Read:
    """A function that loads a tokenizer with one file changed, and uses it."""
    for name, content in files.items():
        (folder / name).write_bytes(content)

    def read(_: Path) -> None:
        tokenizer = tokenizer_class.from_pretrained(folder)
        ids = tokenizer("two seven <s> x").input_ids
        tokenizer.decode(ids)
        tokenizer.decode(range(min(len(tokenizer), 20)), skip_special_tokens=True)

    return through_file(folder, changed, read)


def _speech_to_text(changed: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        from tritone.models.speech_to_text.tokenizer import Speech2TextTokenizer

        names = ("vocab.json", "tokenizer_config.json", "sentencepiece.bpe.model")
        files = {name: (DIGITS / name).read_bytes() for name in names}
        return [files[changed]], _tokenizer(folder, changed, files, Speech2TextTokenizer)

    return make


def _wav2vec2(changed: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        from tritone.models.wav2vec2.tokenizer import Wav2Vec2CTCTokenizer

        letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFG'"]
        files = {
            "vocab.json": json.dumps({letter: index for index, letter in enumerate(letters)}).encode(),
            "tokenizer_config.json": json.dumps(
                {
                    "unk_token": "<unk>",
                    "do_lower_case": True,
                    "added_tokens_decoder": {"12": {"content": "<x>"}},
                }
            ).encode(),
        }
        return [files[changed]], _tokenizer(folder, changed, files, Wav2Vec2CTCTokenizer)

    return make


def _results(kind: str) -> Callable[[Path], Made]:
    """An output file that a run continues: refused, or whole lines stay and a new one can be read."""

    def make(folder: Path) -> Made:
        from tritone.engine.cli.outputs.lines import LineFormat, Origin
        from tritone.engine.cli.outputs.results_file import ResultsFile
        from tritone.engine.outputs import Transcription
        from tritone.scheduler.request import FinishReason

        origin = Origin("m", {"num_beams": None})
        good = Transcription("one\ttwo", (1, 2), FinishReason.STOP, 1.0, score=-0.5)
        failed = Transcription("", (), FinishReason.ERROR, 0.0, error=ValueError("no"))
        path, line_format = folder / f"out.{kind}", LineFormat(kind)

        def append(*names: str) -> None:
            with ResultsFile(path, line_format, origin) as results:
                results.begin([Path(name) for name in names])
                for name in names:
                    results.write(Path(name), failed if name.startswith("f") else good)

        append("a b.wav", "f.wav", "c\n\udcff.wav")
        seeds = [path.read_bytes(), b""]

        def call(data: bytes) -> None:
            path.write_bytes(data)
            try:
                append("new.wav")
            except (ValueError, OSError):
                assert path.read_bytes() == data, "a refused file was changed"
                raise
            after = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            # Nothing but a failure of the same name is ever taken out.
            assert after.startswith(whole) or b"new.wav" in whole, "a whole line is gone"
            with ResultsFile(path, line_format, origin) as results:
                assert results.has(Path("new.wav"))

        return seeds, call

    return make


def index(folder: Path) -> Made:
    """The index of a folder of results: refused and left alone, or completed."""
    from tritone.engine.cli.outputs.formats import Format
    from tritone.engine.cli.outputs.lines import Origin
    from tritone.engine.cli.outputs.results_folder import INDEX, ResultsFolder
    from tritone.engine.outputs import Transcription
    from tritone.scheduler.request import FinishReason

    good = Transcription("one\ttwo", (1, 2), FinishReason.STOP, 1.0, score=-0.5)
    output, path = folder / "out", Path("new.wav")

    def complete(*paths: Path) -> None:
        with ResultsFolder(output, (Format.SRT,), Origin("m", {"num_beams": None}), paths) as results:
            results.begin(paths)
            for each in paths:
                if not results.has(each):
                    results.write(each, good)

    complete(Path("a b.wav"), Path("c\n\udcff.wav"))
    seeds = [(output / INDEX).read_bytes(), b""]

    def call(data: bytes) -> None:
        (output / INDEX).write_bytes(data)
        for file in output.rglob("*.srt"):
            file.unlink()
        try:
            complete(path)
        except (ValueError, OSError):
            assert (output / INDEX).read_bytes() == data, "a refused index was changed"
            raise
        assert (output / INDEX).read_bytes().startswith(data[: data.rfind(b"\n") + 1]), "a whole line is gone"
        assert len(list(output.rglob("*.srt"))) == 1

    return seeds, call


def audio(folder: Path) -> Made:
    import audio_files

    from tritone.engine.audio.reader import load_audio

    files = {**audio_files.libsndfile_files(), **audio_files.pyav_files()}
    seeds = [content[:8_000] for content in files.values()]
    return seeds, lambda data: load_audio(data, 16_000, max_seconds=60.0)


def by_path(path: Path) -> Any:
    """A file of tests as a module."""
    if path.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[path.stem])
    return sys.modules[path.stem]


_CHECKPOINTS = "tritone.models.checkpoints"
_SLOW = ("tritone.models.tokenizers.slow", "tritone.models.tokenizers.options", f"{_CHECKPOINTS}.files")
_AUDIO = (
    "reader",
    "decode",
    "sources",
    "libsndfile",
    "pyav",
    "flac",
    "g711",
    "downmix",
    "layout.boxes",
    "layout.chunks",
    "layout.find",
    "layout.frames",
    "layout.ogg",
    "layout.parts",
)
TARGETS = {
    "sentencepiece": Target(
        sentencepiece, ("tritone.models.tokenizers.sentencepiece_model", f"{_CHECKPOINTS}.protobuf")
    ),
    "tensorflow": Target(tensorflow_index, (f"{_CHECKPOINTS}.tensorflow", f"{_CHECKPOINTS}.protobuf")),
    "tensorflow-block": Target(tensorflow_block, (f"{_CHECKPOINTS}.tensorflow", f"{_CHECKPOINTS}.protobuf")),
    "flax": Target(flax, (f"{_CHECKPOINTS}.flax", f"{_CHECKPOINTS}.mapped_file")),
    "ctranslate2": Target(ctranslate2, (f"{_CHECKPOINTS}.ctranslate2", f"{_CHECKPOINTS}.mapped_file")),
    "safetensors": Target(safetensors, (f"{_CHECKPOINTS}.weights", f"{_CHECKPOINTS}.files")),
    "pickled": Target(pickled, (f"{_CHECKPOINTS}.weights",)),
    "config": Target(config, ("tritone.models.core.config", "tritone.models.core.fields"), is_json=True),
    "generation-config": Target(generation_config, ("tritone.models.core.generation_config",), is_json=True),
    "feature-extractor": Target(
        feature_extractor, ("tritone.models.processors.feature_extractor",), is_json=True
    ),
    "shards": Target(shards, (f"{_CHECKPOINTS}.files",), is_json=True),
    "vocabulary": Target(_speech_to_text("vocab.json"), _SLOW, is_json=True),
    "tokenizer-config": Target(_speech_to_text("tokenizer_config.json"), _SLOW, is_json=True),
    "letters": Target(_wav2vec2("vocab.json"), _SLOW, is_json=True),
    "letters-config": Target(_wav2vec2("tokenizer_config.json"), _SLOW, is_json=True),
    "results-jsonl": Target(_results("jsonl"), ("tritone.engine.cli.outputs.results_file",)),
    "results-text": Target(_results("text"), ("tritone.engine.cli.outputs.results_file",)),
    "results-index": Target(index, ("tritone.engine.cli.outputs.results_folder",)),
    "audio": Target(audio, tuple(f"tritone.engine.audio.{name}" for name in _AUDIO)),
}
