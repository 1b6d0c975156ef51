"""Invariance of Whisper: logits and tokens of a recording have the same bits in any batch.

Compared with `torch.equal` and `==`, never with a tolerance. Beside it, transformers' batch is measured on
the same recordings; pytest prints that at the end.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from parity import draw_weights, two_stacks
from torch import Tensor

import tritone

RATE = 16_000  # Hz
COUNT = 40
DURATIONS = [0.1 * 300 ** (index / (COUNT - 1)) for index in range(COUNT)]  # seconds, 0.1 to 30
END = 300  # tokens of text; those behind it are special
START, LANGUAGES = END + 1, {"<|en|>": END + 2, "<|de|>": END + 3, "<|fr|>": END + 4}
TASKS = {"translate": END + 5, "transcribe": END + 6}
PREVIOUS, NO_SPEECH, NO_TIMES = END + 7, END + 8, END + 9
GENERATION = {
    "decoder_start_token_id": START,
    "eos_token_id": END,
    "bos_token_id": END,
    "pad_token_id": END,
    "suppress_tokens": [START, *TASKS.values(), PREVIOUS, NO_SPEECH],
    "begin_suppress_tokens": [3, END],
    "no_timestamps_token_id": NO_TIMES,
    "prev_sot_token_id": PREVIOUS,
    "max_initial_timestamp_index": 50,
    "is_multilingual": True,
    "lang_to_id": LANGUAGES,
    "task_to_id": TASKS,
    "return_timestamps": False,
    "max_length": 96,
}


IDS = ("decoder_start_token_id", "eos_token_id", "bos_token_id", "pad_token_id")


def context(tokens: int) -> list[int]:
    """Prompt of a text that goes before."""
    return [PREVIOUS, *(7 + 13 * index % 250 for index in range(tokens))]


# One after the other, so that neighbors differ; each recording keeps its own wherever it runs.
MODES: list[dict[str, Any]] = [
    {},  # the language is detected
    {"language": "de", "num_beams": 3},
    {"temperature": 0.9, "language": "en", "return_timestamps": True},
    {"return_timestamps": True},
    {"prompt_ids": context(5), "num_beams": 3, "return_timestamps": True},
    {"prompt_ids": context(20), "language": "fr"},
    {"prompt_ids": context(40), "temperature": 0.7, "top_k": 30, "task": "translate"},
    {"num_beams": 3, "length_penalty": 0.5},
    {"language": "fr", "repetition_penalty": 1.2, "no_repeat_ngram_size": 2},
]


@dataclass(frozen=True)
class Scene:
    """Model in both libraries, recordings, and each one's request and results alone."""

    theirs: Any
    ours: Any
    extractor: Any
    waveforms: list[Tensor]  # float32 [samples]
    requests: list[Any]
    alone: list[Any]


def load(folder: Path) -> tuple[Any, Any]:
    """One multilingual checkpoint in both libraries, ours loaded from theirs."""
    sizes = two_stacks(NO_TIMES + 1502, 96, layers=(2, 2), heads=(3, 3), feed_forward=(160, 160))
    config = transformers.WhisperConfig(
        **sizes, max_target_positions=96, max_source_positions=1500, begin_suppress_tokens=None,
        **{name: GENERATION[name] for name in IDS},
    )  # fmt: skip
    theirs = transformers.WhisperForConditionalGeneration(config)
    torch.manual_seed(5)
    draw_weights(theirs)
    with torch.no_grad():
        theirs.proj_out.weight[END] *= 3.0  # ends more often
    theirs.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()
    return theirs, tritone.WhisperForConditionalGeneration.from_pretrained(folder)


def recordings() -> list[Tensor]:
    """Tones that glide, in noise; shortest first."""
    found = []
    for index, duration in enumerate(DURATIONS):
        draw = torch.Generator().manual_seed(index)
        time = torch.arange(round(duration * RATE)) / RATE
        pitch, glide, loudness = torch.rand(3, generator=draw).tolist()
        phase = (100 + 900 * pitch) * time + 200 * glide * torch.sin(3 * time + index)
        voice = (2 * torch.pi * phase).sin() * (1 + torch.sin(17 * time * (1 + pitch)))
        found.append((0.05 + 0.2 * loudness) * voice + 0.02 * torch.randn(len(time), generator=draw))
    return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, run_loop: Any, make_request: Any) -> Scene:
    theirs, ours = load(tmp_path_factory.mktemp("whisper"))
    extractor, waveforms = tritone.WhisperFeatureExtractor(), recordings()
    requests = [
        make_request(
            SimpleNamespace(ours=ours),
            index,
            one,
            priority=index % 3,
            max_new_tokens=8 + index % 11,
            seed=index,
            **MODES[index % len(MODES)],
        )
        for index, one in enumerate(waveforms)
    ]
    torch.set_num_threads(1)
    alone = [run_loop(ours, [one], extractor) for one in requests]
    return Scene(theirs, ours, extractor, waveforms, requests, alone)


def differences(run: Any, alone: list[Any]) -> list[str]:
    """Differences of a run's logits, tokens and scores from those of each request alone."""
    found = []
    for index, solo in enumerate(alone):
        logits, wanted = run.logits[index], solo.logits[index]
        if len(logits) != len(wanted) or not all(map(torch.equal, logits, wanted)):
            found.append(f"request {index}: logits")
        if run.completions[index] != solo.completions[index]:
            found.append(f"request {index}: {run.completions[index]}, alone {solo.completions[index]}")
    return found


