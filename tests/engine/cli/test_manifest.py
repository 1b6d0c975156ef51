"""Manifests, references and shares of the inputs."""

import json
import os
from pathlib import Path

import pytest
import typer
from commands import records, tritone_invoke
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tritone.engine.cli.inputs import find_in_manifest
from tritone.engine.cli.outputs.lines import name_text

SAMPLES = Path(__file__).parents[3] / "samples" / "digits"
TEXTS = json.loads((SAMPLES / "transcripts.json").read_text())
NAMES = ("one_digit_8k.wav", "two_digits_16k.wav", "six_digits_16k.flac")


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A folder with three samples, and a wrong word in the reference of the second."""
    for name in NAMES:
        (tmp_path / name).write_bytes((SAMPLES / name).read_bytes())
    return tmp_path


def reference(name: str) -> str:
    return TEXTS[name] if name != NAMES[1] else "four, NINE"


def write_manifest(folder: Path, kind: str) -> tuple[Path, str]:
    """Write the corpus' manifest of a kind; its path, and the value of --ref."""
    rows = [(name, reference(name)) for name in NAMES]
    if kind == "jsonl":
        lines = [json.dumps({"audio_filepath": name, "offset": 0, "said": text}) for name, text in rows]
        (folder / "m.jsonl").write_text("\n\n".join(lines))
        return folder / "m.jsonl", "said"
    if kind == "scp":
        lines = [f"utt{index} {folder / name}" for index, (name, _) in enumerate(rows)]
        (folder / "wav.scp").write_text("\n".join(lines))
        (folder / "text").write_text("\n".join(f"utt{index} {text}" for index, (_, text) in enumerate(rows)))
        return folder / "wav.scp", str(folder / "text")
    delimiter, name = (
        ("\t", "m.tsv") if kind == "tsv" else (",", "metadata.csv" if kind == "folder" else "m.csv")
    )
    lines = [f'{path}{delimiter}"{text}"' for path, text in rows]
    (folder / name).write_text("\ufeff" + "\r\n".join([f"file_name{delimiter}transcription", *lines]))
    return folder if kind == "folder" else folder / name, "transcription"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "scp", "folder"])
def test_every_manifest_gives_recordings_and_references(corpus, kind):
    manifest, ref = write_manifest(corpus, kind)
    output = corpus / "out" / "results.jsonl"
    output.parent.mkdir()
    call = ("--manifest", manifest, "--ref", ref, "--model", "digits", "--device", "cpu")
    run = tritone_invoke("transcribe", *call, "--output", output)
    assert run.exit_code == 0, run.stderr
    found = records(output)
    assert [(record["path"], record["reference"]) for record in found] == [
        (str(corpus / name), reference(name)) for name in NAMES
    ]
    assert "WER 11.11 % (1 of 9) words" in run.stderr
    assert "over 3 recordings, normalized for any language" in run.stderr


def test_results_are_a_manifest_themselves(corpus, tmp_path):
    manifest, ref = write_manifest(corpus, "jsonl")
    output = tmp_path / "out.jsonl"
    tritone_invoke("--manifest", manifest, "--ref", ref, "--model", "digits", "--output", output)
    run = tritone_invoke("--manifest", output, "--ref", "reference", "--model", "digits")
    assert "WER 11.11 %" in run.stderr


def test_references_of_files_and_folders_are_a_file(tmp_path):
    run = tritone_invoke(SAMPLES, "--model", "digits", "--ref", SAMPLES / "transcripts.json")
    assert f"WER 0.00 % ({0} of 36) words" in run.stderr
    (tmp_path / "refs").write_text("one_digit_8k seven\n")
    run = tritone_invoke(SAMPLES, "--model", "digits", "--ref", tmp_path / "refs")
    assert "(0 of 1) words" in run.stderr
    assert "over 1 recordings" in run.stderr


