"""`tritone classify`: recordings and texts, both outputs, failures, what is continued, wrong calls."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import soundfile
from commands import SOON, records, tritone_invoke, tritone_on_terminal, tritone_process

import tritone

RATE = 16_000
classify = partial(tritone_invoke, "classify")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, waveforms) -> Path:
    """Two good recordings and a bad one in a folder."""
    folder = tmp_path_factory.mktemp("recordings")
    soundfile.write(folder / "a.wav", waveforms[0], RATE, subtype="FLOAT")
    soundfile.write(folder / "c.wav", waveforms[1], RATE, subtype="FLOAT")
    (folder / "b.wav").write_text("no audio")
    return folder


@pytest.fixture(scope="module")
def labels(text_classifier):
    """The engine's labels of a text, as in JSON."""
    with tritone.Engine(text_classifier, device="cpu") as engine:

        def of(text, top_k: int = 5) -> list[dict]:
            result = engine.submit(text, top_k=top_k).result(SOON)
            return [{"label": label.label, "score": label.score} for label in result.labels]

        yield of


# The built-in classifier.


def test_a_digit_is_recognized_with_no_option_at_all():
    run = tritone_process("classify", Path(__file__).parents[3] / "samples" / "digits" / "one_digit_8k.wav")
    assert run.returncode == 0
    label, score, *others = run.stdout.rstrip("\n").split("\t")
    assert (label, len(others)) == ("seven", 8)
    assert float(score) > 0.9
    assert "no --model given: using the built-in classifier" in run.stderr


# Recordings


def test_as_a_process_it_writes_json_lines_of_recordings_and_ends_with_1_for_a_bad_one(
    audio_classifier, recordings, waveforms, tmp_path
):
    output = tmp_path / "out.jsonl"
    options = ("--model", audio_classifier, "--top-k", 2, "--device", "cpu", "--threads", 1)
    run = tritone_process("classify", recordings, *options, "--output", output)
    assert (run.returncode, run.stdout) == (1, "")
    first, bad, second = records(output)
    assert list(first) == ["path", "labels", "finish_reason", "duration", "error", "model", "options"]
    assert first["model"] == str(audio_classifier)
    assert first["options"] == {"top_k": 2, "dtype": "float32"}
    with tritone.Engine(audio_classifier, device="cpu") as engine:
        for record, waveform in ((first, waveforms[0]), (second, waveforms[1])):
            wanted = engine.submit(waveform, top_k=2).result(SOON).labels
            assert record["labels"] == [{"label": one.label, "score": one.score} for one in wanted]
            assert record["duration"] == round(len(waveform) / RATE, 3)
            assert (record["finish_reason"], record["error"]) == ("stop", None)
    assert (bad["labels"], bad["finish_reason"]) == (None, "error")
    assert "not audio" in bad["error"]
    assert f"{recordings / 'b.wav'}: damaged" in run.stderr
    assert "3 files, " in run.stderr
    assert "RTFx" in run.stderr
    assert "1 failed" in run.stderr
    assert "Traceback" not in run.stderr


