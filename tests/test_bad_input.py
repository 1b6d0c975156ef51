"""Bad input: an error of one or two lines with the value and the remedy, and nothing else is lost.

Each row of docs/errors.md has its case here, through the command or the engine, as a user meets it. More:

    recordings     tests/engine/audio/test_reader.py (files and arrays), tests/engine/test_engine.py (their
                   place in a job), tests/models/speech_to_text/test_feature_extractor.py (the processor)
    silence        tests/kernels/norm/test_utterance_cmvn.py (a constant bin)
    checkpoints    tests/models/core/test_loading.py, tests/models/test_auto.py,
                   tests/models/checkpoints/test_hub.py (every answer of a hub, and none)
    a request      tests/scheduler/test_scheduler.py (one that can never fit)
    options        tests/models/core/test_generation_config.py (every unsupported one, every range)
    mutated files  tests/test_fuzz.py
"""

import json
import os
import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from commands import SOON, records, tritone_invoke, tritone_process
from safetensors.torch import load_file, save_file

import tritone
from tritone.engine.audio.reader import AudioError

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "models" / "digits"
SAMPLE = ROOT / "samples" / "digits" / "two_digits_16k.wav"
RATE = 16_000
MAX_SECONDS = 240  # seconds, in place of a day


command = partial(tritone_invoke, "transcribe")


def is_brief(message: str) -> bool:
    return 0 < len(message.strip().split("\n")) <= 2


# Recordings, all in one job.


def tone(seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(np.arange(int(seconds * RATE)) * 0.2)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = RATE, **options) -> None:
    soundfile.write(path, samples, rate, **options)


def write_cut(path: Path) -> None:
    write(path, tone())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_with(value: float) -> Callable[[Path], None]:
    samples = tone()
    samples[7] = value
    return lambda path: write(path, samples, subtype="FLOAT")


def write_at(rate: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write(path, tone())
        content = bytearray(path.read_bytes())
        content[24:28] = struct.pack("<I", rate)
        path.write_bytes(content)

    return make


RECORDINGS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a missing file": ("gone.wav", lambda path: None, "no such file.*check the path"),
    "an empty file": ("empty.flac", Path.touch, r"is empty \(0 bytes\); copy or record it again"),
    "a text file called .wav": (
        "text.wav",
        lambda path: path.write_text("This is a letter, not a recording.\n" * 99),
        r"damaged, or not audio \(.*\); convert it: ffmpeg",
    ),
    "a pointer of Git LFS": (
        "lfs.flac",
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "is a Git LFS pointer, not the file itself; fetch that with `git lfs pull`",
    ),
    "a web page": (
        "page.mp3",
        lambda path: path.write_text("<!DOCTYPE html>\n<html><title>404 Not Found</title></html>"),
        "is a web page, perhaps an error in place of the file; fetch it again",
    ),
    "a truncated FLAC": ("cut.flac", write_cut, "damaged .*: ffmpeg -i IN out.wav"),
    "zero samples": (
        "none.wav",
        lambda path: write(path, np.zeros(0)),
        "holds no samples; leave it out",
    ),
    "NaN": ("nan.wav", write_with(np.nan), "sample 7 is nan; repair or re-export"),
    "infinity": ("inf.wav", write_with(-np.inf), "sample 7 is -inf; repair or re-export"),
    "a wrong sampling rate": (
        "rate.wav",
        write_at(3),
        "sampling rate 3; it must be a whole number from 1000 to 768000 Hz",
    ),
    "shorter than one frame": (
        "short.wav",
        lambda path: write(path, tone(0.02)),
        "20.0 ms, shorter than one frame of 25 ms; leave it out",
    ),
}
GOOD: dict[str, Callable[[Path], object]] = {
    "a_first.wav": lambda path: shutil.copy(SAMPLE, path),
    "silence.wav": lambda path: write(path, np.zeros(RATE)),
    "z_last.wav": lambda path: shutil.copy(SAMPLE, path),
}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """All of them through the command at once: its end, and its JSON lines by file name."""
    folder = tmp_path_factory.mktemp("recordings")
    names = sorted([*GOOD, *(name for name, _, _ in RECORDINGS.values())])
    for name, make, _ in [*RECORDINGS.values(), *((name, make, "") for name, make in GOOD.items())]:
        make(folder / name)
    output = folder / "out.jsonl"
    run = command(
        *(folder / name for name in names), "--model", "digits", "--output", output, "--device", "cpu"
    )
    found = records(output)
    assert [Path(record["path"]).name for record in found] == names, run.output
    return run, {Path(record["path"]).name: record for record in found}


