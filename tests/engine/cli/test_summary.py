"""Summary at the end of a run."""

from pathlib import Path

import soundfile
from commands import tritone_invoke

from tritone.engine.cli.summary import Summary
from tritone.engine.outputs import FinishReason, Transcription


def result(duration: float = 0.0, error: str | None = None) -> Transcription:
    problem = None if error is None else ValueError(error)
    return Transcription("", (), FinishReason.STOP, duration, error=problem)


def test_many_failures_are_grouped_by_cause_with_the_first_of_each():
    summary = Summary(of_texts=False)
    for index in range(3):
        summary.add(
            Path(f"{index}.wav"), [result(error=f"{index}.wav: is empty ({index} bytes); copy it again")]
        )
    summary.add(Path("c.mp3"), [result(error="c.mp3: cut after 3.5 s; copy it again")])
    summary.add(Path("long.wav"), [result(9_000)])
    first, *causes = summary.lines()
    assert first.startswith("5 files, 2.50 h of audio in ")
    assert first.endswith("4 failed")
    assert [" ".join(cause.split()) for cause in causes] == [
        "3 is empty: first 0.wav",
        "1 cut after N s: c.mp3",
    ]


def test_few_failures_stand_above_it_already():
    summary = Summary(of_texts=False)
    summary.add(Path("a.wav"), [result(error="a.wav: not audio")])
    assert len(list(summary.lines())) == 1


def test_files_of_other_kinds_and_those_that_were_there_are_counted(checkpoint, waveforms, tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name in "ab":
        soundfile.write(folder / f"{name}.wav", waveforms[0], 16_000)
    for name in ("notes.txt", "cover.jpg", "b.wav.part"):
        (folder / name).touch()
    call = ("--model", checkpoint, "--output", tmp_path / "out.jsonl")
    assert "2 files" in (run := tritone_invoke(folder / "a.wav", folder / "b.wav", *call)).stderr
    assert "left out" not in run.stderr
    soundfile.write(folder / "c.wav", waveforms[0], 16_000)
    run = tritone_invoke(folder, *call)
    assert "1 files" in run.stderr
    assert "0 failed, 2 there already, 3 files of other kinds left out" in run.stderr