def test_text_lines_hold_labels_and_scores_between_tabs(audio_classifier, recordings):
    run = classify(recordings, "--model", audio_classifier, "--top-k", 6)
    lines = [line.split("\t") for line in run.stdout.splitlines()]
    assert [line[0] for line in lines] == [str(recordings / "a.wav"), str(recordings / "c.wav")]
    for _, *given in lines:
        assert sorted(given[::2]) == ["angry", "calm", "happy", "other", "sad", "tab\\there"]
        scores = [float(score) for score in given[1::2]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert run.exit_code == 1
    alone = classify(recordings / "a.wav", "--model", audio_classifier, "--top-k", 6)
    assert alone.stdout == "\t".join(lines[0][1:]) + "\n"
    assert alone.exit_code == 0


# Texts


def test_texts_are_arguments_and_lines_of_standard_input(text_classifier, labels):
    stdin = "the quick fox\r\n\n  \nthe lazy dog\u2028one\none\n"
    run = tritone_process(
        "classify",
        "--text",
        "cats, and dogs",
        "-",
        "--model",
        text_classifier,
        "--format",
        "jsonl",
        stdin=stdin,
    )
    assert run.returncode == 0
    found = [json.loads(line) for line in run.stdout.splitlines()]
    texts = ["cats, and dogs", "the quick fox", "the lazy dog\u2028one", "one"]
    assert [record["text"] for record in found] == texts
    assert [record["labels"] for record in found] == [labels(text) for text in texts]
    assert "duration" not in found[0]
    assert "4 texts in " in run.stderr
    assert "0 failed" in run.stderr
    assert "RTFx" not in run.stderr


def test_of_a_single_text_only_its_labels_are_printed(text_classifier, labels):
    run = classify("--text", "one", "--model", text_classifier, "--top-k", 1)
    (best,) = labels("one", top_k=1)
    assert run.stdout == f"{best['label']}\t{best['score']:.6f}\n"
    assert run.exit_code == 0
    listed = classify("--text", "-", "--model", text_classifier, "--top-k", 1, stdin="one\n")
    assert listed.stdout == f"one\t{run.stdout}"


def test_a_line_is_one_line_whatever_the_text_holds_and_equal_texts_have_one_each(text_classifier):
    text = "one\ttwo\nthree\\four"
    run = classify("--text", text, "nine", "nine", "--model", text_classifier)
    first, second, third = run.stdout.splitlines()
    assert first.startswith("one\\ttwo\\nthree\\\\four\t")
    assert second == third
    assert second.startswith("nine\t")


def test_pairs_have_a_tab_between_them(text_classifier, labels):
    stdin = "the quick fox\tthe lazy dog\nno tab\na\tb\tc\n"
    run = classify("--text", "--pairs", "-", "--model", text_classifier, "--format", "jsonl", stdin=stdin)
    good, *bad = [json.loads(line) for line in run.stdout.splitlines()]
    assert good["text"] == "the quick fox\tthe lazy dog"
    assert (
        good["labels"] == labels(("the quick fox", "the lazy dog")) != labels("the quick fox\tthe lazy dog")
    )
    assert good["options"] == {"top_k": 5, "pairs": True, "dtype": "float32"}
    for record, count in zip(bad, (0, 2), strict=True):
        assert f"with --pairs two texts have one tab between them, here are {count}" in record["error"]
    assert run.exit_code == 1
    assert "'no tab': with --pairs" in run.stderr


def test_a_text_that_is_too_long_fails_or_is_cut(text_classifier):
    long = "one two three " * 20
    call = ("--text", long, "one", "--model", text_classifier, "--format", "jsonl")
    run = classify(*call)
    assert run.exit_code == 1
    bad, good = [json.loads(line) for line in run.stdout.splitlines()]
    assert "62 tokens, and the model has positions for 24" in bad["error"]
    assert "--truncate" in run.stderr
    assert good["error"] is None
    cut = classify(*call, "--truncate")
    assert cut.exit_code == 0
    assert len(json.loads(cut.stdout.splitlines()[0])["labels"]) == 3


def test_bytes_that_are_no_text_fail_alone(text_classifier):
    call = ("--text", "-", "--model", text_classifier, "--format", "jsonl")
    run = classify(*call, stdin=b"one\ncaf\xe9\n")
    good, bad = [json.loads(line) for line in run.stdout.splitlines()]
    assert (good["error"], run.exit_code) == (None, 1)
    assert "is not Unicode" in bad["error"]


# Files that go on


@pytest.mark.parametrize("line_format", ["text", "jsonl"])
def test_an_output_of_texts_is_continued(text_classifier, tmp_path, line_format):
    output, whole = tmp_path / "out", tmp_path / "whole"
    texts = ["one", "two\ttabs", "three", "four " * 30]
    options = ("--model", text_classifier, "--format", line_format)
    assert classify("--text", *texts, *options, "--output", whole).exit_code == 1
    content = whole.read_bytes()
    output.write_bytes(content[: content.index(b"three") + 3])  # torn
    run = classify("--text", *texts, *options, "--output", output)
    assert run.exit_code == 1
    assert f"{output} goes on: 2 of 4 texts are there" in run.stderr
    assert output.read_bytes() == content
    again = classify("--text", *texts[:3], *options, "--output", output)
    assert again.exit_code == 0
    assert "3 of 3 texts are there" in again.stderr
    assert output.read_bytes() == content


def test_results_of_other_options_or_of_recordings_are_not_continued(
    text_classifier, audio_classifier, recordings, tmp_path
):
    output = tmp_path / "out.jsonl"
    call = ("--text", "one", "--model", text_classifier, "--output", output)
    assert classify(*call).exit_code == 0
    before = output.read_bytes()
    for changed in (["--top-k", 2], ["--truncate"], ["--dtype", "bfloat16"]):
        run = classify(*call, *changed)
        assert f"{output}: made with model {text_classifier}, top_k 5, dtype float32 (line 1)" in run.stderr
        assert (run.exit_code, output.read_bytes()) == (2, before)
    run = classify(recordings / "a.wav", "--model", audio_classifier, "--output", output)
    assert "line 1 is not one that tritone writes" in run.stderr
    assert (run.exit_code, output.read_bytes()) == (2, before)
    assert classify(*call, "--top-k", 2, "--overwrite").exit_code == 0
    assert len(records(output)[0]["labels"]) == 2


# Wrong calls


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ([], "Missing argument"),
        (["--text", "one"], "--text needs --model, the name or folder of a classifier of texts"),
        (["{folder}", "--model", "{audio}", "--pairs"], "--pairs is for texts; give --text too"),
        (["{folder}", "--model", "{audio}", "--truncate"], "--truncate is for texts"),
        (["{folder}", "--model", "{audio}", "--top-k", "0"], "top-k"),
        (["{folder}", "--model", "{audio}", "--overwrite"], "--overwrite is about the file of --output"),
        (["{folder}", "--model", "{audio}", "--output", "{folder}/a.wav"], "has a recording's name"),
        (["{folder}", "--model", "/no/such/model"], "no checkpoint"),
        (["{folder}", "--model", "{text}"], "a BertForSequenceClassification needs --text"),
        (
            ["one", "--text", "--model", "{audio}"],
            "ForSequenceClassification classifies recordings; leave --text",
        ),
        (["{folder}", "--model", "{seq2seq}"], "cannot classify; call transcribe"),
        (["{folder}", "--model", "{audio}", "--num-beams", "2"], "--num-beams"),
    ],
)
def test_a_wrong_call_ends_with_2_and_names_the_problem(
    audio_classifier, text_classifier, checkpoint, recordings, arguments, wrong
):
    names = {
        "folder": recordings,
        "audio": audio_classifier,
        "text": text_classifier,
        "seq2seq": checkpoint,
    }
    run = classify(*[argument.format(**names) for argument in arguments])
    assert run.exit_code == 2
    assert wrong in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