@pytest.mark.parametrize("line", RECORDINGS)
def test_a_bad_recording_is_named_with_what_is_wrong_and_what_to_do(job, line):
    run, found = job
    name, _, message = RECORDINGS[line]
    record = found[name]
    assert (record["text"], record["finish_reason"]) == (None, "error")
    assert str(record["path"]) in record["error"]
    assert is_brief(record["error"])
    with pytest.raises(AudioError, match=message):
        raise AudioError(record["error"])
    assert record["error"] in run.stderr


def test_the_other_recordings_are_transcribed_and_the_exit_code_is_1(job):
    run, found = job
    assert run.exit_code == 1
    assert [name for name, record in found.items() if record["error"] is None] == sorted(GOOD)
    assert found["a_first.wav"]["text"] == found["z_last.wav"]["text"] != ""
    assert f"{len(found)} files" in run.stderr
    assert f"{len(RECORDINGS)} failed" in run.stderr


def test_digital_silence_gets_a_result_from_finite_features(job):
    _, found = job
    silence = found["silence.wav"]
    assert silence["finish_reason"] in ("stop", "length")
    assert np.isfinite(silence["score"])
    extractor = tritone.Speech2TextFeatureExtractor()
    features = extractor(np.zeros(RATE, np.float32), sampling_rate=RATE, return_tensors="pt").input_features
    assert torch.equal(features, torch.zeros_like(features))


# Arrays and requests, in one engine.


@pytest.fixture(scope="module")
def engine():
    config = tritone.EngineConfig(num_rows=4, num_pages=80, max_seconds=MAX_SECONDS)
    with tritone.Engine("digits", device="cpu", config=config) as engine:
        yield engine


REQUESTS: dict[str, tuple[dict, str]] = {
    "zero samples": ({"source": np.zeros(0, np.float32)}, r"array \(0,\): holds no samples"),
    "NaN": ({"source": np.full(RATE, np.nan)}, "sample 0 is nan; repair"),
    "infinity": ({"source": np.full(RATE, np.inf)}, "sample 0 is inf; repair"),
    "a 2-D array of channels": (
        {"source": np.zeros((2, RATE))},
        r"array \(2, 16000\): reads as 16000 channels of 2 samples; pass \[samples, channels\].* array\.T",
    ),
    "a 3-D array": ({"source": np.zeros((1, 2, RATE))}, r"array \(1, 2, 16000\): has 3 dimensions; pass"),
    "a wrong sampling rate": (
        {"source": tone(), "sampling_rate": -8_000},
        "sampling rate -8000; it must be a whole number from 1000 to 768000 Hz",
    ),
    "shorter than one frame": (
        {"source": np.zeros(399, np.float32)},
        r"array \(399,\): 24.9 ms, shorter than one frame of 25 ms; leave it out",
    ),
    "longer than max_seconds": (
        {"source": np.zeros((MAX_SECONDS + 1) * RATE, np.float32)},
        f"longer than {MAX_SECONDS}.0 s, the most that is taken at once; split it",
    ),
    "a request that can never fit: rows": (
        {"source": tone(), "num_beams": 5},
        "needs 5 rows .* has 4; raise num_rows, or ask for fewer beams",
    ),
    "a request that can never fit: pages": (
        {"source": tone(60), "max_window": 60},
        r"needs \d+ pages .* the cache has 80; raise num_pages, or .* less audio",
    ),
}


@pytest.mark.parametrize("line", REQUESTS)
def test_a_bad_request_fails_alone_with_what_is_wrong_and_what_to_do(engine, line):
    request, message = REQUESTS[line]
    before, after = engine.submit(SAMPLE), None
    handle = engine.submit(**request)
    after = engine.submit(SAMPLE)
    with pytest.raises(ValueError, match=message) as raised:
        handle.result(SOON)
    assert is_brief(str(raised.value))
    assert before.result(SOON).text == after.result(SOON).text != ""


