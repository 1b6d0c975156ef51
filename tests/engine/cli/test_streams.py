"""Standard streams that are closed, full or terminals; interruptions; names of any bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import soundfile
from commands import SOON, records, tritone_invoke, tritone_on_terminal

from tritone.engine.cli.terminal import CONTROLS, visible, visible_line

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a shell, /dev/full and any names")
# A window title, a clear screen, C1's CSI, a right-to-left override, a byte that is not UTF-8.
HOSTILE = b"\x1b]0;title\x07\x1b[2J\xc2\x9b31m\xe2\x80\xae\xff\r\n.wav"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, waveforms) -> Path:
    """Three recordings and a bad one."""
    folder = tmp_path_factory.mktemp("recordings")
    for name, waveform in zip("abc", waveforms, strict=False):
        soundfile.write(folder / f"{name}.wav", waveform, 16_000)
    (folder / "d.wav").touch()
    return folder


def shell(line: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which `tritone` is the command and "$@" are the arguments."""
    script = f'tritone() {{ "{sys.executable}" -m tritone "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script, "bash", *map(str, arguments)], capture_output=True, timeout=SOON
    )


@pytest.mark.parametrize(
    ("line", "code", "wrong"),
    [
        ("tritone transcribe $@ >/dev/full", 1, "standard output: No space left on device; stopped with 4"),
        ("tritone transcribe $@ --format jsonl >/dev/full", 1, "No space left on device; stopped with 4"),
        ("tritone transcribe $@ >&-", 2, "standard output is closed"),
        ("tritone transcribe $@ | true; exit ${PIPESTATUS[0]}", 1, "Broken pipe; stopped with 4"),
        ("tritone --version >/dev/full", 1, "No space left on device"),
        ("tritone transcribe --help >/dev/full", 1, "No space left on device"),
        ("tritone transcribe - <&-", 2, "standard input, which is closed"),
        ("tritone transcribe - </proc/self/mem", 2, "standard input cannot be read (Input/output error)"),
        ("tritone transcribe - </dev/zero", 2, "line 1 of standard input is longer than 524288 bytes"),
        ("tritone transcribe - </dev/null", 0, "standard input is empty"),
        ("tritone transcribe '' $@", 2, "an empty PATH ('')"),
        ("tritone transcribe $@ --model ''", 2, "--model is empty"),
        ("tritone transcribe $@ --model '~nosuchuser/x'", 2, "home"),
    ],
)  # fmt: skip
def test_a_stream_or_argument_that_cannot_be_used_gives_a_message_and_no_traceback(
    checkpoint, folder, line, code, wrong
):
    arguments = (folder,) if "--model" in line else (folder, "--model", checkpoint)
    run = shell(line, *arguments)
    errors = run.stderr.decode()
    assert wrong in errors
    assert "Traceback" not in errors
    assert "Exception" not in errors
    assert run.returncode == code


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", "<&- 2>&-", ">&- 2>&- <&-"])
def test_a_standard_error_that_is_closed_or_full_costs_no_result(checkpoint, folder, tmp_path, closed):
    output = tmp_path / "out.jsonl"
    run = shell(f"tritone transcribe $@ {closed}", folder, "--model", checkpoint, "--output", output)
    assert [Path(record["path"]).name for record in records(output)] == ["a.wav", "b.wav", "c.wav", "d.wav"]
    assert run.returncode == 1
    if ">&- 2>&-" not in closed:
        run = shell(f"tritone transcribe $@ {closed}", folder, "--model", checkpoint)
        assert (run.stdout.count(b"\n"), run.returncode) == (3, 1)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["/dev/stdout", ">(cat)", "/proc/self/fd/1"])
def test_results_go_to_a_pipe_that_has_a_name(checkpoint, folder, target):
    run = shell(f"tritone transcribe $@ --output {target} | cat", folder, "--model", checkpoint)
    assert [json.loads(line)["error"] is None for line in run.stdout.splitlines()] == [
        True,
        True,
        True,
        False,
    ]


