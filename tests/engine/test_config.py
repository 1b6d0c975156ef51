"""EngineConfig: defaults, what goes first, and sizes that are refused."""

from dataclasses import fields
from pathlib import Path

import pytest

import tritone
from tritone.engine.config import EngineConfig
from tritone.scheduler.config import RunnerConfig

USE = Path(__file__).parents[2] / "docs" / "use.md"


def test_every_tunable_is_documented():
    page = USE.read_text(encoding="utf-8")
    assert [field.name for field in fields(EngineConfig) if f"`{field.name}`" not in page] == []


def test_arguments_of_the_engine_go_before_its_config(checkpoint):
    config = EngineConfig(num_rows=3, num_pages=50, in_flight_per_row=4)
    with tritone.Engine(checkpoint, device="cpu", num_rows=2, graphs=False, config=config) as engine:
        assert (engine.config.num_rows, engine.config.num_pages, engine.config.graphs) == (2, 50, False)
        assert engine.stats().pages_total == 50
        assert engine._task.max_in_flight == 8
    assert (config.num_rows, config.graphs) == (3, True)


def test_the_runner_gets_its_tunables_from_the_engines(checkpoint, ctc_checkpoint):
    config = EngineConfig(runner=RunnerConfig(max_chunk_tokens=64))
    for folder in (checkpoint, ctc_checkpoint):
        with tritone.Engine(folder, device="cpu", config=config) as engine:
            assert engine._worker._loop._runner.config is config.runner


def test_the_default_length_of_a_transcript_is_tunable(checkpoint, waveforms):
    config = EngineConfig(num_rows=2, tokens_per_second=1.0, extra_tokens=2)
    endless = {"eos_token_id": 5, "suppress_tokens": [5]}  # never ends by itself
    with tritone.Engine(checkpoint, device="cpu", config=config) as engine:
        result = engine.submit(waveforms[0], **endless).result(60)
    assert len(result.token_ids) == 1 + 2 + -(-len(waveforms[0]) // 16_000)


@pytest.mark.parametrize("name", ["num_rows", "num_pages", "num_readers", "encode_budget"])
def test_a_size_below_one_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} is 0; it must be 1 or more"):
        EngineConfig(**{name: 0})


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_time_that_is_none_is_refused_by_name(seconds):
    with pytest.raises(ValueError, match=r"arrival_wait is .*; it must be 0 or more"):
        EngineConfig(arrival_wait=seconds)


@pytest.mark.parametrize("fraction", [0, -0.5, 1.1])
def test_a_fraction_that_is_none_is_refused(fraction):
    with pytest.raises(ValueError, match="it must be above 0 and at most 1"):
        tritone.Engine("digits", device="cpu", memory_fraction=fraction)


def test_a_fraction_has_no_meaning_on_the_cpu_nor_beside_a_number_of_pages():
    with pytest.raises(ValueError, match="on the CPU give num_pages instead"):
        tritone.Engine("digits", device="cpu", memory_fraction=0.5)
    with pytest.raises(ValueError, match="give one of them"):
        tritone.Engine("digits", device="cpu", memory_fraction=0.5, num_pages=9)


@pytest.mark.parametrize("name", ["num_rows", "num_pages"])
@pytest.mark.parametrize(
    ("checkpoint", "model"),
    [("ctc_checkpoint", "Wav2Vec2ForCTC"), ("text_classifier", "BertForSequenceClassification")],
)
def test_the_size_of_a_cache_that_is_not_there_is_refused(request, checkpoint, model, name):
    with pytest.raises(ValueError, match=f"{name} is the size of a cache, and a {model} has none"):
        tritone.Engine(request.getfixturevalue(checkpoint), device="cpu", **{name: 8})
