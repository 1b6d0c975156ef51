"""Classifiers of text against transformers at batch size 1, and the same bits in any batch.

`text_classifiers.SPECS` lists the configurations; files beside this one test what a single family does.
"""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import (
    STATES,
    assert_close,
    assert_fields_close,
    assert_gradients_close,
    pad_rows,
    without_chance,
)
from text_classifiers import SPECS, Classifier, make_classifier, write_classifier
from torch import Tensor

import tritone
from tritone.kernels.runtime.packing import cumulative
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.request import Request, RequestOutput
from tritone.scheduler.runner import ModelRunner

ORDERS = ([0, 1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1, 0], [3, 5, 1, 7, 0, 2, 6, 4], [6, 2])


def predict(both: Any, lengths: list[int], typed: bool) -> Tensor:
    """Logits [texts, labels] of texts of these lengths in one packed batch."""
    features = torch.cat([both.features(count, typed) for count in lengths])
    logits, cu_rows = both.ours.predict(features, cumulative(lengths))["logits"]
    assert logits.dtype == torch.float32
    assert cu_rows.tolist() == list(range(len(lengths) + 1))
    return logits


@torch.inference_mode()
def test_every_field_agrees_by_name_and_as_a_tuple(both: Any) -> None:
    assert not both.ours.training
    for count in (1, 13, max(both.lengths)):
        tokens = both.text(count)
        for typed in both.forms:
            given = both.types(count, typed) | STATES
            wanted, output = both.theirs(tokens, **given), both.ours(tokens, **given)
            assert output.loss is None
            assert_fields_close(output, wanted, rtol=1e-4)
            output = both.ours(tokens, **given, return_dict=False)
            assert isinstance(output, tuple)
            assert_close(output, both.theirs(tokens, **given, return_dict=False), rtol=1e-4)


@torch.inference_mode()
def test_logits_agree_at_every_length_packed_too(both: Any) -> None:
    seen = []
    for count in both.lengths:
        tokens = both.text(count)
        for typed in both.forms:
            wanted = both.theirs(tokens, **both.types(count, typed)).logits
            logits = both.ours(tokens, **both.types(count, typed)).logits
            assert_close(logits, wanted, rtol=1e-4)
            assert torch.equal(predict(both, [count], typed), logits)
            seen.append(logits)
    assert float(torch.cat(seen).std(0).min()) > 0.01  # or agreement would say nothing


@torch.inference_mode()
def test_a_packed_text_has_the_same_bits_alone_and_in_any_batch(both: Any) -> None:
    for typed in both.forms:
        alone = torch.cat([predict(both, [count], typed) for count in both.lengths])
        for order in ORDERS:
            assert torch.equal(predict(both, [both.lengths[index] for index in order], typed), alone[order])


@pytest.mark.parametrize("side", ["right", "left"])
@torch.inference_mode()
def test_padding_on_either_side_changes_no_bit(both: Any, side: str) -> None:
    ids, mask = pad_rows([both.text(count)[0] for count in both.lengths], both.padding, side)
    rows = [both.types(count) for count in both.lengths]
    types = {name: pad_rows([row[name][0] for row in rows], 0, side)[0] for name in rows[0]}
    encoder = "encoder_" if both.config.is_encoder_decoder else ""
    hidden, attentions = f"{encoder}hidden_states", f"{encoder}attentions"
    alone = [both.ours(both.text(count), **both.types(count), **STATES) for count in both.lengths]
    for order in ORDERS:
        given = {name: values[order] for name, values in types.items()}
        output = both.ours(ids[order], attention_mask=mask[order], **given, **STATES)
        for row, index in enumerate(order):
            there, own = mask[index].bool(), alone[index]
            assert torch.equal(output.logits[row], own.logits[0])
            for states, wanted in zip(output[hidden], own[hidden], strict=True):
                assert torch.equal(states[row, there], wanted[0])
            for weights, wanted in zip(output[attentions], own[attentions], strict=True):
                assert torch.equal(weights[row][:, there][..., there], wanted[0])


@torch.inference_mode()
def test_requests_in_a_loop_get_the_bits_that_they_get_alone(both: Any) -> None:
    for typed in both.forms:
        loop = GenerationLoop(ModelRunner(both.ours), encode_budget=60)
        for index, count in enumerate(both.lengths):
            loop.submit(Request(index, both.features(count, typed)))
        answers: dict[int, Any] = {}
        while loop.has_work:
            for event in loop.step():
                assert isinstance(event, RequestOutput)
                assert event.error is None
                answers[event.request_id] = event.predictions["logits"]
        for index, count in enumerate(both.lengths):
            assert torch.equal(answers[index], predict(both, [count], typed))


