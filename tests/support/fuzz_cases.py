"""Damaged files of every kind, each with a function that reads it; tests/test_fuzz.py runs them.

A case's name and number determine its file. Errors that a reader may raise are in EXPECTED.
"""

import io
import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from damage import damaged, damaged_json, damaged_safetensors, damaged_weights

Case = tuple[str, Callable[[], Any]]

DIGITS = Path(__file__).parents[2] / "models" / "digits"
RATE = 16_000
MAX_SECONDS = 60.0  # seconds of audio
ENGINE_EVERY = 20  # every so many-th audio file goes through a whole engine too
TEXT = "the quick brown fox, isn't it? seven ÜBER 今天 <pad>"


# Audio.


def audio(folder: Path, numbers: Sequence[int], kind: str) -> Iterator[Case]:
    """Files of libsndfile's formats or PyAV's, as a path, as bytes and as a file object in turn."""
    import audio_files

    files = audio_files.libsndfile_files() if kind == "libsndfile" else audio_files.pyav_files()
    names = list(files)
    for number in numbers:
        draw = random.Random(f"{kind} {number}")
        name = names[number % len(names)]
        content = damaged(files[name], draw.choice([64, 600]), files[draw.choice(names)], draw)
        form = ["path", "bytes", "file"][number // len(names) % 3]
        suffix = draw.choice([name.split("-")[0], "wav", "mp3", "m4a", "ogg", "bin"])
        path = folder / f"{kind}-{number:05}.{suffix}"
        yield f"{kind} {number} ({name}, {form})", partial(read_audio, path, content, form)
    yield from in_engine(folder, [n for n in numbers if n % ENGINE_EVERY == 0], kind)


def read_audio(path: Path, content: bytes, form: str) -> None:
    """Read a file in one of its forms, and check the samples."""
    import numpy as np

    from tritone.engine.audio.reader import load_audio

    path.write_bytes(content)
    source: Any = {"path": path, "bytes": content, "file": io.BytesIO(content)}[form]
    samples = load_audio(source, RATE, max_seconds=MAX_SECONDS).samples
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert 0 < len(samples) <= MAX_SECONDS * RATE + 1, f"{len(samples)} samples"
    assert np.isfinite(samples).all()


def in_engine(folder: Path, numbers: Sequence[int], kind: str) -> Iterator[Case]:
    """The same files among good ones, which come out as they do alone."""
    import soundfile

    import tritone

    good = folder / "good.wav"
    soundfile.write(good, [0.1 * ((i // 40) % 2) for i in range(8_000)], RATE)
    paths = [path for number in numbers for path in folder.glob(f"{kind}-{number:05}.*")]
    with tritone.Engine("digits", device="cpu", num_rows=4, num_pages=200) as engine:
        results = engine.transcribe([one for path in paths for one in (path, good)], max_new_tokens=3)
        wanted = engine.submit(good, max_new_tokens=3).result()
        for path in paths:

            def check() -> None:
                result, beside = next(results), next(results)
                assert beside == wanted, f"a good recording beside it gave {beside}"
                if result.error is not None:
                    raise result.error

            yield f"{path.name} in an engine", check


# Checkpoints.


def written(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def with_damage(files: dict[str, bytes], name: str, draw: random.Random) -> dict[str, bytes]:
    """Files of a checkpoint with one of them damaged: JSON mostly in a value."""
    content = files[name]
    if name.endswith(".json") and draw.random() < 0.8:
        content = damaged_json(content, draw)
    elif name.endswith(".safetensors") and draw.random() < 0.5:
        content = damaged_safetensors(content, draw)
    else:
        content = damaged(content, 200, draw.choice(list(files.values())), draw)
    return files | {name: content}


def checkpoints(folder: Path, numbers: Sequence[int]) -> Iterator[Case]:
    """A tiny model, whole, in shards, and pickled; the files of a processor; and both of Whisper."""
    import factories
    import torch
    import whisper_checkpoints

    import tritone

    torch.manual_seed(0)
    config = factories.smallest_speech_to_text_config(
        vocab_size=20, max_target_positions=40, input_feat_per_channel=4
    )
    model = tritone.Speech2TextForConditionalGeneration(config)
    homes = [folder / name for name in ("whole", "shards", "pickled", "processor")]
    model.save_pretrained(homes[0])
    model.save_pretrained(homes[1], max_shard_size="4KB")
    model.save_pretrained(homes[2], safe_serialization=False)
    tritone.Speech2TextProcessor.from_pretrained(DIGITS).save_pretrained(homes[3])
    homes.append(whisper_checkpoints.write_whisper_checkpoint(folder / "whisper"))
    originals = [contents(home) for home in homes]
    for number in numbers:
        draw = random.Random(f"checkpoint {number}")
        files = draw.choice(originals)
        name = draw.choice(list(files))
        files = with_damage(files, name, draw)
        yield f"checkpoint {number} ({name})", partial(read_checkpoint, folder / str(number), files)


def read_checkpoint(folder: Path, files: dict[str, bytes]) -> None:
    """Load a model and its options, or a processor, or both."""
    import tritone

    family = "Whisper" if "normalizer.json" in files else "Speech2Text"
    try:
        written(folder, files)
        if "config.json" in files:
            model = getattr(tritone, f"{family}ForConditionalGeneration").from_pretrained(folder)
            model.resolve_options()
        if "preprocessor_config.json" in files:
            processor = getattr(tritone, f"{family}Processor").from_pretrained(folder)
            processor.feature_extractor.frame_count(RATE)
            processor.decode(range(10))
    finally:
        shutil.rmtree(folder)


# Library tokenizers, and what a model does with damaged weights: through an engine, as users meet them.


def tokenizers(folder: Path, numbers: Sequence[int]) -> Iterator[Case]:
    """Classifiers of texts whose tokenizer's files are damaged: tokenizer.json, spiece.model, vocab.txt."""
    originals = text_checkpoints(folder)
    for number in numbers:
        draw = random.Random(f"tokenizer {number}")
        files = draw.choice(originals)
        names = [
            n for n in files if n in ("tokenizer.json", "spiece.model", "tokenizer_config.json", "vocab.txt")
        ]
        name = draw.choice(names)
        files = with_damage(files, name, draw)
        yield f"tokenizer {number} ({name})", partial(classify_with, folder / str(number), files)


def text_checkpoints(folder: Path) -> list[dict[str, bytes]]:
    """A BERT with its own tokenizer in both forms, and a T5 with SentencePiece's file."""
    import factories
    import tokenizer_checks as checks

    import tritone

    bert, t5 = folder / "bert", folder / "t5"
    bert.mkdir()
    t5.mkdir()
    factories.write_text_classifier(bert)
    checks.train_sentencepiece(t5 / "spiece.model", **checks.SENTENCEPIECE[checks.T5Tokenizer])
    (t5 / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 4}))
    config = tritone.T5Config(
        vocab_size=130,
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_decoder_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
        num_labels=2,
    )
    factories.seeded(tritone.T5ForSequenceClassification, config).save_pretrained(t5)
    with_table = contents(bert)
    with_text = {name: content for name, content in with_table.items() if name != "tokenizer.json"}
    return [with_table, with_text, contents(t5)]


def classify_with(folder: Path, files: dict[str, bytes]) -> None:
    """Load a classifier of texts in an engine and classify some: labels with finite scores, or errors."""
    import math

    import tritone

    try:
        written(folder, files)
        with tritone.Engine(folder, device="cpu") as engine:
            results = list(engine.classify([TEXT, "", "two\n\tthree" * 9, TEXT]))
        errors = [result.error for result in results if result.error is not None]
        for result in results:
            assert result.error is not None or all(math.isfinite(label.score) for label in result.labels)
        if errors:
            raise errors[0]
    finally:
        shutil.rmtree(folder)


def inference(folder: Path, numbers: Sequence[int]) -> Iterator[Case]:
    """Checkpoints whose weights have other bytes: refused, an error per request, or finite results."""
    import factories

    homes = [folder / "generation", folder / "ctc"]
    for home in homes:
        home.mkdir()
    factories.write_checkpoint(homes[0])
    factories.write_ctc_checkpoint(homes[1])
    originals = [contents(home) for home in homes]
    for number in numbers:
        draw = random.Random(f"inference {number}")
        files = draw.choice(originals)
        name = "model.safetensors"
        files = files | {name: damaged_weights(files[name], draw)}
        yield f"inference {number}", partial(transcribe_with, folder / str(number), files)


def transcribe_with(folder: Path, files: dict[str, bytes]) -> None:
    """Load a recognizer in an engine and transcribe two recordings: finite scores, or errors."""
    import math

    import factories

    import tritone

    try:
        written(folder, files)
        with tritone.Engine(folder, device="cpu") as engine:
            options = {"max_new_tokens": 8} if engine.model.task == "speech_seq2seq" else {}
            results = list(engine.transcribe([factories.waveform(1), factories.waveform(2)], **options))
        for result in results:
            assert result.error is not None or math.isfinite(result.score or 0.0), f"succeeded with {result}"
            assert result.error is None or not result.text
        for result in results:
            if result.error is not None:
                raise result.error
    finally:
        shutil.rmtree(folder)


def expected(kind: str) -> tuple[type[BaseException], ...]:
    """Errors that reading a damaged file of this kind may raise."""
    from tritone.engine.audio.reader import AudioError

    if kind in ("libsndfile", "pyav"):
        return (AudioError,)
    # Requests of a model that is not what it was fail with RuntimeError, as non-finite scores do.
    return (ValueError, FileNotFoundError, *([RuntimeError] if kind in ("tokenizer", "inference") else []))


KINDS: dict[str, Callable[[Path, Sequence[int]], Iterator[Case]]] = {
    "libsndfile": partial(audio, kind="libsndfile"),
    "pyav": partial(audio, kind="pyav"),
    "checkpoint": checkpoints,
    "tokenizer": tokenizers,
    "inference": inference,
}
