"""Invariance: a recording's features, hidden states and logits have the same bits in any batch.

Compared with `torch.equal` and `==`, never with a tolerance. Beside it, transformers' padded batch is
measured on the same recordings; pytest prints that at the end.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean
from typing import Any

import pytest
import torch
from torch import Tensor
from waveform_encoders import offsets, padded

import tritone

RATE = 16_000  # Hz
COUNT = 32
DURATIONS = [0.3 * (20 / 0.3) ** (index / (COUNT - 1)) for index in range(COUNT)]  # seconds, 0.3 to 20

# Checkpoint and number of threads.
SCENES = [("middle", 1), ("middle", 2), ("two-convs", 2), ("odd-width-pad-5", 1)]

# One after the other, so that neighbors differ; each recording keeps its own wherever it runs.
MODES: list[dict[str, Any]] = [
    {},
    {"num_beams": 4, "length_penalty": 0.5},
    {"do_sample": True, "num_return_sequences": 3, "top_k": 30},
    {"num_beams": 2, "early_stopping": True, "no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.3, "min_length": 6},
    {"num_beams": 3, "do_sample": True, "temperature": 1.5},
]


@dataclass(frozen=True)
class Scene:
    """Model, number of threads, recordings, and each one's results alone."""

    pair: Any
    threads: int
    waveforms: list[Tensor]  # float32 [samples]
    extractor: Any
    features: list[Tensor]  # [frames, bins]
    requests: list[Any]
    alone: list[Any]


@pytest.fixture(scope="module")
def waveforms() -> list[Tensor]:
    """Tones that glide, in noise; shortest first."""
    recordings = []
    for index, duration in enumerate(DURATIONS):
        draw = torch.Generator().manual_seed(index)
        time = torch.arange(round(duration * RATE)) / RATE
        pitch, glide, loudness = torch.rand(3, generator=draw).tolist()
        phase = (100 + 900 * pitch) * time + 200 * glide * torch.sin(3 * time + index)
        voice = (2 * torch.pi * phase).sin() * (1 + torch.sin(17 * time * (1 + pitch)))
        noise = torch.randn(len(time), generator=draw)
        recordings.append((0.05 + 0.2 * loudness) * voice + 0.02 * noise)
    return recordings


@pytest.fixture(
    scope="module",
    params=SCENES,
    ids="{0[0]}-{0[1]}".format,
)
def scene(
    request: pytest.FixtureRequest,
    pair_of: Callable[[str], Any],
    waveforms: list[Tensor],
    run_loop: Any,
    make_request: Any,
) -> Scene:
    name, threads = request.param
    pair = pair_of(name)
    torch.set_num_threads(threads)
    extractor = tritone.Speech2TextFeatureExtractor(num_mel_bins=pair.width)
    features = [extractor.extract_packed(one, offsets([one]))[0] for one in waveforms]
    requests = [
        make_request(
            pair,
            index,
            one[None],
            priority=index % 3,
            max_length=9 + index % 10,  # the longest of them need a second page
            seed=index,
            **MODES[index % len(MODES)],
        )
        for index, one in enumerate(features)
    ]
    alone = [run_loop(pair.ours, [one]) for one in requests]
    return Scene(pair, threads, waveforms, extractor, features, requests, alone)


@pytest.fixture(autouse=True)
def _threads_of_the_scene(request: pytest.FixtureRequest, _one_thread: None) -> None:
    if "scene" in request.fixturenames:
        torch.set_num_threads(request.getfixturevalue("scene").threads)


def shuffled(items: list[Any], seed: int) -> list[Any]:
    return random.Random(seed).sample(items, len(items))