def test_english_of_a_whisper_has_its_normalizer(tmp_path, waveforms):
    from types import SimpleNamespace

    from tritone.engine.cli.scoring import Scores
    from tritone.engine.outputs import FinishReason, Transcription

    result = Transcription("It's twenty-five dollars.", (), FinishReason.STOP, 1.0)
    whisper = SimpleNamespace(config=SimpleNamespace(model_type="whisper"))
    scores = Scores()
    scores.add("it is $25", result, whisper)
    assert "WER 0.00 %" in scores.line()
    other = Scores()
    other.add("it is $25", result, SimpleNamespace(config=SimpleNamespace(model_type="wav2vec2")))
    assert "WER 0.00 %" not in other.line()


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("wav.scp", "utt1 sph2pipe a.sph |", "line 1 is a command (sph2pipe a.sph |); those are not run"),
        ("wav.scp", "utt1", "line 1 has no path"),
        ("m.csv", "file_name,start\na.wav,1.5\n", "line 2: start is 1.5; recordings are transcribed whole"),
        ("m.csv", "name,text\na.wav,one\n", "columns name, text; the path is in one of audio_filepath"),
        ("m.csv", "path,text\na.wav,one, two\n", "line 2 has more fields than the header"),
        ("m.jsonl", '{"path": "a.wav"}\n[1]\n', "line 2 is no JSON object"),
        ("m.jsonl", '{"path": 7}\n', "line 1: path is 7; give the path"),
        ("m.jsonl", '{"path": "a", "text": "b"}\n{"path": "a", "text": "c"}', "is there before"),
        ("m.jsonl", "", "names no recording"),
        ("m.xlsx", "PK", "its suffix is '.xlsx'; .jsonl, .csv, .tsv, .scp and folders are read"),
        ("sub/a.txt", "", "no metadata.jsonl, metadata.csv, metadata.tsv"),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_used_is_refused_with_its_line(tmp_path, name, content, wrong):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    manifest = path.parent if name.startswith("sub") else path
    run = tritone_invoke("--manifest", manifest, "--ref", "text", "--model", "digits")
    if wrong not in run.stderr:  # the reference is looked for once the manifest is read
        run = tritone_invoke("--manifest", manifest, "--model", "digits")
    assert wrong in run.stderr
    assert run.exit_code == 2
    assert "Traceback" not in run.stderr


LINES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"path,text,offset", b"a.wav,one,0", b'"a', b'{"path": "a.wav", "text": 1}', b"utt a.wav"]
    ),
    st.sampled_from(
        [b'{"path": "\\ud800"}', b'{"path": "\\u0000"}', b"[" * 40, b"\xef\xbb\xbf", b"utt \xff.wav"]
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES, max_size=5), suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".scp"]))
def test_any_bytes_are_a_manifest_or_an_error_of_one_line(tmp_path, capsys, lines, suffix):
    manifest = tmp_path / f"m{suffix}"
    manifest.write_bytes(b"\n".join(lines))
    items, code = [], 0
    try:
        items = find_in_manifest(manifest, str(manifest) if suffix == ".scp" else None).items
    except typer.Exit as end:
        code = end.exit_code
    assert (code, capsys.readouterr().err.count("\n")) in ((0, 0), (2, 1))
    assert bool(items) == (code == 0)
    for item in items:
        assert os.fsencode(item.name)
        assert name_text(item.name)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["a.wav", "--manifest", "m.csv"], "--manifest has the paths, and so has the call"),
        (["--manifest", "gone.csv"], "--manifest gone.csv: cannot be read (No such file or directory)"),
        (["a.wav", "--ref", "gone"], "--ref gone: no file"),
        (["a.wav", "--ref", "x", "--channels", "split"], "--ref is of one text a recording"),
        (["a.wav", "--shard", "0/2"], "--shard '0/2': give NUMBER/COUNT"),
        (["a.wav", "--shard", "3/2"], "--shard '3/2'"),
    ],
)
def test_wrong_options_of_inputs_are_refused(options, wrong):
    run = tritone_invoke("transcribe", *options)
    assert wrong in run.stderr
    assert run.exit_code == 2


def test_without_jiwer_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("tritone.engine.cli.scoring.find_spec", lambda name: None)
    run = tritone_invoke(SAMPLES, "--ref", SAMPLES / "transcripts.json")
    assert "--ref needs the package jiwer; install it: pip install 'tritone[wer]'" in run.stderr
    assert run.exit_code == 2


def test_shares_are_disjoint_and_together_all(checkpoint):
    options = ("--model", checkpoint, "--max-new-tokens", 2, "--quiet")
    whole = tritone_invoke(SAMPLES, *options).stdout.splitlines()
    shares = [
        tritone_invoke(SAMPLES, *options, "--shard", f"{number}/3").stdout.splitlines()
        for number in (1, 2, 3)
    ]
    assert [share == whole[number::3] for number, share in enumerate(shares)] == [True, True, True]
    assert tritone_invoke(SAMPLES / NAMES[0], *options, "--shard", "2/2").stdout == ""
