"""Tiny Speech2Text models for loops, their recordings, and runs of a loop to its end."""

from typing import Any

import torch
from torch import Tensor

from tritone.models.speech_to_text.config import Speech2TextConfig
from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.request import RequestOutput, Tokens


def small_model(**changes: Any) -> Speech2TextForConditionalGeneration:
    """Width 20, two decoder layers, 7 features, 60 encoder and 64 decoder positions."""
    sizes = {
        "d_model": 20,
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 28,
        "conv_channels": 12,
        "max_source_positions": 60,
        "max_target_positions": 64,
        "input_feat_per_channel": 7,
        "init_std": 0.4,
    }
    return _model(Speech2TextForConditionalGeneration, 0, {**sizes, **changes})


def tiny_model(
    model_class: type[Speech2TextForConditionalGeneration] = Speech2TextForConditionalGeneration,
    **changes: Any,
) -> Speech2TextForConditionalGeneration:
    """Width 8, one decoder layer, 5 features, 30 encoder and 20 decoder positions."""
    sizes = {
        "d_model": 8,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 8,
        "decoder_ffn_dim": 8,
        "conv_channels": 6,
        "max_source_positions": 30,
        "max_target_positions": 20,
        "input_feat_per_channel": 5,
        "init_std": 0.6,
    }
    return _model(model_class, 3, {**sizes, **changes})


def _model(model_class: Any, seed: int, sizes: dict[str, Any]) -> Any:
    torch.manual_seed(seed)
    config = Speech2TextConfig(vocab_size=29, encoder_layers=1, encoder_attention_heads=2, **sizes)
    return model_class(config).eval()


def recording(seed: int, frames: int, features: int) -> Tensor:
    """Random features [frames, features]."""
    return torch.randn(frames, features, generator=torch.Generator().manual_seed(seed))


def take_step(loop: GenerationLoop, outputs: dict[int, RequestOutput]) -> list[Tokens]:
    """Take one step; its outputs are added to `outputs`, each the last event of its request."""
    pieces = []
    for event in loop.step():
        assert event.request_id not in outputs, "an output is a request's last event"
        if isinstance(event, RequestOutput):
            outputs[event.request_id] = event
        else:
            pieces.append(event)
    return pieces


def finish(loop: GenerationLoop, outputs: dict[int, RequestOutput] | None = None) -> dict[int, RequestOutput]:
    """Run a loop to its end, at which nothing is left in it; returns the outputs by request."""
    outputs = {} if outputs is None else outputs
    for _ in range(3000):
        if not loop.has_work:
            assert_empty(loop)
            return outputs
        take_step(loop, outputs)
    raise AssertionError("the loop does not come to an end")


def assert_empty(loop: GenerationLoop) -> None:
    """No request runs or waits, and no page is owned."""
    stats = loop.stats()
    assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, 0)
    assert not loop.has_work
