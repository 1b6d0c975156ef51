"""2,000 damaged WAV, FLAC and checkpoint files: each gives a result or an error of at most two lines.

Child processes, this file as a script, read them under a limit of memory and a watchdog, so that a crash, a
hang or an allocation by a header fails the test and not the machine. Kind and number determine a file:
`python tests/test_fuzz.py audio FOLDER 17` reads number 17 alone.
"""

import faulthandler
import io
import json
import random
import resource
import shutil
import struct
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

COUNTS = {"audio": 1_400, "checkpoint": 600}
ENGINE_EVERY = 10  # every tenth audio file goes through a whole engine too
ADDRESSES = 1 << 30  # bytes that a child may map beyond what it has once all is imported
MEMORY = 1 << 28  # bytes that it may touch beyond that
TIMEOUT = 60  # seconds for one file before it counts as a hang; the machine may be busy otherwise
DIGITS = Path(__file__).parents[1] / "models" / "digits"
CPU_SECONDS = 5  # that one file may take
RATE = 16_000
MAX_SECONDS = 60.0  # seconds of audio

EXTREMES = [0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0xFFFFFF]
EXTREMES += [2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
ODD_VALUES: list[Any] = [*EXTREMES, -1, -(2**63), 10**30, 0.5, -0.5, 1e308, float("nan"), float("inf")]
ODD_VALUES += [None, True, False, "", "x", "F64", "I8", "../x", "ä\0", "9" * 5_000]
ODD_VALUES += [[], {}, [[]], [0], [2**62, 2**62]]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory and /proc")
@pytest.mark.parametrize("kind", COUNTS)
def test_damaged_files_give_a_result_or_an_error_of_two_lines_in_bounded_time_and_memory(kind, tmp_path):
    command = [sys.executable, __file__, kind, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT * 10)
    outcomes = [json.loads(line) for line in run.stdout.splitlines()]
    last = outcomes[-1] if outcomes else "the start"
    assert run.returncode == 0, f"the child ended with {run.returncode} after {last}\n{run.stderr[-4000:]}"

    *files, summary = outcomes
    wrong = [outcome for outcome in files if outcome["wrong"]]
    assert not wrong, f"{len(wrong)} of {len(files)}, such as\n" + "\n".join(map(str, wrong[:5]))
    assert summary["memory"] < MEMORY, f"{summary['memory']} bytes more than without"
    assert max(outcome["seconds"] for outcome in files) < CPU_SECONDS
    assert len(files) >= COUNTS[kind]
    # All results or all errors would mean that the damage is too little or too much to say anything.
    results = sum(outcome["outcome"] == "a result" for outcome in files)
    assert 0.1 < results / len(files) < 0.9, f"{results} results in {len(files)} files"
    assert len({outcome["outcome"].split(":")[-1][:40] for outcome in files}) > 20


# Damage.


def damaged(content: bytes, header: int, other: bytes, draw: random.Random) -> bytes:
    """A file with one to three things wrong, half of the time within its first `header` bytes."""
    data = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        most = min(header, len(data)) if draw.random() < 0.5 else len(data)
        at = draw.randrange(max(most, 1))
        match draw.randrange(8):
            case 0 | 1:
                for _ in range(draw.choice([1, 1, 2, 8])):
                    if data:
                        data[min(at, len(data) - 1)] ^= 1 << draw.randrange(8)
                    at = draw.randrange(max(most, 1))
            case 2 | 3:
                size = draw.choice([1, 2, 4, 8])
                number = draw.choice(EXTREMES) % (1 << 8 * size)
                data[at : at + size] = number.to_bytes(size, draw.choice(["little", "big"]))
            case 4:
                del data[at:]
            case 5:
                del data[at : at + draw.choice([1, 2, 16, 400])]
            case 6:
                start = draw.randrange(len(data) + 1)
                data[at:at] = data[start : start + draw.choice([1, 4, 64, 2000])] * draw.choice([1, 1, 50])
            case 7:
                start = draw.randrange(len(other))
                piece = other[start : start + draw.choice([4, 64, 2000])]
                data[at : at + len(piece)] = piece
    return bytes(data)


def with_odd_values(value: Any, draw: random.Random) -> Any:
    """A JSON value in which one part, at any depth, is another one, is gone, or is there twice."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.1:
        return draw.choice(ODD_VALUES)
    if isinstance(value, list):
        at = draw.randrange(len(value))
        return [*value[:at], with_odd_values(value[at], draw), *value[at + 1 :]]
    value = dict(value)
    name = draw.choice(list(value))
    match draw.randrange(6):
        case 0:
            value[name + "x"] = value.pop(name)
        case 1:
            del value[name]
        case _:
            value[name] = with_odd_values(value[name], draw)
    return value


# Audio.


def audio_files() -> list[bytes]:
    """A third of a second as WAV and FLAC of many kinds."""
    import numpy as np
    import soundfile

    mono = 0.3 * np.sin(np.arange(5_000) * 0.2) + 0.01 * np.random.default_rng(0).standard_normal(5_000)
    stereo = np.stack([mono, mono[::-1]], axis=1)
    kinds = [("WAV", subtype) for subtype in ("PCM_16", "PCM_16", "PCM_U8", "PCM_24", "FLOAT", "DOUBLE")]
    kinds += [("WAV", subtype) for subtype in ("ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610")]
    kinds += [("WAVEX", "PCM_32"), ("RF64", "PCM_16")]
    kinds += [("FLAC", subtype) for subtype in ("PCM_16", "PCM_16", "PCM_24", "PCM_S8")] * 3
    files = []
    for number, (container, subtype) in enumerate(kinds):
        file = io.BytesIO()
        samples = stereo if number % 3 == 1 and subtype != "GSM610" else mono
        rate = [16_000, 8_000, 44_100][number % 3]
        soundfile.write(file, samples, rate, format=container, subtype=subtype)
        files.append(file.getvalue())
    return files


def read_audio(folder: Path, number: int, content: bytes) -> None:
    import numpy as np

    from tritone.engine.audio.reader import load_audio

    path = audio_path(folder, number)
    path.write_bytes(content)
    samples = load_audio(path, RATE, max_seconds=MAX_SECONDS).samples
    if not (samples.dtype == np.float32 and samples.ndim == 1 and 0 < len(samples) <= MAX_SECONDS * RATE + 1):
        raise AssertionError(f"{samples.dtype} {samples.shape}")
    if not np.isfinite(samples).all():
        raise AssertionError("samples that are not finite")


def audio_path(folder: Path, number: int) -> Path:
    return folder / f"{number:04}.{['wav', 'flac'][number % 2]}"


def fuzz_audio(folder: Path, numbers: list[int]) -> Iterator[tuple[int, Callable[[], None]]]:
    originals = audio_files()
    for number in numbers:
        draw = random.Random(f"audio {number}")
        content = damaged(draw.choice(originals), 64, draw.choice(originals), draw)
        yield number, lambda number=number, content=content: read_audio(folder, number, content)
    yield from fuzz_engine(folder, numbers[::ENGINE_EVERY])


def fuzz_engine(folder: Path, numbers: list[int]) -> Iterator[tuple[int, Callable[[], None]]]:
    """The same files among good ones, which come out as they do alone."""
    import soundfile

    import tritone

    good = folder / "good.wav"
    soundfile.write(good, [0.1 * ((i // 40) % 2) for i in range(8_000)], RATE)
    with tritone.Engine(device="cpu", num_rows=4, num_pages=200) as engine:
        sources = [path for number in numbers for path in (audio_path(folder, number), good)]
        results = engine.transcribe(sources, max_new_tokens=3)
        wanted = engine.submit(good, max_new_tokens=3).result()
        for number in numbers:

            def check() -> None:
                result, beside = next(results), next(results)
                if beside != wanted:
                    raise AssertionError(f"a good recording beside it gave {beside}")
                if result.error is not None:
                    raise result.error

            yield number, check


# Checkpoints.


def checkpoint_files(folder: Path) -> list[dict[str, bytes]]:
    """A tiny model, whole, in shards, and pickled; and the files of a processor."""
    import factories
    import torch

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
    return [{path.name: path.read_bytes() for path in sorted(home.iterdir())} for home in homes]


def fuzz_checkpoint(folder: Path, numbers: list[int]) -> Iterator[tuple[int, Callable[[], None]]]:
    originals = checkpoint_files(folder)
    for number in numbers:
        draw = random.Random(f"checkpoint {number}")
        files = dict(draw.choice(originals))
        name = draw.choice(list(files))
        content = files[name]
        if name.endswith(".json") and draw.random() < 0.8:
            changed = with_odd_values(json.loads(content), draw)
            files[name] = json.dumps(changed, ensure_ascii=False).encode()
        elif name.endswith(".safetensors") and draw.random() < 0.5:
            files[name] = with_odd_header(content, draw)
        else:
            size = struct.unpack("<Q", content[:8])[0] + 8 if name.endswith(".safetensors") else 200
            files[name] = damaged(content, size, originals[0]["model.safetensors"], draw)
        yield number, lambda number=number, files=files: read_checkpoint(folder / str(number), files)


def with_odd_header(content: bytes, draw: random.Random) -> bytes:
    size = struct.unpack("<Q", content[:8])[0]
    header = json.dumps(with_odd_values(json.loads(content[8 : 8 + size]), draw)).encode()
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


def read_checkpoint(folder: Path, files: dict[str, bytes]) -> None:
    import tritone

    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        if "config.json" in files:
            model = tritone.Speech2TextForConditionalGeneration.from_pretrained(folder)
            model.resolve_options()
        else:
            processor = tritone.Speech2TextProcessor.from_pretrained(folder)
            processor.feature_extractor.frame_count(RATE)
            processor.decode(range(10))
    finally:
        shutil.rmtree(folder)


# The child.


def main(kind: str, folder: Path, only: str | None = None) -> None:
    import torch

    from tritone.engine.audio.reader import AudioError
    from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration  # noqa: F401

    faulthandler.enable()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    expected = (AudioError,) if kind == "audio" else (ValueError, FileNotFoundError)
    fuzz = {"audio": fuzz_audio, "checkpoint": fuzz_checkpoint}[kind]
    numbers = list(range(COUNTS[kind])) if only is None else [int(only)]
    before, seen = 0, Counter[int]()
    for number, read in fuzz(folder, numbers):
        if not before:  # the originals are made, and what makes them is imported
            before = memory()
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESSES, mapped + ADDRESSES))
        seen[number] += 1
        name = f"{kind} {number}" + " in the engine" * (seen[number] - 1)
        faulthandler.dump_traceback_later(TIMEOUT, exit=True)
        start, wrong = time.process_time(), None
        try:
            read()
            outcome = "a result"
        except Exception as error:
            message = str(error)
            outcome = f"{type(error).__name__}: {message}"
            if not isinstance(error, expected) or not 0 < len(message.split("\n")) <= 2 or not message:
                wrong = traceback.format_exc()
        seconds = time.process_time() - start
        report = {"file": name, "outcome": outcome, "seconds": round(seconds, 3), "wrong": wrong}
        print(json.dumps(report), flush=True)
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"memory": memory() - before}), flush=True)


def memory() -> int:
    """The most bytes that this process has had in memory until now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parent / "support"))
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
