"""Names of commands and options: the default command, aliases, suggestions, settings, completion."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import SOON, tritone_invoke

from tritone.engine.cli.main import app
from tritone.engine.cli.names import ALIASES, canonical

SAMPLE = Path(__file__).parents[3] / "samples" / "digits" / "one_digit_8k.wav"


def test_a_file_or_an_option_first_is_transcribed(checkpoint):
    wanted = tritone_invoke("transcribe", SAMPLE, "--model", checkpoint).stdout
    assert wanted
    for call in (
        [SAMPLE, "--model", checkpoint],
        ["--model", checkpoint, SAMPLE],
        ["-", "--model", checkpoint],
    ):
        assert wanted.strip() in tritone_invoke(*call, stdin=str(SAMPLE)).stdout


def test_a_command_goes_before_a_file_of_its_name_and_a_path_names_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "convert").write_text("no audio")
    (tmp_path / "talk").write_text("no audio")
    assert "Missing argument 'SOURCE'" in tritone_invoke("convert").stderr
    for path in ("./convert", "talk"):
        run = tritone_invoke(path, "--model", "digits")
        assert "not audio" in run.stderr
        assert run.exit_code == 1


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (["transcirbe"], "No command and no file is named 'transcirbe'. Did you mean transcribe?"),
        (["gone"], "No command and no file is named 'gone'. The commands are transcribe, classify"),
        (["gone.wav", "--num-beam", "2"], "--num-beam. Did you mean --num-beams?"),
        (["gone.wav", "--num_beam", "2"], "--num-beam. Did you mean --num-beams?"),
        (["gone.wav", "--beam-sise", "2"], "Did you mean --beam-size"),
        (["--verison"], "Did you mean --version"),
        (["gone.wav", "--batch_size", "8"], "--batch-size is no option here: leave it out, since recordings"),
        (["gone.wav", "--compute_type", "int8"], "int8: models compute in float32, float16 or bfloat16"),
        (["gone.wav", "--words=maybe"], "does not take a value"),
    ],
)  # fmt: skip
def test_a_wrong_name_ends_with_2_and_what_was_meant(call, wanted):
    run = tritone_invoke(*call)
    assert run.exit_code == 2
    assert wanted in " ".join(run.stderr.replace("│", " ").split())


def values(monkeypatch, *arguments: str) -> dict:
    """Values that the arguments give the parameters of transcribe, those of defaults left out."""
    import typer

    command = typer.main.get_command(app)
    with command.commands["transcribe"].make_context("transcribe", ["a.wav", *arguments]) as ctx:
        given = {name for name in ctx.params if ctx.get_parameter_source(name).name != "DEFAULT"}
        return {name: ctx.params[name] for name in given - {"paths"}}


@pytest.mark.parametrize(
    ("given", "declared"),
    [
        ("--beam_size 5", "--num-beams 5"),
        ("--beam-size=5", "--num-beams 5"),
        ("--compute_type float16 --output_format jsonl", "--dtype float16 --format jsonl"),
        ("--word_timestamps True --initial_prompt one", "--words --prompt one"),
        ("--word_timestamps False", "--no-words"),
        ("--no_word_timestamps", "--no-words"),
        ("--condition_on_previous_text True", "--condition-on-prev-tokens"),
        ("--condition_on_previous_text=false", "--no-condition-on-prev-tokens"),
        ("--fp16 False", "--dtype float32"),
        ("--prompt True", "--prompt=True"),
        ("--no_speech_threshold 0.5", "--no-speech-threshold 0.5"),
        ("--log_prob_threshold -1 --cpu_threads 2", "--logprob-threshold -1 --threads 2"),
    ],
)  # fmt: skip
def test_names_of_other_programs_mean_the_options_here(monkeypatch, given, declared):
    assert values(monkeypatch, *given.split()) == values(monkeypatch, *declared.split()) != {}


def test_true_after_a_flag_is_its_value_and_a_file_by_its_path():
    run = tritone_invoke("--words", "True", "./True", "--model", "digits")
    assert "'True'" not in run.stderr
    assert "True: no such file" in run.stderr


def test_no_option_has_the_name_of_an_alias():
    import typer

    for command in typer.main.get_command(app).commands.values():
        for param in command.params:
            for opt in param.opts:
                assert opt[2:] not in ALIASES
                assert canonical(opt[2:]) == opt[2:]


# Settings.


def test_the_environment_sets_options_and_the_call_goes_before_it(monkeypatch):
    monkeypatch.setenv("TRITONE_NUM_BEAMS", "4")
    monkeypatch.setenv("TRITONE_TIMESTAMPS", "1")
    monkeypatch.setenv("TRITONE_TEMPERATURE", "0 0.5")
    monkeypatch.setenv("TRITONE_OUTPUT", "of/one/call")
    assert values(monkeypatch) == {"num_beams": 4, "return_timestamps": True, "temperature": [0, 0.5]}
    found = values(monkeypatch, "--num-beams", "2", "--no-timestamps")
    assert (found["num_beams"], found["return_timestamps"]) == (2, False)
    monkeypatch.setenv("TRITONE_NUM_BEAMS", "many")
    run = tritone_invoke("gone.wav")
    assert "TRITONE_NUM_BEAMS" in run.stderr
    assert run.exit_code == 2


def test_a_setting_for_transcribing_leaves_the_other_commands_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITONE_MODEL", "/no/such/model")
    monkeypatch.setenv("TRITONE_DTYPE", "bfloat16")
    assert "no checkpoint" in tritone_invoke(SAMPLE).stderr
    assert tritone_invoke("classify", SAMPLE, "--dtype", "float32").exit_code == 0
    run = tritone_invoke("convert", "digits", tmp_path / "copy")
    assert run.stderr.endswith("float16\n")  # as it is stored


def test_the_report_of_the_environment_has_settings_and_no_secrets(monkeypatch):
    monkeypatch.setenv("TRITONE_MODEL", "digits")
    monkeypatch.setenv("TRITONE_NUM_BEAM", "4")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("TRITONE_API_KEY", "key_secret")
    run = tritone_invoke("env")
    assert run.exit_code == 0
    lines = [" ".join(line.split()) for line in run.stdout.splitlines()]
    assert "TRITONE_MODEL digits (--model of transcribe)" in lines
    assert "TRITONE_NUM_BEAM 4 (unknown, and ignored; did you mean TRITONE_NUM_BEAMS?)" in lines
    for name in ("torch", "cuda", "cpu", "english", "digits", "hub"):
        assert any(line.startswith(f"{name} ") for line in lines)
    assert "TRITONE_API_KEY set, not shown (key that clients of serve need)" in lines
    assert "hf_secret" not in run.output
    assert "key_secret" not in run.output
    assert "TRITONE_OUTPUT " not in run.stdout


# Completion.


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
def test_bash_completes_commands_options_and_models_by_the_script(tmp_path):
    program = "import sys; sys.argv[0] = 'tritone'; from tritone.__main__ import main; main()"
    (tmp_path / "tritone").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{program}" "$@"\n')
    (tmp_path / "tritone").chmod(0o755)
    script = """
    eval "$(tritone --show-completion bash)"
    complete_words() {
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        $(complete -p tritone | sed 's/.*-F \\([^ ]*\\).*/\\1/') tritone
        echo "${COMPREPLY[*]}"
    }
    complete_words tritone trans
    complete_words tritone transcribe --num
    complete_words tritone talk.wav --model e
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SHELL": "/bin/bash"}
    environment["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"  # none to detect in a container
    run = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=SOON, env=environment, cwd=tmp_path
    )
    assert run.stdout.splitlines() == ["transcribe", "--num-beams", "english"], run.stderr