# Labels of two texts: how many there are, the kind of problem in the configuration, and the labels.
CLASSES, SEVERAL = torch.tensor([3, 0]), torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
PROBLEMS: dict[str, tuple[int, str | None, Tensor]] = {
    "a number": (1, None, torch.tensor([0.5, -2.0])),
    "several numbers": (4, "regression", 1.5 * SEVERAL - 0.4),
    "classes": (4, None, CLASSES),
    "classes by name": (4, "single_label_classification", CLASSES),
    "several labels": (4, None, SEVERAL),
    "several labels by name": (4, "multi_label_classification", SEVERAL),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", SPECS)
def test_losses_and_gradients_agree(name: str, problem: str, tmp_path: Path) -> None:
    count, kind, labels = PROBLEMS[problem]
    silent = without_chance(getattr(transformers, f"{SPECS[name][0]}Config"))
    both = make_classifier(name, tmp_path, num_labels=count, problem_type=kind, **silent)
    tokens = torch.cat([both.text(11), both.text(11, seed=1)])
    given = {key: types.expand(2, -1) for key, types in both.types(11).items()}
    for model in (both.ours, both.theirs):
        model.train()
    output = both.ours(tokens, labels=labels, **given)
    wanted = both.theirs(tokens, labels=labels, **given)
    assert_fields_close(output, wanted, rtol=1e-4)
    assert both.ours.config.problem_type == both.theirs.config.problem_type is not None
    output.loss.backward()
    wanted.loss.backward()
    assert_gradients_close(both.ours, both.theirs)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "Model") for name in SPECS),
        *((name, "ForSequenceClassification") for name in ("gpt2", "gpt-neo", "xlnet")),
    ],
)
@torch.inference_mode()
def test_the_model_without_a_head_agrees_and_goes_to_transformers_and_back(
    name: str, kind: str, tmp_path: Path
) -> None:
    family, _ = SPECS[name]
    written = write_classifier(name, kind, tmp_path / "theirs")
    ours = getattr(tritone, f"{family}Model").from_pretrained(tmp_path / "theirs")
    theirs = written.base_model
    both = Classifier(family, tmp_path, theirs, ours)
    tokens = both.text(13)
    decoder = {"decoder_input_ids": tokens.flip(1)} if family == "T5" else {}
    given = both.types(13) | decoder | STATES
    alone = ours(tokens, **given)
    assert_fields_close(alone, theirs(tokens, **given), rtol=1e-4)
    ids, mask = pad_rows([tokens[0], tokens[0, 4:]], both.padding, "left")
    if not decoder:
        output, alone = ours(ids, attention_mask=mask), ours(tokens[:, 4:])
        assert torch.equal(output[0][1, 4:], alone[0][0])
        if "pooler_output" in alone:
            assert torch.equal(output.pooler_output[1:], alone.pooler_output)
    ours.save_pretrained(tmp_path / "ours")
    back = type(theirs).from_pretrained(tmp_path / "ours").state_dict()
    assert all(torch.equal(tensor, back[key]) for key, tensor in theirs.state_dict().items())


@torch.inference_mode()
def test_what_is_saved_here_loads_in_transformers(both: Any, tmp_path: Path) -> None:
    names = {number: f"kind {number}" for number in range(both.config.num_labels)}
    config = type(both.ours.config).from_dict(both.ours.config.to_dict(), id2label=names)
    ours = type(both.ours).from_pretrained(both.folder, config=config)
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, attn_implementation="eager"
    ).eval()
    again = tritone.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(theirs) is type(both.theirs)
    assert theirs.config.id2label == again.config.id2label == names
    for name, tensor in both.theirs.state_dict().items():
        assert torch.equal(theirs.state_dict()[name], tensor), name
    tokens = both.text(20)
    assert torch.equal(theirs(tokens).logits, both.theirs(tokens).logits)
    assert torch.equal(again(tokens).logits, both.ours(tokens).logits)


def test_more_labels_than_a_checkpoint_has_need_to_be_asked_for(both: Any) -> None:
    count = both.config.num_labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=rf"wrong shape: .*\[{count}"):
            type(both.ours).from_pretrained(both.folder, num_labels=count + 2)
        ours = type(both.ours).from_pretrained(
            both.folder, num_labels=count + 2, ignore_mismatched_sizes=True
        )
    assert ours(both.text(5)).logits.shape == (1, count + 2)
