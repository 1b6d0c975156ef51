"""Warnings of the reader, and headerless audio, through engine and command."""

import io

import numpy as np
import pytest
import soundfile
from commands import records, tritone_invoke

import tritone

RATE = 16_000


@pytest.fixture
def arguments(ctc_checkpoint):
    return "--model", ctc_checkpoint, "--device", "cpu"


def test_channels_that_cancel_out_have_a_warning_on_stderr_and_in_the_line(
    arguments, waveforms, tmp_path, ctc_checkpoint
):
    samples = waveforms[0]
    soundfile.write(tmp_path / "a.wav", np.stack([samples, -samples], axis=1), RATE, "FLOAT")
    soundfile.write(tmp_path / "b.wav", samples, RATE, "FLOAT")
    run = tritone_invoke("transcribe", tmp_path, *arguments, "--output", tmp_path / "out.jsonl")
    assert run.exit_code == 0
    opposed, mono = records(tmp_path / "out.jsonl")
    assert opposed["text"] == mono["text"]
    (warning,) = opposed["warnings"]
    assert "warnings" not in mono
    assert run.stderr.count(warning) == 1
    with tritone.Engine(ctc_checkpoint, device="cpu") as engine:
        (result,) = engine.transcribe([tmp_path / "a.wav"])
    assert (result.warnings, result.channel) == ((warning,), None)
    options = *arguments, "--channels", "split", "--output", tmp_path / "split.jsonl"
    assert tritone_invoke("transcribe", tmp_path / "a.wav", *options).exit_code == 0
    assert all("warnings" not in record for record in records(tmp_path / "split.jsonl"))


def test_headerless_audio_by_suffix_by_name_or_as_the_call_says(
    arguments, waveforms, tmp_path, ctc_checkpoint
):
    samples = waveforms[0][::2].astype(np.float64)
    path = tmp_path / "call.ulaw"
    soundfile.write(path, samples, 8_000, subtype="ULAW", format="RAW")
    content = path.read_bytes()
    (tmp_path / "call").write_bytes(content)
    with tritone.Engine(ctc_checkpoint, device="cpu") as engine:
        with path.open("rb") as file:
            by_name = list(engine.transcribe([path, file]))
        told = list(engine.transcribe([content, io.BytesIO(content), tmp_path / "call"], encoding="mulaw"))
        split = list(engine.transcribe([content], encoding="mulaw", channels="split"))
    results = [*by_name, *told, *split]
    assert [result.error for result in results] == [None] * 6
    assert len({(result.text, result.score, result.duration) for result in results}) == 1
    assert results[0].duration == pytest.approx(len(samples) / 8_000, abs=0.001)
    run = tritone_invoke("transcribe", tmp_path / "call", *arguments, "--encoding", "mulaw")
    assert run.stdout.strip() == " ".join(results[0].text.split())