def test_transcribe_refuses_a_classifier(audio_classifier, recordings):
    run = tritone_invoke("transcribe", recordings, "--model", audio_classifier)
    assert run.exit_code == 2
    assert "a HubertForSequenceClassification cannot transcribe; call classify" in run.stderr


def test_where_no_path_names_a_recording_no_model_is_loaded():
    run = classify("gone.wav", "--model", "/no/such/model", "--format", "jsonl")
    assert json.loads(run.stdout)["error"] == "gone.wav: no such file or folder; check the path"
    assert run.exit_code == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_ends_the_command_with_its_reason(text_classifier):
    run = classify("--text", "one", "two", "--model", text_classifier, "--output", "/dev/full")
    assert "--output /dev/full: No space left on device; stopped with 2 to go" in run.stderr
    assert run.exit_code == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_bar_is_drawn_on_a_terminal(text_classifier):
    texts = [f"one {number}" for number in range(40)]
    drawn, output = tritone_on_terminal("classify", "--text", *texts, "--model", text_classifier)
    assert "━" in drawn
    assert "40/40" in drawn
    assert len(output.splitlines()) == 40


def test_help_names_both_commands_without_torch(tmp_path):
    code = (
        "import sys\nfrom tritone.engine.cli.main import app\n"
        "try:\n    app(['classify', '--help'])\nexcept SystemExit:\n    pass\n"
        "print('torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=SOON
    )
    assert "--truncate" in run.stdout
    assert run.stdout.endswith("False\n")