def test_an_output_that_is_a_recording_under_another_name_is_refused(checkpoint, folder, tmp_path):
    recording, link = tmp_path / "talk", tmp_path / "link"
    recording.write_bytes((folder / "a.wav").read_bytes())
    link.symlink_to(folder / "a.wav")
    for output, path in ((recording, recording), (tmp_path / "." / "talk", recording), (link, folder)):
        before = output.read_bytes()
        run = tritone_invoke("transcribe", path, "--model", checkpoint, "--output", output, "--overwrite")
        assert "recording" in run.stderr
        assert (run.exit_code, output.read_bytes()) == (2, before)


# Interruptions.


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage", ["reading standard input", "listing", "opening the output", "at any moment"]
)
def test_an_interruption_ends_the_command_with_130_and_no_traceback(checkpoint, folder, tmp_path, stage):
    arguments: list[object] = [folder, "--model", checkpoint]
    if stage == "reading standard input":
        arguments[0] = "-"
    elif stage == "listing":
        arguments[0] = "/proc/**/*.wav"  # takes long
    elif stage == "opening the output":
        os.mkfifo(tmp_path / "pipe")  # has no reader
        arguments += ["--output", tmp_path / "pipe"]
    for delay in (0.6, 2.0) if stage == "at any moment" else (2.0,):
        process = subprocess.Popen(
            [sys.executable, "-m", "tritone", "transcribe", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert b"Traceback" not in errors
        # Before Python has its handlers, and after it has given them up, the signal itself ends the process.
        ends = (130, 0, 1, -signal.SIGINT) if stage == "at any moment" else (130,)
        assert process.returncode in ends


# Names and texts on terminals.


def test_every_control_character_is_made_visible():
    assert visible("".join(CONTROLS)).isprintable()
    assert visible("né € 😀 \u200d\\") == "né € 😀 \u200d\\"
    assert visible(os.fsdecode(HOSTILE)) == (r"\x1b]0;title\x07\x1b[2J\x9b31m\u202e\udcff\r\n.wav")
    assert visible_line("a\tb\n") == "a\tb\\n"


@pytest.fixture
def hostile(tmp_path, folder) -> Path:
    """A folder whose names hold what terminals obey: a recording, an empty file and a broken link."""
    target = tmp_path / os.fsdecode(b"\x1b[31mfolder")
    target.mkdir()
    (target / os.fsdecode(HOSTILE.replace(b"\xff", b""))).write_bytes((folder / "a.wav").read_bytes())
    (target / os.fsdecode(b"\x1bempty" + HOSTILE)).touch()
    (target / "\x1bdisk").symlink_to("/\x1b[5m/gone")
    return target


def test_names_are_escaped_on_a_terminal_and_messages_everywhere(checkpoint, hostile):
    options = ("--model", checkpoint)
    for line_format in ("text", "jsonl"):
        drawn, _ = tritone_on_terminal(
            "transcribe", hostile, *options, "--format", line_format, with_output=True
        )
        for harm in ("\x1b]", "\x1b[2J", "\x9b", "\u202e", "\x1b[31mfolder", "\x1bempty", "\x1b[5m"):
            assert harm not in drawn, line_format
        assert (r"\x1b]0;title\x07" if line_format == "text" else r"\u001b]0;title\u0007") in drawn
    run = tritone_invoke("transcribe", hostile, *options)
    assert not set(CONTROLS) - {"\n"} & set(run.stderr)
    assert run.stderr.count("\n") == 3  # two failures, and the summary
    assert len(run.stdout.splitlines()) == 1
    run = tritone_invoke("transcribe", hostile / "x\x1b", *options, "--overwrite")
    assert not set(CONTROLS) - {"\n"} & set(run.stderr)


@pytest.mark.parametrize(
    "arguments", [("--\x1b[31m\u202e",), ("transcribe", "--\x1b[31m\u202e"), ("\x1b\u202e",)]
)
def test_control_characters_of_a_wrong_call_are_escaped(arguments):
    run = tritone_invoke(*arguments)
    assert run.exit_code == 2
    assert "\\x1b" in run.stderr
    assert not {"\x1b", "\u202e"} & set(run.stderr)


def test_labels_and_texts_are_escaped_on_a_terminal(text_classifier):
    text = "one\x1b[2J\u202e"
    drawn, _ = tritone_on_terminal(
        "classify", "--text", text, "two", "--model", text_classifier, with_output=True
    )
    assert r"one\x1b[2J\u202e" in drawn
    assert "\u202e" not in drawn
    assert "\x1b[2J" not in drawn


# Names of any bytes, the whole way.


@pytest.mark.slow
@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_a_recording_of_any_name_is_transcribed_however_it_is_named(checkpoint, folder, tmp_path, locale):
    target = os.fsencode(tmp_path) + b"/caf\xe9 \xff"
    os.mkdir(target)
    names = [b"\xe9.wav", "né €.wav".encode(), b"\xff\\\n.wav"]
    for name in names:
        with open(os.path.join(target, name), "wb") as file:
            file.write((folder / "a.wav").read_bytes())
    paths = sorted(target + b"/" + name for name in names)
    listed = b"\n".join(path for path in paths if b"\n" not in path)
    calls = {
        "arguments": (paths, b"", 3),
        "a folder": ([target], b"", 3),
        "a glob": ([os.fsencode(tmp_path) + b"/caf\xe9*/*.wa[v]"], b"", 3),
        "a list": ([b"-"], listed, 2),
    }
    for number, (arguments, stdin, count) in enumerate(calls.values()):
        output = tmp_path / f"{number}.jsonl"
        command = [sys.executable, "-m", "tritone", "transcribe", *arguments, "--output", output]
        for again in (False, True):
            run = subprocess.run(
                [*command, "--model", checkpoint],
                input=stdin,
                capture_output=True,
                timeout=SOON,
                env={**os.environ, **locale},
            )
            assert run.returncode == 0, run.stderr
            found = [os.fsencode(record["path"]) for record in records(output)]
            assert found == (paths if stdin == b"" else listed.split(b"\n"))
            assert not again or f"{count} of {count} recordings are there".encode() in run.stderr


# Log and display.


def test_sigterm_is_an_orderly_end_with_its_own_code(checkpoint, folder, tmp_path):
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "tritone", "-", "--model", str(checkpoint), "--output", str(output)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGTERM, signal.SIG_DFL),
    )
    assert process.stdin is not None
    process.stdin.write(f"{folder / 'a.wav'}\n".encode() * 5)
    process.stdin.flush()
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert b"Traceback" not in errors
    assert process.returncode == 143


