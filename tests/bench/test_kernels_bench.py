"""The kernels' benchmark without a GPU: shapes, counts, report and plot from invented timings, and every call
compared once on tiny shapes."""

import json
import math
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[2] / "bench"
H200 = (790e12, 4.3e12)


@pytest.fixture
def peaks(bench):
    return bench["roofline"].Peaks("NVIDIA H200", *H200, "known of H200", 788e12, 4.29e12)


def result(bench, kernel: str = "linear", seconds: float | None = 1e-5, **changes):
    """A result with invented numbers: 1 GFLOP and 10 MB, so that the floor is 2.3 µs, of bytes."""
    values = {
        "kernel": kernel,
        "label": f"{kernel}'s case",
        "tags": frozenset({kernel}),
        "sequences": 32,
        "work": bench["roofline"].Work(1e9, 1e7),
        "seconds": seconds,
        "error": 1e-3,
    }
    return bench["report"].Result(**values | changes)


@pytest.mark.parametrize("count", [32, 128, 512, 1024])
def test_recordings_are_as_long_as_librispeechs_and_the_same_each_time(bench, count):
    seconds = bench["shapes"].durations(count)
    assert len(seconds) == count
    assert (min(seconds), max(seconds)) == (1.3, 35.0)
    assert sum(seconds) / count == pytest.approx(12.3, abs=0.01)
    assert list(seconds) != sorted(seconds)
    assert seconds == bench["shapes"].durations(count)


def test_lengths_are_those_that_the_models_would_have(bench):
    from tritone.kernels.conv.subsample import output_length
    from tritone.kernels.features.fbank import frame_count

    shapes = bench["shapes"]
    batch = shapes.real(shapes.SMALL, 40)
    assert batch.frames == [frame_count(samples, 16_000) for samples in batch.samples]
    assert batch.halves == [output_length(frames, 5, 2) for frames in batch.frames]
    assert batch.tokens == [output_length(half, 5, 2) for half in batch.halves]
    # wav2vec2's own arithmetic: 49 tokens for a second.
    assert shapes.Batch(shapes.WAV2VEC2, (1.0,)).tokens == [49]
    assert shapes.Batch(shapes.WAV2VEC2, (1.0,)).first_layer == [3199]


def test_operations_and_bytes_are_counted_from_the_shapes(bench):
    cases, shapes = {}, bench["shapes"]
    batch = shapes.Batch(shapes.SMALL, (1.0, 2.0))  # 25 and 50 tokens
    for case in bench["suite"].each_once(batch, shapes.Batch(shapes.WAV2VEC2, (1.0, 1.0))):
        assert case.work.bytes > 0
        assert (case.kernel, case.shape) not in cases
        cases[case.kernel, case.shape] = case.work
    assert batch.tokens == [25, 50]
    fc1 = cases["linear", "encode fc1, ReLU, 75 x 256 to 2,048"]
    assert fc1.operations == 2 * 75 * 256 * 2048
    assert fc1.bytes == 2 * (75 * 256 + 256 * 2048 + 2048 + 75 * 2048)
    attention = cases["flash_attention", "real lengths, 75 tokens"]
    assert attention.operations == 4 * (25**2 + 50**2) * 256
    assert attention.bytes == 2 * 4 * 75 * 256
    paged = cases["paged_attention", "cross"]
    assert paged.bytes == 2 * (2 * 75 + 2 * 2) * 256  # keys and values, queries and outputs
    convolution = cases["conv_subsample", "layer 2, 512 to 256 channels"]
    assert convolution.operations == 2 * 75 * 5 * 512 * 512
    norm = cases["layer_norm", "2 x 256, with residual"]
    assert norm.bytes == 2 * 4 * 2 * 256  # two read, two written
    pooled = cases["mean_pool", "768 columns, 98 tokens"]
    assert pooled.operations == 98 * 768
    assert pooled.bytes == 2 * (98 + 2) * 768
    features = cases["fbank", "real lengths"]
    assert features.bytes == 4 * (48_000 + (98 + 198) * 80)
    assert features.dense == (98 + 198) * (2 * 400 * 514 + 2 * 257 * 80)


def test_the_floor_is_the_longer_of_arithmetic_and_traffic(bench, peaks):
    work = bench["roofline"].Work
    assert work(790e12, 1.0).floor(peaks) == 1.0
    assert work(1.0, 4.3e12).floor(peaks) == 1.0
    assert result(bench, seconds=1e7 / 4.3e12 * 4).fraction(peaks) == pytest.approx(0.25)


def test_the_suite_covers_the_goals_and_names_each_case_once(bench, peaks):
    suite, report = bench["suite"], bench["report"]
    cases = suite.all_cases()
    names = [(case.kernel, case.label) for case in cases]
    assert len(set(names)) == len(names)
    peers = {
        name: report.Peer(1.0)
        for name in ("SDPA, padded", "SDPA, nested", "torchaudio", "conv1d + GLU", "cuBLAS")
    }
    invented = [
        report.Result(case.kernel, case.label, case.tags, case.sequences, case.work, 1.0, 0.0, peers)
        for case in cases
    ]
    assert all(goal.worst is not None for goal in report.goals(invented, peaks))
    assert {case.sequences for case in cases} >= {32, 128, 256, 512, 1024}
    kernels = {case.kernel for case in cases}
    for other in (suite.quick_cases(), suite.tiny_cases()):
        assert {case.kernel for case in other} == kernels


