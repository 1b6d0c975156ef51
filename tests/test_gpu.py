"""The engine on a CUDA device; skipped where there is none."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tritone
from tritone.engine.gpu import warm_up
from tritone.kernels.runtime.packing import cumulative, spans
from tritone.scheduler import runner
from tritone.scheduler.device.cuda_graphs import record_on
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.request import GenerationOptions, Request, RequestOutput

SAMPLES = Path(__file__).parents[1] / "samples" / "digits"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def _files() -> None:
    """Skip on a machine without the libraries that read audio files."""
    pytest.importorskip("soundfile")
    pytest.importorskip("soxr")


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("num_beams", [1, 4])
def test_the_digits_model_reads_the_samples_on_the_gpu(dtype: str, num_beams: int) -> None:
    wanted = json.loads((SAMPLES / "transcripts.json").read_text())
    with tritone.Engine("digits", device="cuda", dtype=dtype, memory_fraction=0.1) as engine:
        results = engine.transcribe([SAMPLES / name for name in wanted], num_beams=num_beams)
        texts = [result.text for result in results]
    assert texts == list(wanted.values())


@pytest.mark.usefixtures("_files")
def test_the_gpu_and_the_cpu_decode_the_same_tokens() -> None:
    files = sorted(SAMPLES.glob("*.wav"))
    tokens = []
    for device in ("cpu", "cuda"):
        with tritone.Engine("digits", device=device) as engine:
            tokens.append([result.token_ids for result in engine.transcribe(files, num_beams=3)])
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_hidden_states_are_the_same_to_the_bit_in_any_batch(dtype: str) -> None:
    generator = torch.Generator().manual_seed(0)
    model = tritone.Speech2TextForConditionalGeneration(tritone.Speech2TextConfig(encoder_layers=3))
    model = model.to(device="cuda", dtype=getattr(torch, dtype)).eval()
    recordings = [
        torch.randn(frames, 80, generator=generator) for frames in (1, 30, 333, 1600, 47, 3000, 128)
    ]
    recordings = [recording.to("cuda") for recording in recordings]

    @torch.inference_mode()
    def encoded(order: list[int]) -> list[torch.Tensor]:
        features = torch.cat([recordings[index] for index in order])
        hidden, cu_tokens = model.encode(features, cumulative([len(recordings[i]) for i in order], "cuda"))
        return [hidden[start:end] for start, end in spans(cu_tokens)]

    alone = [encoded([index])[0] for index in range(len(recordings))]
    for order in ([0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [3, 0, 5], [2, 2, 2]):
        for index, hidden in zip(order, encoded(order), strict=True):
            assert torch.equal(hidden, alone[index])


SHORT = GenerationOptions(max_length=40, eos_token_ids=(2, 5, 7), no_repeat_ngram_size=2)


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = tritone.Speech2TextConfig(
        vocab_size=100, encoder_layers=2, decoder_layers=2, init_std=0.3, max_target_positions=64
    )
    return tritone.Speech2TextForConditionalGeneration(config).to(device="cuda", dtype=torch.float16).eval()


def through(
    loop: GenerationLoop, options: GenerationOptions, *, waveforms: bool = False
) -> list[RequestOutput]:
    """Outputs of 40 requests of many lengths, three of which arrive in each step."""
    generator = torch.Generator().manual_seed(1)
    pending = []
    for index in range(40):
        frames = 20 + 71 * index % 900
        inputs = torch.randn(160 * frames, generator=generator)
        if not waveforms:
            inputs = torch.randn(frames, 80, generator=generator).half()
        limit = (9, 40, 17, 33)[index % 4]
        pending.append(Request(index, inputs, replace(options, max_length=limit, min_length=1 + index % 7)))
    found = {}
    while pending or loop.has_work:
        for request in pending[:3]:
            loop.submit(request)
        del pending[:3]
        for event in loop.step():
            assert isinstance(event, RequestOutput)
            assert event.error is None
            found[event.request_id] = event
    return [found[index] for index in range(40)]


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("num_beams", [1, 5])
@pytest.mark.parametrize(("graphs", "overlap"), [(True, False), (False, True), (True, True)])
def test_recorded_steps_and_encoding_beside_them_give_what_plain_steps_give(
    model, num_beams, ahead, graphs, overlap
):
    options = replace(SHORT, num_beams=num_beams)
    sizes = {"num_pages": 4000, "num_rows": 160, "encode_budget": 300}
    plain = model.generation_loop(**sizes, ahead=0, graphs=False, overlap=False)
    wanted = through(plain, options)
    assert len({len(one.hypotheses[0].token_ids) for one in wanted}) > 5
    loop = model.generation_loop(**sizes, ahead=ahead, graphs=graphs, overlap=overlap)
    assert through(loop, options) == wanted
    assert through(loop, options) == wanted, "the second time nearly all steps are replayed"
    assert (loop.stats().graphs > 0) == graphs


def test_graphs_of_several_score_rules_replay_in_any_order(model):
    """A loop changes between score rules; their graphs are recorded, then replayed in another order."""
    sizes = {"num_pages": 4000, "num_rows": 160}
    kinds = [SHORT, replace(SHORT, num_beams=5), replace(SHORT, repetition_penalty=1.3)]
    plain = model.generation_loop(**sizes, graphs=False, overlap=False)
    wanted = [through(plain, kind) for kind in kinds]
    loop = model.generation_loop(**sizes)
    for order in ([0, 1, 2], [2, 0, 1]):
        for index in order:
            assert through(loop, kinds[index]) == wanted[index]


def test_recorded_steps_of_mixed_rules_draws_and_kept_scores_give_what_plain_steps_give(model):
    kinds = [SHORT, replace(SHORT, do_sample=True, temperature=1.3), replace(SHORT, forced_bos_token_id=7)]
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(40 + 30 * index, 80, generator=generator).half() for index in range(12)]
    found = []
    for graphs in (False, True):
        loop = model.generation_loop(num_pages=4000, num_rows=160, ahead=2, graphs=graphs)
        for index, features in enumerate(inputs):
            options = replace(kinds[index % 3], max_length=24, seed=index)
            loop.submit(Request(index, features, options, keep_scores=index % 4 == 0))
        outputs = {}
        while loop.has_work:
            outputs |= {event.request_id: event for event in loop.step()}
        assert (loop.stats().graphs > 0) == graphs
        found.append(outputs)
    plain, recorded = found
    for index in range(12):
        assert recorded[index].hypotheses == plain[index].hypotheses
        pairs = zip(recorded[index].scores, plain[index].scores, strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
        assert bool(plain[index].scores) == (index % 4 == 0)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_prefilled_prompts_have_the_bits_of_one_step_for_each_token(model, num_beams):
    generator = torch.Generator().manual_seed(0)
    options = replace(SHORT, num_beams=num_beams, max_length=60)
    inputs = [torch.randn(40 + 30 * index, 80, generator=generator).half() for index in range(12)]

    def run(prompts: list[tuple[int, ...]]) -> list[RequestOutput]:
        loop = model.generation_loop(num_pages=4000, num_rows=160)
        for index, (features, prompt) in enumerate(zip(inputs, prompts, strict=True)):
            own = replace(options, prompt_tokens=prompt, no_speech_token=9)
            loop.submit(Request(index, features, own, keep_scores=True))
        found: dict[int, RequestOutput] = {}
        while loop.has_work:
            found |= {event.request_id: event for event in loop.step()}
        return [found[index] for index in range(len(inputs))]

    plain = run([(2,)] * 12)
    wholes = [one.hypotheses[0].token_ids for one in plain]
    prompts = [whole[: min(1 + 3 * index, len(whole) - 1)] for index, whole in enumerate(wholes)]
    prompted = run(prompts)
    for index, output in enumerate(prompted):
        if num_beams == 1:
            assert output.hypotheses[0].token_ids == wholes[index]
            behind = plain[index].scores[len(prompts[index]) - 1 :]
            assert all(torch.equal(*pair) for pair in zip(output.scores, behind, strict=True))
        assert output.no_speech_probability == plain[index].no_speech_probability
    for index in range(0, 12, 5):
        others = [prompts[other] if other == index else (2,) for other in range(12)]
        assert run(others)[index].hypotheses == prompted[index].hypotheses


def test_waveforms_are_uploaded_from_pinned_memory_that_is_used_again(model):
    front_end = tritone.Speech2TextFeatureExtractor()
    sizes = {"num_pages": 4000, "num_rows": 160, "encode_budget": 100}
    plain = model.generation_loop(front_end, **sizes, ahead=0, graphs=False, overlap=False)
    wanted = through(plain, SHORT, waveforms=True)
    loop = model.generation_loop(front_end, **sizes, ahead=4)
    for _ in range(3):
        assert through(loop, SHORT, waveforms=True) == wanted


def test_a_step_that_cannot_be_recorded_runs_without_a_graph(model, monkeypatch, caplog):
    def waiting(device: torch.device) -> Callable[..., Any]:
        record = record_on(device)

        def failing(step: Callable[[], None]) -> Callable[[], None]:
            def and_wait() -> None:
                step()
                torch.ones(1, device=device).item()

            return record(and_wait)

        return failing

    sizes = {"num_pages": 4000, "num_rows": 160}
    wanted = through(model.generation_loop(**sizes, graphs=False, overlap=False), SHORT)
    monkeypatch.setattr(runner, "record_on", waiting)
    loop = model.generation_loop(**sizes)
    assert through(loop, SHORT) == wanted
    assert loop.stats().graphs == 0
    (record,) = (one for one in caplog.records if one.name.endswith("scheduler.device.cuda_graphs"))
    assert "could not be recorded as a CUDA graph" in record.message


def test_an_engine_compiles_nothing_once_it_is_ready_and_leaves_memory_free() -> None:
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    with tritone.Engine("digits", device="cuda", dtype="float16", memory_fraction=0.1) as engine:
        left, _ = torch.cuda.mem_get_info()
        assert left > 0.85 * free
        assert engine.stats().tokens_generated == 0, "the warm-up does not count"
        for options in ({}, {"num_beams": 5}, {"do_sample": True, "top_k": 7, "seed": 1}):
            for seconds in (0.5, 3.0, 31.0):
                sounds = [warm_up.noise(int(16_000 * seconds)).numpy() for _ in range(9)]
                results = list(engine.transcribe(sounds, max_new_tokens=30, **options))
                assert [result.error for result in results] == [None] * 9
        stats = engine.stats()
        assert stats.compiled == 0
        assert stats.graphs > 0


def test_an_engine_runs_without_graphs_on_request() -> None:
    sounds = [warm_up.noise(16_000 * seconds).numpy() for seconds in (1, 2, 3, 9)]
    tokens = []
    for switches in ({}, {"graphs": False, "overlap": False}):
        with tritone.Engine("digits", device="cuda", memory_fraction=0.1, **switches) as engine:
            tokens.append([result.token_ids for result in engine.transcribe(sounds)])
            recorded = engine.stats().graphs
    assert tokens[0] == tokens[1]
    assert recorded == 0
