"""A user's kernel in the kernels' benchmark, comparison of two runs, and Nsight Compute's command."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "custom_kernel.py"
TORCH = """
import torch.nn.functional as F

def rms_norm(hidden, weight, eps=1e-6, *, residual=None):
    if residual is not None:
        return NotImplemented
    return F.rms_norm(hidden, hidden.shape[-1:], weight, eps)

def wrong(hidden, weight, eps=1e-6, *, residual=None):
    return hidden
"""


@pytest.fixture
def solution(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(TORCH)
    return path


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.kernels", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_solution_is_compared_with_the_reference_in_the_interpreter(solution):
    done = command("--dry", "--solution", f"{solution}:rms_norm", "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PASS float32 rms_norm, tiny, 3 x, 3 x 48: error")


def test_a_wrong_solution_fails(solution):
    done = command(
        "--dry", "--solution", f"{solution}:wrong", "--operation", "rms_norm", "--dtype", "float16"
    )
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL float16 rms_norm, tiny, 3 x, 3 x 48: WrongOutputError: error")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("mine.py", "takes FILE.py:FUNCTION"),
        ("no_such.py:rms_norm", "there is no file no_such.py"),
        ("{file}:absent", "has no function absent"),
    ],
)
def test_a_bad_place_of_a_solution_is_refused(bench, solution, place, message):
    with pytest.raises(ValueError, match=message):
        bench["solution"].Solution.load(place.format(file=solution), None)


def test_launches_of_plain_and_of_declared_kernels_are_compiled_and_not_run():
    # In a process without the interpreter.
    code = (
        "import torch\n"
        "from bench.kernels.solution import Solution\n"
        "from bench.kernels.suite import matching, tiny_cases\n"
        "from tritone.kernels.norm.layer_norm import layer_norm_triton\n"
        f"mine = Solution.load({str(EXAMPLE)!r} + ':layer_norm', None)\n"
        "cases = matching(tiny_cases(), 'layer_norm', '')\n"
        "print('\\n'.join(mine.compiled(cases, torch.float16)))\n"
        "print('\\n'.join(Solution(layer_norm_triton, 'layer_norm').compiled(cases, torch.float32)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [line.split()[:4] for line in done.stdout.splitlines()]
    assert rows[1][:4] == ["rows", "fp16", "64", "sm_90"]
    assert rows[3][:2] == ["layer_norm", "256"]


def test_a_solution_is_timed_beside_the_shipped_kernel(bench, kernels_on, monkeypatch):
    from tritone.kernels.norm.layer_norm import rms_norm_reference

    measure, suite = bench["measure"], bench["suite"]
    monkeypatch.setattr(measure, "CACHE", 1)
    times = iter([(1e-5, 0.9e-5, 1.1e-5), (2e-5, 1.9e-5, 2.1e-5)])
    monkeypatch.setattr(measure, "samples", lambda *_, **options: next(times))
    (case,) = suite.matching(suite.tiny_cases(), "rms_norm", "")
    mine = bench["solution"].Solution(rms_norm_reference, "rms_norm")
    found = measure.run(case, torch.device(kernels_on), torch.float16, float("inf"), solution=mine)
    assert (found.seconds, found.spread) == (1e-5, (0.9e-5, 1.1e-5))
    assert found.ratio("shipped") == 2.0


def test_a_change_counts_where_it_exceeds_the_noise(bench, tmp_path):
    report, work = bench["report"], bench["roofline"].Work(1, 1)
    blank = report.Result("linear", "a", frozenset(), 1, work)

    def timed(label: str, seconds: float, spread: float) -> object:
        bounds = (seconds * (1 - spread), seconds * (1 + spread))
        return replace(blank, label=label, seconds=seconds, spread=bounds)

    old = tmp_path / "old.json"
    before = [("a", 1e-5, 0.01), ("b", 1e-5, 0.01), ("c", 1e-5, 0.2), ("d", 1e-5, 0.0)]
    results = [
        {
            "kernel": "linear",
            "label": label,
            "seconds": seconds,
            "spread": timed(label, seconds, spread).spread,
        }
        for label, seconds, spread in before
    ]
    old.write_text(json.dumps({"results": results}))
    now = [
        timed("a", 0.8e-5, 0.01),
        timed("b", 1.2e-5, 0.01),
        timed("c", 0.8e-5, 0.2),
        timed("d", 1.01e-5, 0.0),
    ]
    lines = bench["compare"].compared([*now, replace(blank, label="e", failure="X")], old)
    assert [line.split()[0] for line in lines] == ["faster", "slower", "same", "same", "4"]
    assert "10.0 to 8.0 µs, 1.250 times as fast" in lines[0]
    assert lines[-1] == "4 cases compared, 1 are not in both"
    old.write_text("[]")
    with pytest.raises(ValueError, match="holds no results"):
        bench["compare"].compared([], old)


def test_nsight_compute_profiles_one_case(bench, tmp_path, monkeypatch):
    ncu, suite = bench["ncu"], bench["suite"]
    cases = suite.matching(suite.all_cases(), "flash_attention", "large causal")
    with pytest.raises(ValueError, match="profiles one case; choose by --kernel and --case"):
        ncu.profiled(suite.all_cases()[:2], [], tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="needs Nsight Compute"):
        ncu.profiled(cases, [], tmp_path)
    fake = tmp_path / "ncu"
    fake.write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/calls\n')
    fake.chmod(0o755)
    assert ncu.profiled(cases, ["--kernel", "flash_attention", "--ncu"], tmp_path) == 0
    called = (tmp_path / "calls").read_text()
    assert "--profile-from-start off" in called
    assert called.strip().endswith("-m bench.kernels --kernel flash_attention --once")
