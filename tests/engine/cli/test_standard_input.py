"""Standard input as a recording or as a list of paths."""

import os
import sys
from pathlib import Path

import pytest
import soundfile
from commands import records, tritone_invoke

SAMPLES = Path(__file__).parents[3] / "samples"


@pytest.mark.parametrize(
    "name", ["digits/one_digit_8k.wav", "digits/six_digits_16k.flac", "english/garden_44k.mp3"]
)
def test_bytes_of_a_recording_are_transcribed_as_the_file_is(checkpoint, name, tmp_path):
    options = ("--model", checkpoint, "--max-new-tokens", 4)
    wanted = tritone_invoke("transcribe", SAMPLES / name, *options)
    run = tritone_invoke("transcribe", "-", *options, stdin=(SAMPLES / name).read_bytes())
    assert (run.stdout, run.exit_code) == (wanted.stdout, wanted.exit_code)
    tritone_invoke("-", *options, "--output", tmp_path / "a", stdin=(SAMPLES / name).read_bytes())
    assert [record["path"] for record in records(tmp_path / "a")] == ["-"]


def test_another_recording_of_standard_input_does_not_pass_for_one_that_is_there(checkpoint, tmp_path):
    call = ("-", "--model", checkpoint, "--output", tmp_path / "out.jsonl")
    data = (SAMPLES / "digits/one_digit_8k.wav").read_bytes()
    assert tritone_invoke(*call, stdin=data).exit_code == 0
    run = tritone_invoke(*call, stdin=data)
    assert "has a recording of standard input already" in run.stderr
    assert run.exit_code == 2


def test_headerless_bytes_are_audio_with_their_encoding(checkpoint, waveforms, tmp_path):
    soundfile.write(tmp_path / "a.raw", waveforms[3].repeat(8), 8_000, "ULAW", format="RAW")
    data = (tmp_path / "a.raw").read_bytes().replace(b"\0", b"\1")
    (tmp_path / "a.ulaw").write_bytes(data)
    options = ("--model", checkpoint, "--max-new-tokens", 4, "--encoding", "mulaw")
    wanted = tritone_invoke(tmp_path / "a.ulaw", *options).stdout
    assert tritone_invoke("-", *options, stdin=data).stdout == wanted


def test_bytes_that_are_no_recording_are_a_failure_of_standard_input(checkpoint):
    run = tritone_invoke("-", "--model", checkpoint, stdin=b"PK\3\4\0\0" + bytes(range(256)) * 300)
    assert "-: damaged, or not audio" in run.stderr
    assert run.exit_code == 1


@pytest.mark.skipif(sys.platform != "linux", reason="names there are text")
def test_a_list_with_nuls_has_names_with_any_other_byte(checkpoint, waveforms, tmp_path, monkeypatch):
    names = [b"line\nfeed.wav", b" \r", b"caf\xe9.wav", b"RIFF"]
    monkeypatch.chdir(tmp_path)
    for name in names:
        with open(name, "wb") as file:
            soundfile.write(file, waveforms[0], 16_000, format="WAV")
    for listed in (b"\0".join(names), b"\0".join(names) + b"\0\0"):
        output = tmp_path / "out.jsonl"
        call = ("-", "--model", checkpoint, "--output", output, "--overwrite")
        run = tritone_invoke(*call, "-0", stdin=listed)
        assert [os.fsencode(record["path"]) for record in records(output)] == names
        assert run.exit_code == 0
