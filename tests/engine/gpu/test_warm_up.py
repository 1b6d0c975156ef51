"""Warm-up and the size of the cache on a GPU, as far as they can be tested without one."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import tritone
from tritone.engine.builtin_models import DIGITS
from tritone.engine.config import EngineConfig
from tritone.engine.gpu import memory
from tritone.engine.gpu.memory import decoding_bytes, encode_size, encoding_bytes, fitting_rows, pages_in
from tritone.engine.gpu.warm_up import compile_kernels, noise, record_steps, warm_up, warm_up_options
from tritone.scheduler import runner
from tritone.scheduler.request import GenerationOptions, Request, RequestOutput

GIB = 1 << 30


@pytest.fixture(scope="module")
def digits():
    folder = DIGITS.folder
    model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval()
    return model, tritone.AutoProcessor.from_pretrained(folder).feature_extractor


def test_the_cache_gets_what_encoding_and_decoding_leave_of_a_fraction():
    assert pages_in(100 * GIB, 0.9, GIB, encoding=20 * GIB, decoding=10 * GIB) == 60
    assert pages_in(100 * GIB, 0.5, GIB, encoding=20 * GIB, decoding=10 * GIB) == 20


def test_the_cache_gets_a_quarter_however_much_encoding_takes():
    assert pages_in(100 * GIB, 0.8, GIB, encoding=1000 * GIB, decoding=0) == 20


def test_decoding_takes_more_for_more_rows_and_a_larger_vocabulary():
    usual = decoding_bytes(512, 10_000, 1024)
    assert usual < decoding_bytes(1024, 10_000, 1024) < decoding_bytes(1024, 20_000, 1024)


def test_what_encoding_takes_is_measured_on_a_whole_budget_and_on_the_longest(digits, monkeypatch):
    model, front_end = digits
    asked: list[list[int]] = []

    def encoded(model, front_end, lengths):
        asked.append(lengths)
        return sum(lengths)

    monkeypatch.setattr(memory, "_peak_of_encoding", encoded)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (GIB, GIB))
    rate = front_end.sampling_rate
    one = model.encoder_length(front_end.frame_count(20 * rate))
    assert encoding_bytes(model, front_end, 20.0, budget=3 * one) == 3 * 20 * rate
    assert asked.pop() == [20 * rate] * 3
    assert encoding_bytes(model, front_end, 60.0, budget=one) == 60 * rate
    assert asked.pop() == [60 * rate]
    # A hundred times the budget is not tried, but reckoned.
    found = encoding_bytes(model, front_end, 60.0, budget=10)
    assert asked.pop() == [20 * rate]
    assert found == pytest.approx(60 * rate, rel=0.01)


def test_where_a_budget_does_not_fit_half_of_it_is_measured(digits, monkeypatch):
    model, front_end = digits
    sizes = []

    def encoded(model, front_end, lengths):
        sizes.append(len(lengths))
        return None if len(lengths) > 2 else 100 * len(lengths)

    monkeypatch.setattr(memory, "_peak_of_encoding", encoded)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (GIB, GIB))
    one = model.encoder_length(front_end.frame_count(20 * front_end.sampling_rate))
    assert encoding_bytes(model, front_end, 20.0, budget=8 * one) == 800
    assert sizes == [8, 4, 2]
    monkeypatch.setattr(memory, "_peak_of_encoding", lambda *_: None)
    assert encoding_bytes(model, front_end, 20.0, budget=8 * one) == GIB, "all that there is"


@pytest.fixture
def h200(monkeypatch):
    """Free memory and multiprocessors of a GPU, and a peak of 1 MB for each second that is encoded."""
    properties = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 * GIB, 140 * GIB))
    monkeypatch.setattr(memory, "_peak_of_encoding", lambda model, front_end, lengths: sum(lengths) * 63)


def test_a_step_encodes_what_fills_the_multiprocessors(digits, h200):
    config = EngineConfig()
    size = encode_size(*digits, 20.0, None, config)
    assert size.budget == 132 * config.positions_per_multiprocessor == 33_792
    assert size.peak == encoding_bytes(*digits, 20.0, size.budget)


def test_a_step_encodes_what_memory_allows_and_what_was_asked_for(digits, h200, monkeypatch):
    whole = encode_size(*digits, 20.0, None, EngineConfig())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (whole.peak, whole.peak))
    size = encode_size(*digits, 20.0, None, EngineConfig(gpu_share=0.5))
    assert size.budget == whole.budget // 2
    assert size.peak == pytest.approx(whole.peak / 2, rel=0.01)
    assert encode_size(*digits, 20.0, 70_000, EngineConfig()).budget == 70_000


def test_a_thousand_rows_are_decoded_or_what_memory_allows(digits, h200, monkeypatch):
    model, _ = digits
    assert fitting_rows(model, EngineConfig()) == 1024
    one = decoding_bytes(1, model.config.vocab_size, model.max_length)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (40 * one, 40 * one))
    assert fitting_rows(model, EngineConfig()) == 10
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (one, one))
    assert fitting_rows(model, EngineConfig()) == 1


def test_a_loop_that_has_been_warmed_up_counts_from_0_and_gives_what_a_fresh_one_gives(digits):
    model, front_end = digits
    options = model.resolve_options(max_length=12)
    found = []
    for warm in (False, True):
        loop = model.generation_loop(front_end, num_pages=300, num_rows=6, graphs=True, overlap=True)
        if warm:
            warm_up(loop, front_end, 30.0, warm_up_options(options, 6))
            assert not loop.has_work
            stats = loop.stats()
            assert (stats.steps, stats.tokens_generated, stats.encoded_tokens, stats.pages_used) == (0,) * 4
            assert loop._runner._decoder.graphs._static, "buckets, too, were made"
        loop.submit(Request(0, noise(16_000), options))
        events = []
        while loop.has_work:
            events += loop.step()
        found.append([event for event in events if isinstance(event, RequestOutput)])
    assert found[0] == found[1]


def test_steps_of_any_number_of_usual_requests_are_recorded_at_the_start(digits, monkeypatch, caplog):
    model, front_end = digits
    recorded = []
    monkeypatch.setattr(runner, "record_on", lambda device: lambda step: recorded.append(step) or step)
    options = model.resolve_options(max_length=12)
    wanted, found = None, None
    for ahead_of_need in (False, True):
        loop = model.generation_loop(front_end, num_pages=300, num_rows=6, graphs=True)
        if ahead_of_need:
            caplog.set_level("INFO", logger="tritone.engine")
            record_steps(loop, [(options, 20), (replace(options, max_length=40), 600)])
            assert len(recorded) == loop.stats().graphs == 2 * 2 * 4, "1, 2, 4 and 6 requests, two widths"
            assert "recording decode steps: 2 of 16" in caplog.text
        recorded.clear()
        for index in range(6):
            loop.submit(Request(index, noise(8_000 * (1 + index % 3)), options))
        events = []
        while loop.has_work:
            events += loop.step()
        wanted, found = found, events
    assert not recorded
    assert wanted == found


def test_where_steps_cannot_be_recorded_ahead_an_engine_goes_on(digits, monkeypatch, caplog):
    model, front_end = digits
    loop = model.generation_loop(front_end, num_pages=300, num_rows=2, graphs=True)
    monkeypatch.setattr(type(model), "decode", lambda *_: 1 / 0)
    record_steps(loop, [(model.resolve_options(max_length=12), 20)])
    assert "division by zero" in caplog.text


def test_warm_up_options_stay_within_the_rows():
    options = GenerationOptions(max_length=90, eos_token_ids=(2,))
    for rows in (1, 2, 7):
        found = warm_up_options(options, rows)
        assert max(one.hypotheses for one in found) == min(rows, 5)
        assert {one.do_sample for one in found} == {False, True}
        assert {bool(one.min_length) for one in found} == {False, True}


def test_a_warm_up_that_fails_is_a_warning_and_one_that_cannot_fit_nothing(digits, monkeypatch, caplog):
    model, front_end = digits
    options = replace(model.resolve_options(), max_length=6)
    loop = model.generation_loop(front_end, num_pages=8, num_rows=1)
    with caplog.at_level(logging.WARNING):
        warm_up(loop, front_end, 60.0, [options])
    assert not caplog.records
    monkeypatch.setattr(type(model), "encode", lambda *_: 1 / 0)
    with caplog.at_level(logging.WARNING):
        warm_up(loop, front_end, 1.0, [options])
    (record,) = caplog.records
    assert "warming up failed" in record.message
    assert "division by zero" in record.message


def test_kernels_are_compiled_before_the_first_launch_and_a_failure_is_a_warning(monkeypatch, caplog):
    given = []

    def compile_ahead(cases, device, report):
        given.append((cases, device))
        report(1, 1)
        raise OSError("no disk")

    class Model:
        device, dtype = torch.device("cpu"), torch.float16

    monkeypatch.setattr("tritone.engine.gpu.warm_up.compile_ahead", compile_ahead)
    with caplog.at_level(logging.DEBUG):
        compile_kernels(Model())
    ((cases, device),) = given
    assert device == Model.device
    assert cases
    assert "compiling kernels: 1 of 1" in caplog.text
    assert "could not be compiled ahead of need: no disk" in caplog.text
