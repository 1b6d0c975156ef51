"""`tritone bench`: speed and latency by the number at once, phases, rates, advice, JSON, picture."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import tritone_invoke, tritone_process

import tritone
from tritone.engine.bench.load import measure_level
from tritone.engine.bench.machine import OtherLoad
from tritone.engine.bench.measure import levels_up_to, measure
from tritone.engine.bench.phases import CacheShape, PhaseClock, WorkCounter, shares
from tritone.engine.bench.rates import Rates, measure_rates
from tritone.engine.bench.report import advice, best, report
from tritone.engine.bench.workload import Work, given_recordings, made_up
from tritone.scheduler.device.phases import observed

ROOT = Path(__file__).parents[3]
RECORDING = ROOT / "samples" / "digits" / "two_digits_16k.wav"


def measured(model: object, *options: object) -> str:
    """Standard output of a short measurement that succeeds, without a process of its own."""
    run = tritone_invoke("bench", "--model", model, "--device", "cpu", "--seconds", "1", *options)
    assert run.exit_code == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def digits():
    with tritone.Engine("digits", device="cpu", num_rows=4) as engine:
        yield engine


@pytest.fixture(scope="module")
def found(digits):
    """Measurement of three seconds."""
    return measure(digits, made_up(digits, {}), 3)


def test_a_process_prints_what_the_machine_gives_and_writes_all_numbers(tmp_path):
    pytest.importorskip("matplotlib")
    files = "--json", tmp_path / "found.json", "--plot", tmp_path / "found.png"
    run = tritone_process("bench", "--model", "digits", "--device", "cpu", "--seconds", 3, *files)
    assert run.returncode == 0, run.stderr
    assert "This machine gives an hour of audio in" in run.stdout
    assert "measuring: warming up" in run.stderr
    saved = json.loads((tmp_path / "found.json").read_text())
    assert saved["unit"] == "RTFx"
    assert {"features", "encode", "decode"} <= saved["phases"].keys()
    assert saved["rates"]["operations"] > 1e9
    assert saved["peak_bytes"] > 1e8
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("fixture", ["ctc_checkpoint", "audio_classifier"])
def test_recordings_of_a_model_without_a_decoder_are_measured(fixture, request):
    printed = measured(request.getfixturevalue(fixture), RECORDING, "--quiet")
    assert "1 recordings of yours" in printed
    assert "first token" not in printed
    assert "decode step" not in printed


def test_texts_are_measured_in_tokens_a_second(text_classifier, tmp_path):
    (tmp_path / "texts.txt").write_text("a good film\n\na film\n")
    assert "tokens/s" in measured(text_classifier)
    assert "2 texts of yours" in measured(text_classifier, tmp_path / "texts.txt")


def test_levels_are_powers_of_two_up_to_the_rows():
    assert levels_up_to(1) == [1]
    assert levels_up_to(12) == [1, 2, 4, 8, 12]
    assert levels_up_to(32) == [1, 2, 4, 8, 16, 32]


def test_a_level_keeps_so_many_requests_in_progress(digits):
    before = digits.stats().finished
    level = measure_level(digits, [Work(RECORDING)], 3, 0.2)
    assert digits.stats().finished - before >= level.requests >= 3
    assert level.seconds >= 0.2
    assert level.lowest <= level.rate <= level.highest
    assert 0 < level.first_token.p50 <= level.total.p50 <= level.total.p95 <= level.total.p99


def test_a_recording_that_fails_is_left_out_and_named(digits, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    workload = given_recordings([tmp_path / "bad.wav", RECORDING], {})
    found = measure(digits, workload, 1)
    assert len(found.failed) == 1
    assert any("bad.wav" in line for line in report(found))
    with pytest.raises(RuntimeError, match=r"bad\.wav"):
        measure(digits, given_recordings([tmp_path / "bad.wav"], {}), 1)


def test_the_work_of_a_decode_step_is_that_of_its_weights(digits):
    counter = WorkCounter()
    with observed(counter):
        digits.submit(RECORDING, max_new_tokens=3, num_beams=1).result()
    decode = counter.work["decode"]
    decoder = digits.model.model.decoder
    used = sum(
        weight.numel()
        for name, weight in decoder.named_parameters()
        if weight.dim() == 2 and "embed" not in name and "encoder_attn.k" not in name
        and "encoder_attn.v" not in name
    ) + digits.model.lm_head.weight.numel()  # fmt: skip
    # Few outputs are padded to 16.
    assert used <= decode.operations / decode.calls / 2 <= 1.1 * used
    assert decode.weight_bytes == 2 * decode.operations


def test_a_clock_counts_the_positions_that_decode_steps_read(digits):
    clock = PhaseClock()
    with observed(clock):
        result = digits.submit(RECORDING, max_new_tokens=3, num_beams=2).result()
    totals = clock.totals()
    steps, encoded = totals["decode"].calls, totals["encode"].units
    assert steps >= 1
    assert totals["decode"].units == 2 * steps
    assert totals["decode"].cached_positions == steps * encoded + 2 * sum(range(1, steps + 1))
    assert result.text is not None


def test_results_are_the_same_bits_beside_an_observer(digits):
    options = {"max_new_tokens": 8, "num_beams": 1}
    alone = digits.submit(RECORDING, **options).result()
    for observer in (PhaseClock(), WorkCounter()):
        with observed(observer):
            beside = digits.submit(RECORDING, **options).result()
        assert (beside.token_ids, beside.score) == (alone.token_ids, alone.score)


def test_shares_are_of_the_rates(digits):
    clock, counter = PhaseClock(), WorkCounter()
    for observer in (counter, clock):
        with observed(observer):
            digits.submit(RECORDING).result()
    rates = Rates(1e9, 1e8, 1, "float32")
    totals, cache = clock.totals(), CacheShape.of(digits.model)
    slow = shares(totals, counter.work, cache, rates, 2.0)
    fast = shares(totals, counter.work, cache, Rates(2e9, 4e8, 1, "float32"), 2.0)
    assert slow["encode"].products == pytest.approx(2 * fast["encode"].products)
    assert slow["decode"].memory == pytest.approx(4 * fast["decode"].memory)
    assert slow["encode"].cpu == pytest.approx(totals["encode"].seconds / 2)
    wanted = counter.work["encode"].operations / totals["encode"].seconds / 1e9
    assert slow["encode"].products == pytest.approx(wanted)


def test_rates_are_of_one_thread_while_all_are_at_work():
    rates = measure_rates(torch.float32, 0.05)
    assert rates.threads == torch.get_num_threads()
    assert rates.operations > 1e9
    assert rates.bytes > 1e8


def test_the_load_of_others_is_a_share():
    others = OtherLoad().share()
    assert others is None or 0 <= others <= 1


def test_advice_names_the_knob(found):
    one = found.levels[0]
    levels = [replace(one, at_once=count, rate=rate) for count, rate in ((1, 10.0), (2, 29.0), (4, 30.0))]
    machine = found.machine | {"threads": 1, "cores": 8}
    told = replace(found, levels=levels, left_out=[8], half_rate=2.0, num_beams=5, machine=machine)
    assert best(told).at_once == 2
    said = "\n".join(advice(told))
    for wanted in ("2.9 times as fast", "More than 2 at once", "--threads 8", "--dtype bfloat16"):
        assert wanted in said
    for wanted in ("--num-beams 1", "no time for 8 at once"):
        assert wanted in said


def test_a_gpus_measurement_has_neither_phases_nor_rates(found):
    gpu = replace(
        found, device="cuda:0", phases={}, rates=None, half_rate=None, gpu_peak_bytes=1 << 30,
        machine=found.machine | {"gpu": "a GPU", "threads": 1, "cores": 8},
    )  # fmt: skip
    said = "\n".join(report(gpu))
    assert "a GPU" in said
    assert "1,024 MiB on the GPU" in said
    assert "--threads" not in said
    assert "Phases" not in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "cpu,cpu"), "several devices are for transcribe"),
        (("--json", "nowhere/found.json"), "its folder is not there"),
        (("nowhere.wav",), "nowhere.wav"),
    ],
)
def test_incorrect_usage_is_refused(options, message):
    run = tritone_invoke("bench", "--model", "digits", *options)
    assert run.exit_code == 2
    assert message in run.stderr


def test_a_picture_without_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setattr("tritone.engine.cli.bench.find_spec", lambda name: None)
    run = tritone_invoke("bench", "--plot", "found.png")
    assert run.exit_code == 2
    assert "pip install 'tritone[bench]'" in run.stderr