def test_the_processor_refuses_a_rate_that_is_not_the_models():
    with pytest.raises(ValueError, match="8000 Hz for a feature extractor of 16000 Hz; resample"):
        tritone.Speech2TextFeatureExtractor()(tone(), sampling_rate=8_000)


OPTIONS: dict[str, tuple[dict, str]] = {
    "max_length above the positions": (
        {"max_length": 1025},
        "max_length is 1025; it must be 2 to 1024, the model's decoder positions",
    ),
    "max_window above the model's positions": (
        {"max_window": 241},
        r"max_window is 241; it must be a number of seconds from 0\.1 to 239\.9, the longest window that",
    ),
    "an unsupported option": ({"penalty_alpha": 0.6}, "penalty_alpha=0.6 is not supported; leave it out"),
    "an unknown option": ({"num_beam": 2}, "unknown generation option 'num_beam'; known: .*num_beams"),
}


@pytest.mark.parametrize("line", OPTIONS)
def test_a_bad_option_is_refused_when_it_is_given(engine, line):
    options, message = OPTIONS[line]
    for call in (lambda: engine.submit(SAMPLE, **options), lambda: engine.transcribe([SAMPLE], **options)):
        with pytest.raises(ValueError, match=message) as raised:
            call()
        assert is_brief(str(raised.value))


# Checkpoints, each through the command.


def edit(name: str, **fields) -> Callable[[Path], None]:
    """Set fields of a JSON file; None removes one."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text()) | fields
        fields_left = {key: value for key, value in content.items() if value is not None}
        (folder / name).write_text(json.dumps(fields_left))

    return change


def without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.decoder.layers.1.fc2.bias"]
    save_file(tensors, folder / "model.safetensors")


def with_header(header: bytes, size: int | None = None) -> Callable[[Path], None]:
    """Put another header before the tensors, with `size` as its declared length in bytes."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = path.read_bytes()
        data = content[8 + struct.unpack("<Q", content[:8])[0] :]
        path.write_bytes(struct.pack("<Q", len(header) if size is None else size) + header + data)

    return change


def one_tensor(shape: list[int], offsets: list[int]) -> bytes:
    return json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()


def with_shard(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        names = load_file(folder / "model.safetensors").keys()
        (folder / "model.safetensors").rename(folder.parent / "stolen.safetensors")
        index = {"weight_map": dict.fromkeys(names, name)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


class Call:
    """Pickled as a call of a function."""

    def __reduce__(self) -> tuple:
        return os.getcwd, ()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"x": Call()}, folder / "pytorch_model.bin")