def test_the_requests_are_worth_comparing(scene: Scene) -> None:
    completions = [run.completions[index] for index, run in enumerate(scene.alone)]
    best = [one.hypotheses[0] for one in completions]
    prompts = [len(one.options.prompt) for one in scene.requests]
    assert len({one.token_ids[prompt:] for one, prompt in zip(best, prompts, strict=True)}) > COUNT * 0.8
    assert {one.finish_reason for one in best} == {"stop", "length"}
    assert len(set(prompts)) > 5
    detected = [
        one.token_ids for one, request in zip(best, scene.requests, strict=True) if request.options.choices
    ]
    assert len({language for ids in detected for language in ids if language in LANGUAGES.values()}) > 1
    assert any(token > NO_TIMES for one in best for token in one.token_ids)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("order", ["given", "shuffled"])
def test_logits_tokens_and_scores_are_those_of_each_request_alone(
    order: str, threads: int, scene: Scene, run_loop: Any
) -> None:
    torch.set_num_threads(threads)
    requests = scene.requests if order == "given" else random.Random(threads).sample(scene.requests, COUNT)
    run = run_loop(scene.ours, requests, scene.extractor, encode_budget=100_000)
    assert run.most_requests == COUNT
    assert not differences(run, scene.alone)


def test_requests_that_arrive_while_others_are_decoded_change_nothing(scene: Scene, run_loop: Any) -> None:
    torch.set_num_threads(2)
    requests = random.Random(3).sample(scene.requests, COUNT)
    run = run_loop(scene.ours, requests, scene.extractor, arrivals=3, encode_budget=4500)
    assert COUNT > run.most_requests > 8
    assert not differences(run, scene.alone)


@torch.inference_mode()
def test_what_a_batch_does_in_transformers(scene: Scene, report: Callable[[str], None]) -> None:
    theirs, ours = scene.theirs, scene.ours
    features = extracted(scene, scene.waveforms[::4])
    count = len(features)
    options: dict[str, Any] = {"max_new_tokens": 20, "language": "en"}
    batch_texts, our_texts = (model.generate(features, **options) for model in (theirs, ours))
    alone = [theirs.generate(one[None], **options)[0] for one in features]
    changed = sum(not same(row, text) for row, text in zip(batch_texts, alone, strict=True))
    tokens = torch.full((count, max(map(len, alone))), END)
    mask = torch.zeros_like(tokens)
    for row, own, text in zip(tokens, mask, alone, strict=True):
        row[: len(text)] = text
        own[: len(text)] = 1
    targets = {"decoder_input_ids": tokens, "decoder_attention_mask": mask}
    batch, ours_at_once = (model(features, **targets) for model in (theirs, ours))
    encoder, logits = [], []
    for index, (one, text) in enumerate(zip(features, alone, strict=True)):
        solo = theirs(one[None], decoder_input_ids=text[None])
        encoder.append(distance(batch.encoder_last_hidden_state[index], solo.encoder_last_hidden_state[0]))
        logits.append(distance(batch.logits[index, : len(text)], solo.logits[0]))
        mine = ours(one[None], decoder_input_ids=text[None])
        assert torch.equal(ours_at_once.logits[index, : len(text)], mine.logits[0])
        assert same(our_texts[index], ours.generate(one[None], **options)[0])
    report(f"{count} recordings of 0.1 to 30 s in one Whisper batch, against each alone (random weights):")
    report(
        f"  transformers: encoder output off by up to {max(encoder):.1e} of its norm, logits by "
        f"{max(logits):.1e};"
    )
    report(f"    {sum(map(bool, logits))} of {count} rows have other bits; {changed} transcripts change")
    report("  Tritone: hidden states, logits and transcripts the same bit for bit")


@torch.inference_mode()
def test_what_a_batch_of_long_recordings_does_in_transformers(
    scene: Scene, report: Callable[[str], None]
) -> None:
    """Windows conditioned on earlier text: transformers pads their prompts of several lengths on the left."""
    parts = [torch.cat(scene.waveforms[index:]) for index in (39, 38, 37, 36)]  # 30 to 94 s
    rows = [extracted(scene, [one], truncation=False)[0] for one in parts]
    longest = max(row.shape[1] for row in rows)
    batch = torch.stack([torch.nn.functional.pad(row, (0, longest - row.shape[1])) for row in rows])
    mask = torch.tensor([[1] * row.shape[1] + [0] * (longest - row.shape[1]) for row in rows])
    report(f"{len(rows)} recordings of 30 to 94 s in windows, in one batch:")
    for conditioned in (False, True):
        options: dict[str, Any] = {
            "condition_on_prev_tokens": conditioned, "return_timestamps": True, "language": "en",
            "temperature": 0.0,
        }  # fmt: skip
        changed = []
        for model in (scene.theirs, scene.ours):
            together = model.generate(batch, attention_mask=mask, **options)
            # Trimmed: of a single row transformers reads no mask.
            alone = [model.generate(row[None], **options)[0] for row in rows]
            changed.append(sum(not same(row, text) for row, text in zip(together, alone, strict=True)))
        theirs, ours = changed
        how = "conditioned on earlier text" if conditioned else "each without earlier text"
        report(f"  {how}: transformers changes {theirs} transcripts, Tritone {ours}")
        assert ours == 0


def extracted(scene: Scene, waveforms: list[Tensor], **options: Any) -> Tensor:
    """Features [batch, mels, frames] of recordings."""
    arrays = [one.numpy() for one in waveforms]
    options |= {"padding": "longest"} if options else {}
    found: Tensor = scene.extractor(arrays, sampling_rate=RATE, return_tensors="pt", **options)[
        "input_features"
    ]
    return found


def same(row: Tensor, text: Tensor) -> bool:
    """True where a row of a batch is this sequence, up to padding."""
    return torch.equal(row[: len(text)], text) and len(set(row[len(text) :].tolist())) <= 1


def distance(given: Tensor, wanted: Tensor) -> float:
    return float((given - wanted).norm() / wanted.norm())