def test_the_log_is_shown_by_verbose_alone_and_quiet_leaves_failures(checkpoint, folder):
    run = tritone_invoke(folder, "--model", checkpoint, "--verbose")
    assert "tritone.engine.engine: Speech2TextForConditionalGeneration in float32 on cpu" in run.stderr
    assert "tritone.engine" not in tritone_invoke(folder, "--model", checkpoint).stderr
    run = tritone_invoke(folder, "--model", checkpoint, "--quiet")
    assert run.stderr.splitlines() == [line for line in run.stderr.splitlines() if "d.wav" in line] != []
    assert tritone_invoke(folder, "--verbose", "--quiet").exit_code == 2


def test_the_library_prints_no_log(checkpoint):
    code = f"""
import logging, tritone
tritone.Engine({str(checkpoint)!r}, device="cpu").close()
logging.getLogger("tritone.scheduler.loop").error("not shown")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=SOON)
    assert (run.stdout, run.stderr, run.returncode) == (b"", b"", 0)


def test_a_spinner_turns_on_a_terminal_while_the_model_is_loaded(checkpoint, folder):
    drawn, _ = tritone_on_terminal(folder, "--model", checkpoint)
    assert "loading the model" in drawn
    drawn, _ = tritone_on_terminal(folder, "--model", checkpoint, "--quiet")
    assert "loading" not in drawn
    assert "━" not in drawn