def test_a_goal_is_judged_where_it_is_hardest(bench, peaks):
    report = bench["report"]

    def goal(*results):
        return report.goals(list(results), peaks)[-1]

    fast = result(bench, label="fast", peers={"cuBLAS": report.Peer(0.95e-5)})
    slow = result(bench, label="slow", peers={"cuBLAS": report.Peer(0.8e-5)})
    assert goal(fast).verdict == "met"
    assert goal(fast, slow).verdict == "missed"
    assert goal(fast, slow).worst == pytest.approx(0.8)
    assert goal(fast, slow).where == "slow"
    assert goal(result(bench, seconds=None, failure="X")).verdict == "not measured"
    assert goal(result(bench, peers={"cuBLAS": report.Peer(None, note="absent")})).verdict == "not measured"
    lines = report.goal_lines(report.goals([fast, slow], peaks))
    assert "missed       linear, of cuBLAS: wanted 0.85, got 0.80 at worst (slow)" in lines
    bandwidth = result(bench, "paged_attention", 1e7 / 4.3e12 / 0.9, tags={"paged cross"}, sequences=512)
    assert report.goals([bandwidth], peaks)[0].worst == pytest.approx(0.9)


def test_the_table_has_a_row_for_each_case_and_failures_say_why(bench, peaks):
    report = bench["report"]
    peers = {"cuBLAS": report.Peer(2e-5, 1e-3), "torchaudio": report.Peer(None, note="No | module")}
    rows = [
        result(bench, peers=peers, best=8e-6, best_tile=(64, 128, 64, 4, 4)),
        result(bench, "fbank", None, failure="RuntimeError: out of | memory"),
    ]
    lines = report.table(rows, peaks).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert "10.0" in lines[2]
    assert "0.23" in lines[2]  # of the floor
    assert "cuBLAS 2.00; torchaudio: No / module" in lines[2]
    assert "64x128x64, 1.25 x" in lines[2]
    assert "FAILED" in lines[3]
    assert "out of / memory" in lines[3]