DAMAGED = r"model\.safetensors is damaged \(.*\); fetch it again"
CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a config without model_type": (
        edit("config.json", model_type=None),
        r"has model_type None; supported here: .*speech_to_text.*; write one into its config\.json",
    ),
    "an unknown model_type": (edit("config.json", model_type="parrot"), "'parrot'.*speech_to_text"),
    "a missing tensor": (without_a_tensor, r"do not fit .*missing: model\.decoder\.layers\.1\.fc2\.bias"),
    "a corrupted safetensors header": (with_header(b'{"x": {"dtype": "F32", "sha'), DAMAGED),
    "a safetensors header of zeros": (with_header(bytes(99)), DAMAGED),
    "a header of 9 exabytes": (with_header(b"{}", size=2**63), DAMAGED),
    "a tensor of 4 exabytes": (with_header(one_tensor([2**30, 2**30], [0, 2**62])), DAMAGED),
    "a tensor of more elements than 64 bits count": (
        with_header(one_tensor([2**40, 2**40], [0, 8])),
        DAMAGED,
    ),
    "a model of absurd size": (
        edit("config.json", vocab_size=10**7),
        r"the configuration describes a model of over .*; correct its sizes: vocab_size 10000000",
    ),
    "a model of absurdly many layers": (
        edit("config.json", encoder_layers=4000),
        "the configuration describes a model of over .* parameters.*correct its sizes: encoder_layers 4000",
    ),
    "more layers than any model has": (
        edit("config.json", encoder_layers=10**9),
        r"config\.json: encoder_layers must be a whole number from 0 to 4,096, got 1000000000",
    ),
    "fewer layers than none": (edit("config.json", decoder_layers=-2), "decoder_layers must be .* got -2"),
    "architectures that are a number": (
        edit("config.json", architectures=0.5),
        r"config\.json: architectures must be a list, each item text or null, got 0\.5",
    ),
    "a dropout that is text": (
        edit("config.json", dropout=""),
        r"config\.json: dropout must be a number from 0 to 1, got ''",
    ),
    "a billion mel bins": (
        edit("preprocessor_config.json", num_mel_bins=10**9),
        r"preprocessor_config\.json: num_mel_bins must be a whole number from 1 to 1,024, got 1000000000",
    ),
    "a length that is an object": (
        edit("generation_config.json", max_length={}),
        r"generation_config\.json: max_length must be a whole number from 0 to .*, got \{\}",
    ),
    "200,000 added tokens": (
        edit("tokenizer_config.json", added_tokens_decoder={str(n): f"<t{n}>" for n in range(200_000)}),
        r"tokenizer_config\.json: added_tokens_decoder has 200000 added tokens, and 100000 are the most",
    ),
    "weights that are a Git LFS pointer": (
        lambda folder: (folder / "model.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
        ),
        r"model\.safetensors is a Git LFS pointer, not the file itself; fetch that with `git lfs pull`",
    ),
    "weights of more than tensors": (
        pickled,
        r"pytorch_model\.bin is damaged, or holds more than tensors .*it names posix\.getcwd",
    ),
    "a shard name with ../": (with_shard("../stolen.safetensors"), r"outside its folder: '\.\./stolen"),
    "max_length above the positions": (
        edit("generation_config.json", max_length=5_000),
        "max_length is 5000; it must be 2 to 1024, the model's decoder positions",
    ),
    "an unsupported option in generation_config.json": (
        edit("generation_config.json", penalty_alpha=0.6),
        "generation option penalty_alpha=0.6 is not supported",
    ),
    "weights that are text": (
        lambda folder: (folder / "model.safetensors").write_text("not a model\n" * 99),
        DAMAGED,
    ),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        r"has no weights.*; save the model as safetensors|neither model\.safetensors",
    ),
}


@pytest.mark.parametrize("line", CHECKPOINTS)
def test_a_bad_checkpoint_ends_the_command_with_2_and_what_is_wrong(tmp_path, line):
    damage, message = CHECKPOINTS[line]
    folder = tmp_path / "model"
    shutil.copytree(DIGITS, folder)
    damage(folder)
    run = command(SAMPLE, "--model", folder, "--device", "cpu")
    assert run.exit_code == 2
    assert run.stdout == ""
    assert run.stderr.startswith("tritone: error: ")
    assert is_brief(run.stderr)
    with pytest.raises(ValueError, match=message):
        raise ValueError(run.stderr.replace("\n", " "))


def test_what_a_checkpoint_has_too_much_is_a_warning_of_one_line(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(DIGITS, folder)
    save_file(load_file(folder / "model.safetensors") | {"x": torch.ones(1)}, folder / "model.safetensors")
    run = command(SAMPLE, "--model", folder, "--device", "cpu")
    assert run.exit_code == 0
    warning = run.stderr.splitlines()[0]
    assert warning.startswith("tritone: warning: ")
    assert warning.endswith("has no place for: unexpected: x")


def test_an_unreachable_hub_ends_the_command_with_2_and_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard service's port
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    run = tritone_process("transcribe", SAMPLE, "--model", "somebody/s2t", "--device", "cpu")
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("tritone: error: ")
    assert "somebody/s2t" in run.stderr
    assert "http://127.0.0.1:9" in run.stderr
    assert "HF_ENDPOINT, or give a local folder" in run.stderr
    assert is_brief(run.stderr)


def test_a_call_that_asks_for_more_tokens_than_there_are_positions_ends_with_2():
    run = command(SAMPLE, "--model", "digits", "--max-new-tokens", 5_000)
    assert run.exit_code == 2
    assert "is 5001; it must be 2 to 1024, the model's decoder positions" in run.stderr


def test_a_call_for_more_beams_than_fit_names_the_recording_and_the_remedy():
    run = command(SAMPLE, "--model", "digits", "--num-beams", 40, "--device", "cpu")
    assert run.exit_code == 1
    assert f"{SAMPLE}: request 0 needs 40 rows (hypotheses)" in run.stderr
    assert "ask for fewer beams" in run.stderr