def differences(run: Any, alone: list[Any]) -> list[str]:
    """Differences of a run's logits, tokens and scores from those of each request alone."""
    found = []
    for index, solo in enumerate(alone):
        logits, wanted = run.logits[index], solo.logits[index]
        steps = [
            step for step, (a, b) in enumerate(zip(logits, wanted, strict=False)) if not torch.equal(a, b)
        ]
        if len(logits) != len(wanted):
            found.append(f"request {index}: {len(logits)} steps, {len(wanted)} alone")
        if steps:
            found.append(
                f"request {index}: logits of {len(steps)} of {len(wanted)} steps, from step {steps[0]}"
            )
        if run.completions[index] != solo.completions[index]:
            found.append(f"request {index}: {run.completions[index]}, alone {solo.completions[index]}")
    return found


def test_the_requests_are_worth_comparing(scene: Scene) -> None:
    completions = [run.completions[index] for index, run in enumerate(scene.alone)]
    best = {completion.hypotheses[0].token_ids for completion in completions}
    reasons = [hypothesis.finish_reason for one in completions for hypothesis in one.hypotheses]
    assert len(best) > COUNT * 0.8
    assert set(reasons) == {"stop", "length"}
    assert len({len(one.logits[index]) for index, one in enumerate(scene.alone)}) > 6


@pytest.mark.parametrize("order", ["given", "reversed", "shuffled"])
def test_logits_tokens_and_scores_are_those_of_each_request_alone(
    order: str, scene: Scene, run_loop: Any
) -> None:
    requests = {
        "given": scene.requests,
        "reversed": scene.requests[::-1],
        "shuffled": shuffled(scene.requests, 1),
    }[order]
    run = run_loop(scene.pair.ours, requests, encode_budget=100_000)
    assert run.most_requests == COUNT
    assert not differences(run, scene.alone)


def test_requests_that_arrive_while_others_are_decoded_change_nothing(scene: Scene, run_loop: Any) -> None:
    run = run_loop(scene.pair.ours, shuffled(scene.requests, 2), arrivals=3, encode_budget=150)
    assert COUNT > run.most_requests > 8
    assert not differences(run, scene.alone)


def test_a_cache_so_small_that_most_wait_changes_nothing(scene: Scene, run_loop: Any) -> None:
    run = run_loop(scene.pair.ours, shuffled(scene.requests, 3), spare_pages=6, num_rows=9)
    assert run.most_waiting > COUNT / 2
    assert run.most_requests > 2
    assert not differences(run, scene.alone)


def test_waveforms_give_what_their_features_give(scene: Scene, run_loop: Any) -> None:
    requests = [
        type(one)(one.request_id, waveform, one.options)
        for one, waveform in zip(scene.requests, scene.waveforms, strict=True)
    ]
    run = run_loop(scene.pair.ours, shuffled(requests, 4), scene.extractor, encode_budget=900)
    assert not differences(run, scene.alone)


def test_features_of_packed_waveforms_are_those_of_each_alone(scene: Scene) -> None:
    order = shuffled(list(range(COUNT)), 5)
    together = [scene.waveforms[index] for index in order]
    features, cu_frames = scene.extractor.extract_packed(torch.cat(together), offsets(together))
    for row, index in zip(features.split(cu_frames.diff().tolist()), order, strict=True):
        assert torch.equal(row, scene.features[index]), index


@torch.inference_mode()
def test_encoder_output_of_a_packed_batch_is_that_of_each_alone(scene: Scene) -> None:
    order = shuffled(list(range(COUNT)), 6)
    together = [scene.features[index] for index in order]
    encoded, cu_tokens = scene.pair.ours.encode(torch.cat(together), offsets(together))
    for row, index in zip(encoded.split(cu_tokens.diff().tolist()), order, strict=True):
        one = scene.features[index]
        assert torch.equal(row, scene.pair.ours.encode(one, offsets([one]))[0]), index


