"""Stages of the run on a GPU, with a python3 that only records its arguments, and the parts of their own."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "A": ("-m bench.kernels --quick --no-peers", "-m bench.engine.equality --device cuda"),
    "B": ("-m pytest -p bench.common.failures",),
    "C": ("-m bench.engine.decode_profile", "-m bench.engine --device", "-m bench.engine.latency"),
    "D": ("-m bench.kernels --seconds",),
    "E": ("-m bench.engine.leaderboard",),
}


@pytest.fixture
def stage(tmp_path):
    """Run of a stage with a python3 that records its arguments, and fails where they hold a text."""

    def run(*arguments: object, failing: str = "nothing") -> subprocess.CompletedProcess[str]:
        fake = tmp_path / "python3"
        fake.write_text(
            f'#!/bin/bash\necho "$*" >>{tmp_path}/calls\n'
            'case "$*" in *get_device_name*) echo some-gpu ;; *architecture_of*) echo sm_90 ;; esac\n'
            f'case "$*" in *"-m {failing}"*) exit 1 ;; esac\n'
        )
        fake.chmod(0o755)
        return subprocess.run(
            ["bash", str(ROOT / "bench" / "gpu.sh"), *map(str, arguments)],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_a_stage_runs_its_commands_and_packs_their_output_into_one_file(name, stage, tmp_path):
    done = stage(name, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    calls = (tmp_path / "calls").read_text()
    for command in ("-m tritone.kernels --target sm_90", *COMMANDS[name]):
        assert command in calls
    (packed,) = (tmp_path / "out").iterdir()
    assert packed.name == f"{name}.tar.gz"
    with tarfile.open(packed) as archive:
        assert {f"{name}/machine.txt", f"{name}/compilation.txt"} < set(archive.getnames())
    assert "FAIL" not in done.stdout, done.stdout


def test_a_step_that_fails_stops_no_other_and_is_named_first_at_the_end(stage, tmp_path):
    done = stage("A", "--output", tmp_path / "out", failing="bench.kernels")
    assert done.returncode == 1
    assert "-m bench.engine.equality" in (tmp_path / "calls").read_text()
    assert done.stdout.split("failed and passed\n")[1].splitlines() == [
        "FAIL kernels: ended with 1",
        "PASS machine",
        "PASS compilation",
        "PASS equality",
    ]


def test_kernels_come_from_an_archive_instead_of_the_compiler(stage, tmp_path):
    archive = tmp_path / "kernels.tar.xz"
    archive.touch()
    assert stage("C", "--kernels", archive, "--output", tmp_path / "out").returncode == 0
    calls = (tmp_path / "calls").read_text()
    assert f"-m tritone.kernels --unpack {archive}" in calls
    assert "--target" not in calls


@pytest.mark.parametrize("arguments", [(), ("F",), ("A", "--wet")])
def test_unknown_stages_and_options_give_the_usage(arguments, stage):
    done = stage(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "bench/gpu.sh STAGE [--dry]" in done.stderr


def test_the_dry_form_keeps_no_results_unless_asked(stage, tmp_path):
    before = sorted((ROOT / "bench" / "results").rglob("*"))
    assert stage("E", "--dry").returncode == 0
    assert sorted((ROOT / "bench" / "results").rglob("*")) == before
    assert "--quick --device cpu" in (tmp_path / "calls").read_text()


def test_names_of_failing_tests_are_printed_as_they_fail(tmp_path):
    (tmp_path / "test_some.py").write_text(
        "def test_right():\n    pass\ndef test_wrong():\n    raise ValueError('why')\n"
    )
    (tmp_path / "test_no_module.py").write_text("import no_such_module\n")
    command = [
        "-m",
        "pytest",
        "-p",
        "bench.common.failures",
        "-o",
        "addopts=",
        "--continue-on-collection-errors",
    ]
    done = subprocess.run(
        [sys.executable, *command, "-q", "--rootdir", tmp_path, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAIL ", "PASS "))]
    assert lines[0].startswith("FAIL test_no_module.py (import)")
    assert lines[1].startswith("FAIL test_some.py::test_wrong (call): ValueError: why")
    assert lines[2] == f"FAIL {tmp_path}"


def test_a_difference_or_an_error_is_a_failure_of_its_check_alone(bench, monkeypatch, capsys):
    equality = bench["equality"]
    checks = [
        equality.attempt("same", lambda: equality.first_difference([True, True])),
        equality.attempt("other", lambda: equality.first_difference([True, False, False])),
        equality.attempt("broken", lambda: [][0]),
    ]
    assert str(checks[0]).startswith("PASS same, 0.0")
    assert str(checks[1]).endswith("s: 2 of 3 recordings differ, first number 1")
    assert str(checks[2]).startswith("FAIL broken, 0.0")
    assert "IndexError" in checks[2].difference


def test_scores_that_differ_in_a_bit_are_not_equal(bench):
    from tritone.scheduler.request import FinishReason, Hypothesis, RequestOutput

    same = bench["equality"].same

    def output(score: float, kept: float) -> RequestOutput:
        hypothesis = Hypothesis((2, 5), score, FinishReason.STOP)
        return RequestOutput(0, (hypothesis,), FinishReason.STOP, scores=(torch.tensor([kept]),))

    assert same(output(1.0, 2.0), output(1.0, 2.0))
    assert not same(output(1.0, 2.0), output(1.0 + 1e-15, 2.0))
    assert not same(output(1.0, 2.0), output(1.0, 2.0 + 1e-6))


def test_the_leaderboards_table_compares_with_transformers_at_its_best(bench):
    leaderboard = bench["leaderboard"]

    def row(way: str, rtfx: float) -> object:
        return leaderboard.Row("wav2vec2-base", way, 64, rtfx, 1.0, 10)

    rows = [row("engine", 900.0), row("transformers", 300.0), row("transformers", 200.0)]
    lines = leaderboard.table(rows).splitlines()
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["3.00", "1.00", "0.67"]
    run = leaderboard.row_of(leaderboard.MODELS[0], "engine", 2, lambda: [][0])
    assert run == "FAIL wav2vec2-base, engine, batch 2: IndexError: list index out of range"
