"""The engine's benchmarks: smoke runs on a CPU, and their arithmetic on invented numbers."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def recordings(bench):
    return bench["workload"].Recordings()


@pytest.fixture
def h200(bench):
    return bench["roofline"].Peaks("NVIDIA H200", 790e12, 4.3e12, "known of H200")


def quick(name: str, folder: Path, seconds: float = 60) -> str:
    """Standard output of a smoke run."""
    command = [sys.executable, "-m", f"bench.engine.{name}", "--quick", "--device", "cpu", "--output", folder]
    if name != "decode_profile":
        command += ["--seconds", str(seconds)]
    run = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


# The runs.


def test_throughput_times_every_way_beside_transformers_and_draws_both_plots(tmp_path):
    pytest.importorskip("matplotlib")
    printed = quick("throughput", tmp_path)
    saved = json.loads((tmp_path / "throughput.json").read_text())
    assert saved["left_out"] == []
    kinds = [(row["size"], row["way"], row["beams"]) for row in saved["rows"]]
    assert kinds == [("tiny", way, beams) for beams in (1, 5) for way in ("waveforms", "features")]
    for row in saved["rows"]:
        assert row["rtfx"] == pytest.approx(row["audio"] / row["seconds"])
        assert row["tokens_per_second"] == pytest.approx(row["tokens"] / row["seconds"])
        assert 0 < row["fraction_of_limit"] < 1
        assert row["gpu_utilization"] is row["spent"]["busy"] is None
        assert row["compiled"] == 0
        parts = row["spent"]
        assert parts["encode"] + parts["decode"] + parts["host"] == pytest.approx(parts["wall"])
        assert min(parts["encode"], parts["decode"], parts["host"]) > 0
        assert [peer["size"] for peer in row["transformers"]] == [2, 1]
        best = max(peer["rtfx"] for peer in row["transformers"])
        assert row["times_transformers"] == pytest.approx(row["rtfx"] / best)
    assert [point["in_flight"] for point in saved["concurrency"]] == [1, 2, 4]
    assert all(point["rtfx"] > 0 for point in saved["concurrency"])
    assert [point["seconds"] for point in saved["lengths"]] == [0.5, 1.0, 2.0]
    assert all(point["per_second"] > 0 for point in saved["lengths"])
    for plot in ("concurrency.png", "length.png"):
        assert (tmp_path / plot).read_bytes().startswith(PNG)
    assert printed.count("| tiny |") == 4
    assert "| tiny | features | 5 beams |" in (tmp_path / "throughput.md").read_text()


def test_throughput_names_what_it_had_no_time_for(tmp_path):
    printed = quick("throughput", tmp_path, seconds=0)
    saved = json.loads((tmp_path / "throughput.json").read_text())
    assert saved["rows"] == saved["concurrency"] == saved["lengths"] == []
    assert len(saved["left_out"]) == 4 + 3 + 3
    assert "left out: tiny, from features, 5 beams" in printed


def test_latency_counts_requests_of_the_steady_state_at_every_level(tmp_path):
    printed = quick("latency", tmp_path)
    saved = json.loads((tmp_path / "latency.json").read_text())
    assert saved["left_out"] == []
    loads = [level["load"] for level in saved["levels"]]
    assert loads[:3] == ["1 in flight", "2 in flight", "4 in flight"]
    assert ["50 %" in loads[3], "80 %" in loads[4]] == [True, True]
    for level in saved["levels"]:
        assert level["requests"] >= 8
        for times in (level["first"], level["last"]):
            assert 0 < times["50"] <= times["90"] <= times["99"]
        assert level["first"]["50"] < level["last"]["50"]
        assert level["load"] in printed


def test_a_decode_steps_profile_is_a_table_of_operations(tmp_path):
    printed = quick("decode_profile", tmp_path)
    assert "a decode step of 4 requests with 1 hypotheses each takes" in printed
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    assert any("linear" in row[0] or "addmm" in row[0] for row in rows)
    shares = [float(row[-1].strip(" %")) for row in rows]
    assert sum(shares) == pytest.approx(100, abs=2)
    assert shares[:-1] == sorted(shares[:-1], reverse=True)
    assert json.loads((tmp_path / "decode_trace.json").read_text())["traceEvents"]


# The workload.


def test_recordings_have_librispeechs_lengths_and_3_4_tokens_a_second(bench, recordings):
    found = recordings.like_librispeech(40)
    assert sum(one.seconds for one in found) / 40 == pytest.approx(12.3, abs=0.01)
    for one in found:
        assert len(one.waveform) == round(16_000 * one.seconds)
        assert one.tokens == round(3.4 * one.seconds)
        assert one.features.shape == (1 + (len(one.waveform) - 400) // 160, 80)
        assert 0.02 < float(one.waveform.std()) < 0.1
    assert recordings.lasting([0.05])[0].tokens == 1


def test_sizes_are_those_of_the_published_models(bench):
    sizes = {}
    for name in ("small", "medium", "large"):
        config = bench["workload"].config_of(name)
        layers = config.encoder_layers, config.decoder_layers
        sizes[name] = (config.d_model, config.encoder_attention_heads, config.decoder_ffn_dim, *layers)
    assert sizes == {
        "small": (256, 4, 2048, 12, 6),
        "medium": (512, 8, 2048, 12, 6),
        "large": (1024, 16, 4096, 12, 6),
    }


# The limit.


def test_the_limit_of_the_small_model_on_an_h200_is_the_designs(bench, recordings, h200):
    """Design §7: 1.1 GFLOP and 6.4 MB a second of audio, and an RTFx of about 360,000 in all."""
    config = bench["workload"].config_of("small")
    (one,) = recordings.lasting([12.3])
    demand = bench["limits"].demand(config, [one], 1, 2)
    assert demand.operations / 12.3 == pytest.approx(1.1e9, rel=0.05)
    assert demand.bytes / 12.3 == pytest.approx(6.4e6, rel=0.03)
    assert 12.3 / demand.seconds(h200) == pytest.approx(360_000, rel=0.08)


def test_beams_share_their_reads_and_not_their_arithmetic(bench, recordings):
    config = bench["workload"].config_of("large")
    both = recordings.lasting([5.0, 20.0])
    greedy, beams = (bench["limits"].demand(config, both, count, 2) for count in (1, 5))
    assert beams.bytes == greedy.bytes
    assert beams.operations > greedy.operations
    single = [bench["limits"].demand(config, [one], 1, 2) for one in both]
    assert greedy.operations == pytest.approx(single[0].operations + single[1].operations)


# The time of each part.


def test_time_is_counted_once_where_intervals_meet(bench):
    covered = bench["timeline"].covered
    assert covered([]) == 0
    assert covered([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4


def kernel(begin: float, duration: float, correlation: int) -> dict:
    return {"cat": "kernel", "ts": begin, "dur": duration, "args": {"correlation": correlation}}


def launch(moment: float, correlation: int, thread: int = 7) -> dict:
    return {
        "cat": "cuda_runtime",
        "ts": moment,
        "dur": 1,
        "tid": thread,
        "args": {"correlation": correlation},
    }


def mark(begin: float, duration: float, thread: int = 7) -> dict:
    return {"cat": "user_annotation", "name": "tritone encode", "ts": begin, "dur": duration, "tid": thread}


def test_work_on_a_gpu_belongs_to_encoding_where_it_was_launched_inside_of_it(bench):
    spent_in_trace = bench["timeline"].spent_in_trace
    events = [
        {"ph": "M", "name": "process_name"},
        mark(0, 10),
        launch(2, 1),
        kernel(50, 30, 1),  # runs long after its launch
        launch(20, 2),
        kernel(80, 10, 2),
        launch(3, 3, thread=8),  # another thread at that time
        kernel(85, 15, 3),
        kernel(200, 5, 99),  # of an unknown launch
    ]
    spent = spent_in_trace(events, wall=250e-6)
    assert spent.encode == pytest.approx(30e-6)
    assert spent.decode == pytest.approx(25e-6)
    assert spent.busy == pytest.approx(55 / 250)
    assert spent.host == pytest.approx(195e-6)
    assert spent_in_trace([mark(0, 10)], 1.0) is None
    assert spent_in_trace([kernel(0, 1, 1)], 1.0) is None


def test_calls_are_timed_on_the_object_alone_and_a_model_without_calls_gives_nothing(bench):
    class Model:
        device = torch.device("cpu")

        def encode(self):
            return "encoded"

        cross_key_values = decode = encode

    class FrontEnd:
        def extract_packed(self):
            return None

    model, front_end = Model(), FrontEnd()
    spent = bench["timeline"].spent_on(lambda: model.encode(), model, front_end)
    assert spent.wall >= spent.encode > 0 == spent.decode
    assert vars(model) == vars(front_end) == {}
    assert bench["timeline"].spent_on(lambda: Model().encode(), model, front_end) is None


def test_utilization_is_the_mean_without_what_was_before(bench):
    mean = bench["timeline"].mean_utilization
    assert mean("0\n10\n80\n90\n100\n") == pytest.approx(0.9)
    assert mean("0\n0\n90\n90\n") is None
    assert mean("[N/A]\n" * 9) is None


# transformers' runs.


def test_batches_are_sorted_and_a_few_of_them_lie_all_over(bench, recordings):
    recognizers = bench["recognizers"]
    batches = recognizers.sorted_batches(recordings.lasting([3.0, 1.0, 5.0, 2.0, 4.0]), 2)
    assert [[one.seconds for one in batch] for batch in batches] == [[1.0, 2.0], [3.0, 4.0], [5.0]]
    assert recognizers.spread(1) == [0]
    assert recognizers.spread(8)[:3] == [4, 2, 6]
    for count in (2, 3, 7, 64):
        assert sorted(recognizers.spread(count)) == list(range(count))


def test_results_of_another_length_are_no_results(bench):
    bench["recognizers"].check_lengths([3, 4], [3, 4])
    with pytest.raises(RuntimeError, match="the first has 5 tokens, not 4"):
        bench["recognizers"].check_lengths([3, 5], [3, 4])


def test_without_transformers_its_runs_are_left_out_by_name(bench):
    class Setup:
        peers = True

        def peer(self, size):
            raise ImportError("No module named 'transformers'")

    findings = bench["throughput_report"].Findings({}, "small")
    found = bench["throughput"].time_peers(Setup(), findings, 0.0, size="small", source="features", beams=5)
    assert found == []
    assert findings.left_out == [
        "transformers, small, from features, 5 beams: No module named 'transformers'"
    ]


@pytest.mark.parametrize(
    ("error", "went", "note"),
    [
        (ImportError("no soundfile"), True, "compare, size small, beams 5: no soundfile"),
        (ValueError("wrong"), False, "compare, size small, beams 5: failed: ValueError: wrong"),
    ],
)
def test_a_part_that_fails_is_named_and_stops_no_other(bench, error, went, note):
    def compare(*_, size, beams):
        raise error

    findings = bench["throughput_report"].Findings({}, "small")
    part = functools.partial(compare, size="small", beams=5)
    assert bench["throughput"].carried_out(part, None, None, findings, 1.0) is went
    assert findings.left_out == [note]


def test_time_that_a_part_did_not_need_goes_to_those_after_it(bench, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(bench["throughput"].time, "monotonic", lambda: now[0])
    clock = bench["throughput"].Clock(90, [1, 1, 1])
    assert clock.next_share() == 30
    now[0] += 10
    assert clock.next_share() == 40
    now[0] += 200
    assert clock.next_share() == 0


# The report.


def test_the_table_takes_transformers_at_its_best_and_says_what_was_not_measured(bench):
    report, run = bench["throughput_report"], bench["recognizers"].Run(12_300.0, 41_820, 1000, 2.0)
    spent = bench["timeline"].Spent(wall=2.0, encode=1.0, decode=0.8, host=0.3, busy=0.85)
    peers = (
        report.Peer(16, 100.0, 1, 64),
        report.Peer(64, 615.0, 1, 16),
        report.Peer(256, None, note="memory"),
    )
    full = report.Row("small", "features", 5, run, 61_500.0, spent, 0.9, 3, peers)
    bare = report.Row("small", "waveforms", 1, run, 61_500.0, None, None, 0, ())
    assert (full.best, full.times) == (peers[1], 10.0)
    lines = report.table([full, bare]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert (
        "| 1,000 | 6,150.0 | 20,910 | 50 % | 40 % | 15 % | 85 % (profiler), 90 % (nvidia-smi) |" in lines[2]
    )
    assert lines[2].endswith("| 10.0 % | 3 | 615.0 (64) | 10.00 |")
    assert lines[3].count("not measured") == 6


def test_percentiles_are_values_that_occurred(bench):
    percentiles = bench["latency"].percentiles
    assert percentiles([float(value) for value in range(100, 0, -1)]) == {50: 50.0, 90: 90.0, 99: 99.0}
    assert percentiles([0.25]) == {50: 0.25, 90: 0.25, 99: 0.25}