def test_results_are_written_as_json_table_and_plot(bench, peaks, tmp_path):
    pytest.importorskip("matplotlib")
    report, work = bench["report"], bench["roofline"].Work
    results = [
        result(bench, peers={"cuBLAS": report.Peer(2e-5, 1e-3)}, best=9e-6, best_tile=(64, 64, 64, 4, 4)),
        result(bench, "kv_cache", work=work(0, 1e6)),
        result(bench, "fbank", None, failure="RuntimeError: no"),
    ]
    bench["kernels"].write(results, peaks, tmp_path)
    saved = json.loads((tmp_path / "kernels.json").read_text())
    assert [entry["seconds"] for entry in saved["results"]] == [1e-5, 1e-5, None]
    assert saved["results"][0]["times_as_fast_as"] == {"cuBLAS": 2.0}
    assert saved["results"][0]["invariance_cost"] == pytest.approx(10 / 9)
    assert [goal["verdict"] for goal in saved["goals"]][-1] == "met"
    text = (tmp_path / "kernels.md").read_text()
    assert "not measured" in text
    assert "| linear " in text
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")
    bench["plot"].plot([], peaks, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 1000


def test_every_call_is_right_on_tiny_shapes(bench, dtype, kernels_on):
    stage = bench["cases"].Setup(torch.device(kernels_on), dtype, 2)
    lines = [
        line for case in bench["suite"].tiny_cases() for line in bench["measure"].compare_all(case, stage)
    ]
    assert [line for line in lines if line.startswith("FAIL ")] == []
    kernels = {case.kernel for case in bench["suite"].all_cases()}
    ours = [line for line in lines if "ours, error" in line]
    assert len(ours) == len(bench["suite"].tiny_cases())
    assert all(any(f" {kernel}, " in line for line in ours) for kernel in kernels)


def test_a_wrong_or_unwritten_output_is_refused(bench, kernels_on):
    cases, measure = bench["cases"], bench["measure"]
    wanted = torch.ones(4, 3, device=kernels_on)

    def check(run):
        prepared = cases.Prepared.of(run, wanted, 1e-3, lambda out: out)
        return measure.checked(prepared.ours, prepared)

    assert check(lambda copy: wanted * (1 + 1e-4)) == pytest.approx(1e-4, rel=1e-2)
    with pytest.raises(measure.WrongOutputError, match=r"error 1\.00e-02, allowed 1e-03"):
        check(lambda copy: wanted * 1.01)
    with pytest.raises(measure.WrongOutputError, match="error nan"):
        check(lambda copy: torch.empty(4, 3, device=kernels_on))
    with pytest.raises(measure.WrongOutputError, match=r"shape \[4\], wanted \[4, 3\]"):
        check(lambda copy: wanted[:, 0])


def test_a_case_that_fails_or_comes_too_late_is_told_and_stops_nothing(bench):
    cases, measure, work = bench["cases"], bench["measure"], bench["roofline"].Work

    def prepare(stage):
        raise RuntimeError("no memory\nand more")

    case = cases.Case("linear", "S2T", 32, "some", work(1, 1), prepare)
    cpu = torch.device("cpu")
    half = torch.float16
    assert measure.run(case, cpu, half, time.monotonic() + 60).failure == "RuntimeError: no memory"
    assert measure.run(case, cpu, half, time.monotonic() - 1).failure == "not reached in time"


def test_a_whole_run_with_invented_times(bench, peaks, kernels_on, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    kernels, measure = bench["kernels"], bench["measure"]
    monkeypatch.setattr(measure, "CACHE", 1)  # one copy of the inputs
    monkeypatch.setattr(measure, "samples", lambda *_, **options: (1e-5, 0.9e-5, 1.1e-5))
    cases = bench["suite"].tiny_cases()
    timing = partial(measure.run, device=torch.device(kernels_on), dtype=torch.float16)
    late = partial(timing, deadline=time.monotonic() + 300)
    assert kernels.run_all(cases, late, peaks, tmp_path) == 0
    printed = capsys.readouterr().out
    assert f"{len(cases)} of {len(cases)} cases timed" in printed
    assert "not measured paged attention at 512 sequences" in printed
    results = json.loads((tmp_path / "kernels.json").read_text())["results"]
    assert [entry["kernel"] for entry in results] == [case.kernel for case in cases]
    for entry in results:
        assert entry["peers"]
        assert entry["best_tile"] is None or entry["kernel"] == "linear"
        wrong = [name for name, peer in entry["peers"].items() if peer["seconds"] is None]
        assert set(wrong) <= {"torchaudio"}
    assert kernels.run_all(cases[:2], partial(timing, deadline=0.0), peaks, tmp_path) == 1
    assert "FAIL paged_attention, tiny, 3 x, cross: not reached in time" in capsys.readouterr().out


def test_another_tile_computes_the_same_and_only_for_as_long_as_asked(bench, kernels_on):
    from tritone.kernels.linear.gemm import linear
    from tritone.kernels.runtime.launch import recorded

    tiles = bench["tiles"]
    hidden, weight = torch.randn(37, 48, device=kernels_on), torch.randn(32, 48, device=kernels_on)
    usual = linear(hidden, weight)
    with recorded() as before:
        linear(hidden, weight)
    for tile in [(16, 32, 16, 4, 2), (64, 16, 32, 4, 1)]:
        with tiles.replaced(before[0], tile), recorded() as inside:
            torch.testing.assert_close(linear(hidden, weight), usual)
        assert [inside[0].constant(name) for name in tiles.NAMES[:3]] == list(tile[:3])
    with recorded() as after:
        linear(hidden, weight)
    assert after == before

    left = iter([3.0, RuntimeError("out of resource"), 2.0, *[4.0] * 20])

    def timing() -> float:
        value = next(left)
        if isinstance(value, RuntimeError):
            raise value
        return value

    best = tiles.best_tile(lambda: linear(hidden, weight), timing)
    assert (best.tile, best.seconds) == (tiles.TILES[2], 2.0)
    assert list(best.failed) == [str(tiles.TILES[1])]
    assert tiles.best_tile(lambda: None, timing) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="would start the timings")
def test_without_a_gpu_the_command_says_what_to_do(bench, capsys, monkeypatch):
    with pytest.raises(SystemExit, match="2"):
        bench["kernels"].main([])
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "no CUDA device; --dry compares everything" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        bench["kernels"].main(["--dry", "--kernel", "flash"])
    assert "no case of 'flash'" in capsys.readouterr().err


def test_a_kernel_a_case_and_a_type_can_be_chosen(bench):
    suite = bench["suite"]
    chosen = suite.matching(suite.all_cases(), "flash_attention", "large causal")
    assert [(case.kernel, case.model, "causal" in case.label) for case in chosen] == [
        ("flash_attention", "S2T large", True)
    ]
    assert len(suite.matching(suite.all_cases(), None, "")) == len(suite.all_cases())
    ran = subprocess.run(
        [sys.executable, "-m", "bench.kernels", "--dry", "--kernel", "rms_norm", "--dtype", "float16"],
        cwd=BENCH.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    first, *others = ran.stdout.splitlines()
    assert first.startswith("PASS float16 rms_norm, tiny, 3 x, 3 x 48: ours, error")
    assert len(others) == 2


def test_ceilings_that_are_known_are_finite(bench):
    for operations, bandwidth in bench["roofline"].KNOWN.values():
        assert math.isfinite(operations)
        assert operations > bandwidth