@torch.inference_mode()
def test_rows_of_a_padded_batch_are_those_of_each_alone(scene: Scene) -> None:
    ours = scene.pair.ours
    features, mask = padded(scene.features)
    lengths = [1 + index % 21 for index in range(COUNT)]
    target_mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    draw = torch.Generator().manual_seed(9)
    tokens = torch.randint(3, ours.config.vocab_size, target_mask.shape, generator=draw)
    output = ours(features, mask, tokens, target_mask.long())
    for index, one in enumerate(scene.features):
        solo = ours(one[None], None, tokens[index : index + 1, : lengths[index]])
        source = solo.encoder_last_hidden_state.shape[1]
        assert torch.equal(
            output.encoder_last_hidden_state[index, :source], solo.encoder_last_hidden_state[0]
        )
        assert torch.equal(output.logits[index, : lengths[index]], solo.logits[0]), index


def test_generate_gives_each_row_of_a_padded_batch_what_it_gets_alone(scene: Scene) -> None:
    features, mask = padded(scene.features[::5])
    options = {"num_beams": 3, "max_length": 10, "return_dict_in_generate": True, "output_scores": True}
    output = scene.pair.ours.generate(features, attention_mask=mask, **options)
    for row, score, one in zip(output.sequences, output.sequences_scores, scene.features[::5], strict=True):
        solo = scene.pair.ours.generate(one[None], **options)
        assert torch.equal(row[: solo.sequences.shape[1]], solo.sequences[0])
        assert (row[solo.sequences.shape[1] :] == scene.pair.ours.config.pad_token_id).all()
        assert score == solo.sequences_scores[0]


@torch.inference_mode()
def test_what_a_padded_batch_does_in_transformers(
    pair_of: Any, waveforms: list[Tensor], report: Callable[[str], None]
) -> None:
    pair = pair_of("middle")
    theirs, ours = pair.theirs, pair.ours
    extractor = tritone.Speech2TextFeatureExtractor()
    alone = [extractor.extract_packed(one, offsets([one]))[0] for one in waveforms]
    features, mask = padded(alone)
    options = {"num_beams": 1, "max_length": 12}
    batch_texts = theirs.generate(features, attention_mask=mask, **options)
    our_texts = ours.generate(features, attention_mask=mask, **options)
    encoder, logits, changed, our_changed = [], [], 0, 0
    solo_texts = [theirs.generate(one[None], **options)[0] for one in alone]
    tokens = torch.full((COUNT, max(map(len, solo_texts))), pair.theirs.config.pad_token_id)
    for row, text in zip(tokens, solo_texts, strict=True):
        row[: len(text)] = text
    batch = theirs(features, attention_mask=mask, decoder_input_ids=tokens)
    for index, (one, text) in enumerate(zip(alone, solo_texts, strict=True)):
        solo = theirs(one[None], decoder_input_ids=text[None])
        hidden = solo.encoder_last_hidden_state[0]
        encoder.append(distance(batch.encoder_last_hidden_state[index, : len(hidden)], hidden))
        logits.append(distance(batch.logits[index, : len(text)], solo.logits[0]))
        changed += not same(batch_texts[index], text)
        our_changed += not same(our_texts[index], text)
    report(f"{COUNT} recordings of 0.3 to 20 s in one padded batch, against each alone (random weights):")
    report(
        f"  transformers: encoder output off by {mean(encoder):.1%} of its norm, at most {max(encoder):.1%};"
    )
    report(f"    logits by {mean(logits):.1%}, at most {max(logits):.1%}; {changed} transcripts change")
    report(f"  Tritone: hidden states and logits the same bit for bit; {our_changed} transcripts change")
    assert our_changed == 0
    assert max(encoder) > 1e-3  # or the comparison has lost its point, and the README its claim


def same(row: Tensor, text: Tensor) -> bool:
    """True where a row of a batch is this sequence, up to padding."""
    return torch.equal(row[: len(text)], text) and len(set(row[len(text) :].tolist())) <= 1


def distance(given: Tensor, wanted: Tensor) -> float:
    return float((given - wanted).norm() / wanted.norm())
