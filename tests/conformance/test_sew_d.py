"""SEW-D against transformers: relative positions, and draws in training."""

import copy
from typing import Any

import pytest
import torch
from waveform_encoders import SEW_D, assert_close, waveform

POSITIONAL = [name for name in SEW_D if "no positions" not in name and "no term" not in name]
TOLERANCE = 2e-4


@pytest.mark.parametrize("name", POSITIONAL)
@torch.no_grad()
def test_relative_positions_decide_something(name: str, speech_pair: Any) -> None:
    """So that the comparison with transformers is one of positions too."""
    pair = speech_pair(name)
    moved = copy.deepcopy(pair.ours)
    table = moved.encoder.encoder.rel_embeddings.weight
    values = waveform(1703)[None]
    before = moved(values).last_hidden_state
    table.copy_(table.flip(0))
    after = moved(values).last_hidden_state
    assert float((after - before).abs().max()) > 0.05
    flipped = copy.deepcopy(pair.theirs)
    flipped.encoder.encoder.rel_embeddings.weight.copy_(table)
    assert_close(after, flipped(values).last_hidden_state, TOLERANCE)


@pytest.mark.parametrize("name", SEW_D)
def test_a_seed_drops_the_same_things_in_training_as_in_transformers(name: str, speech_pair: Any) -> None:
    pair = speech_pair(name)
    models = copy.deepcopy((pair.theirs, pair.ours))
    values = waveform(998)[None]
    for model in models:
        model.train()
        model.config.apply_spec_augment = False  # drawn by another generator there
    seen = []
    for seed in range(3):
        outputs = []
        for model in models:
            torch.manual_seed(seed)
            outputs.append(model(values, output_attentions=True))
        assert_close(outputs[1].last_hidden_state.detach(), outputs[0].last_hidden_state.detach(), TOLERANCE)
        for one, other in zip(outputs[1].attentions, outputs[0].attentions, strict=True):
            assert_close(one.detach(), other.detach(), 1e-5)
        torch.manual_seed(seed)
        plain = models[1](values).last_hidden_state
        assert torch.equal(plain, outputs[1].last_hidden_state)
        seen.append(plain.detach())
    assert not torch.allclose(seen[0], seen[1], atol=0.01)
