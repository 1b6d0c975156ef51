"""BART and T5 as classifiers of text: end tokens, decoder inputs, checkpoints without a head, halves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import assert_close
from text_classifiers import SPECS, names_of, write_classifier
from transformers.models.t5.modeling_t5 import T5Attention

import tritone
from tritone.kernels.attention.distance_buckets import Buckets

NAMES = names_of("Bart", "T5")
every_one = pytest.mark.parametrize("both", NAMES, indirect=True)


def close(one: Any, other: Any, tolerance: float = 1e-4) -> None:
    assert_close(one, other, tolerance, tolerance)


@every_one
@torch.no_grad()
def test_the_last_of_several_end_tokens_is_read(both: Any) -> None:
    ids = both.text(9)
    ids[:, :2] = both.config.eos_token_id
    close(both.ours(ids).logits, both.theirs(ids).logits)
    ids = torch.cat([ids, both.text(4)[:, :2]], 1)  # and more tokens behind it
    close(both.ours(ids).logits, both.theirs(ids).logits)


@every_one
@torch.no_grad()
def test_decoder_inputs_of_the_callers_own_are_read(both: Any) -> None:
    ids, own = both.text(7), both.text(8)[:, :7]
    logits = both.ours(ids, decoder_input_ids=own).logits
    close(logits, both.theirs(ids, decoder_input_ids=own).logits)
    assert not torch.allclose(logits, both.ours(ids).logits, atol=1e-3)
    encoded = both.ours.get_encoder()(ids)
    close(both.ours(ids, decoder_input_ids=own, encoder_outputs=encoded).logits, logits)
    vectors = both.theirs.get_decoder().embed_tokens(own)
    close(both.ours(ids, decoder_inputs_embeds=vectors).logits, logits)


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("kind", ["Model", "ForConditionalGeneration"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_checkpoints_without_the_head_load_and_warn(name: str, kind: str, safe: bool, tmp_path: Path) -> None:
    family, fields = SPECS[name]
    theirs = write_classifier(name, kind, tmp_path)
    if not safe:  # with every name of a tied tensor, as older checkpoints have them
        (tmp_path / "model.safetensors").unlink()
        torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.warns(UserWarning, match="classification_head"):
        ours = tritone.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    ids = torch.tensor([[6, 8, 9, fields.get("eos_token_id", 1)]])
    encoder = theirs.get_encoder()
    close(ours.get_encoder()(ids).last_hidden_state, encoder(ids).last_hidden_state)
    bare = getattr(tritone, f"{family}Model").from_pretrained(tmp_path)
    inner = theirs if kind == "Model" else getattr(theirs, "model", theirs)
    if kind == "Model" or family == "Bart":
        given = {"input_ids": ids, "decoder_input_ids": ids.flip(1)}
        close(bare(**given).last_hidden_state, inner(**given).last_hidden_state)


@pytest.mark.parametrize("both_directions", [True, False])
@pytest.mark.parametrize(("count", "farthest"), [(32, 128), (7, 11), (32, 40), (64, 1000), (4, 3)])
def test_distances_share_biases_as_in_transformers(count: int, farthest: int, both_directions: bool) -> None:
    distance = torch.arange(-farthest, farthest + 1)
    expected = T5Attention._relative_position_bucket(-distance, both_directions, count, farthest)
    rows = Buckets(count, farthest, both_directions).rows(torch.device("cpu"))
    assert torch.equal(rows, expected)
    beyond = T5Attention._relative_position_bucket(
        torch.tensor([-9999, 9999]), both_directions, count, farthest
    )
    assert beyond.tolist() == [int(rows[-1]), int(rows[0])]


@torch.no_grad()
def test_two_labels_of_bart_are_asked_for_by_number_and_written(tmp_path: Path) -> None:
    """transformers leaves them out of config.json, where three are BART's default, and needs the same."""
    theirs = write_classifier("bart-odd", "ForSequenceClassification", tmp_path / "theirs", num_labels=2)
    ours = tritone.BartForSequenceClassification.from_pretrained(tmp_path / "theirs", num_labels=2)
    ours.save_pretrained(tmp_path / "ours")
    again = tritone.BartForSequenceClassification.from_pretrained(tmp_path / "ours")
    ids = torch.tensor([[0, 7, 9, 2]])
    expected = theirs(ids).logits
    for model in (ours, again, type(theirs).from_pretrained(tmp_path / "ours").eval()):
        assert model.config.num_labels == 2
        close(model(ids).logits, expected)


@pytest.mark.parametrize("name", ["t5-odd", "t5-gated"])
@torch.no_grad()
def test_one_weight_of_t5_stays_in_float32(name: str, classifier_of: Callable[[str], Any]) -> None:
    both = classifier_of(name)
    ours = tritone.T5ForSequenceClassification.from_pretrained(both.folder, dtype="float16")
    theirs = transformers.T5ForSequenceClassification.from_pretrained(both.folder, dtype=torch.float16).eval()
    types = {key: tensor.dtype for key, tensor in theirs.state_dict().items()}
    assert {key: tensor.dtype for key, tensor in ours.state_dict().items()} == types
    assert {key for key, kind in types.items() if kind == torch.float32} == {
        key for key in types if key.endswith(".wo.weight")
    }
    weight = ours.state_dict()["transformer.encoder.block.0.layer.1.DenseReluDense.wo.weight"]
    assert torch.equal(
        weight, both.ours.state_dict()["transformer.encoder.block.0.layer.1.DenseReluDense.wo.weight"]
    )
    ids = both.text(20)
    mine, its = ours(ids, output_hidden_states=True), theirs(ids, output_hidden_states=True)
    assert mine.logits.dtype == torch.float16
    for one, other in zip(mine.decoder_hidden_states, its.decoder_hidden_states, strict=True):
        assert one.dtype == other.dtype
    close(mine.logits.float(), both.ours(ids).logits, 2e-2)
    close(mine.logits, its.logits, 2e-2)


@torch.no_grad()
def test_what_overflows_a_half_stays_finite_as_in_transformers(classifier_of: Callable[[str], Any]) -> None:
    both = classifier_of("t5-odd")
    torch.manual_seed(1)
    state = type(both.theirs)(both.config).state_dict()
    state["transformer.encoder.block.0.layer.0.SelfAttention.o.weight"] *= 1e4
    state["transformer.encoder.block.0.layer.0.SelfAttention.v.weight"] *= 1e2
    ours = tritone.T5ForSequenceClassification.from_pretrained(
        None, config=both.ours.config, state_dict=state, dtype="float16"
    )
    theirs = (
        type(both.theirs)
        .from_pretrained(None, config=both.theirs.config, state_dict=state, dtype=torch.float16)
        .eval()
    )
    ids = both.text(20)
    mine = ours.get_encoder()(ids, output_hidden_states=True)
    its = theirs.get_encoder()(ids, output_hidden_states=True)
    assert float(its.hidden_states[1].abs().max()) > 60000
    assert bool(mine.last_hidden_state.isfinite().all())
    close(mine.last_hidden_state, its.last_hidden_state, 2e-2)
