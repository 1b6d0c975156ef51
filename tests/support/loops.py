"""Tiny Speech2Text models for loops, their recordings, and runs of a loop to its end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from tritone.models.speech_to_text.config import Speech2TextConfig
from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.request import FinishReason, Request, RequestOutput, Tokens


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
        assert event.request_id not in outputs, "the output is a request's last event"
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


def same(one: RequestOutput, other: RequestOutput) -> bool:
    """Equality of outputs, whose scores and predictions are tensors."""
    if replace(one, scores=(), predictions=None) != replace(other, scores=(), predictions=None):
        return False
    mine, others = one.predictions or {}, other.predictions or {}
    if mine.keys() != others.keys() or len(one.scores) != len(other.scores):
        return False
    pairs = [*zip(one.scores, other.scores, strict=True), *((mine[name], others[name]) for name in mine)]
    return all(torch.equal(a, b) for a, b in pairs)


def histories(requests: int, min_size: int, max_size: int) -> st.SearchStrategy[list[tuple[str, int]]]:
    """Actions before each step: submit or cancel a request, submit a canceled one again, or nothing."""
    actions = st.sampled_from(["submit", "submit", "nothing", "cancel", "again"])
    return st.lists(st.tuples(actions, st.integers(0, requests - 1)), min_size=min_size, max_size=max_size)


def check_history(
    loop: GenerationLoop,
    history: Sequence[tuple[str, int]],
    order: Sequence[int],
    request: Callable[[int, int], Request],
    alone: Mapping[tuple[int, int], RequestOutput],
) -> None:
    """Play a history; each request that is not canceled must give what it gives alone.

    Args:
        order: requests by index, the last submitted first.
        request: the request of an index and a life: an id is another request each time it is used again.
        alone: outputs by index and life.
    """
    to_come, lives, cancelled = list(order), dict[int, int](), set[int]()
    outputs, tokens = dict[int, RequestOutput](), dict[int, list[int]]()

    def step() -> None:
        for piece in take_step(loop, outputs):
            tokens.setdefault(piece.request_id, []).extend(piece.token_ids)

    for action, index in history:
        if action == "submit" and to_come:
            lives[index := to_come.pop()] = 0
            loop.submit(request(index, 0))
        elif action == "cancel" and loop.cancel(index):
            cancelled.add(index)
        elif action == "again" and (ended := outputs.keys() & cancelled):
            index = min(ended)
            if (index, lives[index] + 1) in alone:
                lives[index] += 1
                cancelled.discard(index)
                del outputs[index]
                tokens.pop(index, None)
                loop.submit(request(index, lives[index]))
        step()
    for _ in range(2000):
        if not loop.has_work:
            break
        step()
    assert_empty(loop)
    assert outputs.keys() == lives.keys()
    for index, output in outputs.items():
        wanted = alone[index, lives[index]]
        if index in cancelled:
            assert output == RequestOutput(index, (), FinishReason.CANCELLED)
        else:
            assert same(output, wanted)
        if index in tokens:
            streamed, whole = tuple(tokens[index]), wanted.hypotheses[0].token_ids[1:]
            assert streamed == (whole[: len(streamed)] if index in cancelled else whole)
