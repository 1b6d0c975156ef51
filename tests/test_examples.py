"""The short examples run as their docstrings say, each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRANSCRIPTS = json.loads((ROOT / "samples" / "digits" / "transcripts.json").read_text())
TWO, SIX = "samples/digits/two_digits_16k.wav", "samples/digits/six_digits_16k.flac"


def command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)]


def run(name: str, *arguments: object) -> str:
    """Standard output of an example, run from the repository's root."""
    done = subprocess.run(
        command(name, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_folder_is_transcribed_and_a_broken_file_stops_no_other(tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    (tmp_path / "good.wav").write_bytes((ROOT / TWO).read_bytes())
    broken, good = map(json.loads, run("transcribe_folder", tmp_path).splitlines())
    assert (broken["text"], "error" in broken) == ("", True)
    assert (good["text"], "error" in good) == (TRANSCRIPTS[Path(TWO).name], False)


def test_text_streams_in_pieces_and_ends_as_the_whole():
    lines = run("stream", SIX, TWO).splitlines()
    assert lines[-1] == f"{TWO}: {TRANSCRIPTS[Path(TWO).name]}"
    assert len([line for line in lines if " s  six_digits" in line]) > 1


def test_a_recording_gets_its_labels():
    path, best, *others = run("classify", "samples/digits/one_digit_8k.wav").strip().split("\t")
    assert (path, best.split()[0], len(others)) == ("samples/digits/one_digit_8k.wav", "seven", 2)


def test_a_kernel_of_ones_own_is_checked_compiled_and_used_by_the_engine():
    lines = run("custom_kernel").splitlines()
    assert lines[0].startswith("PASS float32 layer_norm, tiny, 3 x, 3 x 48: error")
    assert [line.split()[1:3] for line in lines if line.startswith("rows ")] == [["fp16", "64"]]
    text, calls = lines[-1].rstrip(")").split(" (")
    assert text == TRANSCRIPTS[Path(TWO).name]
    assert int(calls.split()[0]) > 4
