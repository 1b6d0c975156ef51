"""Classifiers of recordings against transformers: logits, loss, gradients, on checkpoints that it wrote."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from factories import tiny_wav2vec2_config
from parity import STATES, assert_close, assert_fields_close
from torch import Tensor
from waveform_encoders import compare_gradients

import tritone

LENGTHS = [1_300, 16_000, 4_321, 25_000, 9_999]  # samples
WEIGHTED = {
    "use_weighted_layer_sum": True,
    "num_hidden_layers": 3,
    "classifier_proj_size": 6,
    "num_labels": 2,
}
LAYER = {"feat_extract_norm": "layer", "conv_bias": True}
STABLE = {**LAYER, "do_stable_layer_norm": True}
# What each checkpoint is: its family, and fields that are not the tiny configuration's.
SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2-group": ("Wav2Vec2", {}),
    "wav2vec2-stable-weighted": ("Wav2Vec2", {**STABLE, **WEIGHTED}),
    "hubert-group-weighted": ("Hubert", {**WEIGHTED, "feat_proj_layer_norm": False}),
    "hubert-stable": ("Hubert", {**STABLE, "conv_pos_batch_norm": True}),
    "unispeech-group": ("UniSpeech", {"hidden_act": "gelu_new"}),
    "unispeech-stable-weighted": ("UniSpeech", {**STABLE, **WEIGHTED}),
    "unispeech-sat-layer": ("UniSpeechSat", LAYER),
    "unispeech-sat-stable-weighted": ("UniSpeechSat", {**STABLE, **WEIGHTED, "mask_time_prob": 0.0}),
    "sew-group-weighted": ("SEW", {**WEIGHTED, "squeeze_factor": 3}),
    "sew-layer": ("SEW", {**LAYER, "num_conv_pos_embeddings": 6}),
    "sew-d-group": ("SEWD", {"squeeze_factor": 3, "share_att_key": False}),
    "sew-d-layer-weighted": ("SEWD", {**LAYER, **WEIGHTED, "pos_att_type": ["p2c", "c2p"]}),
}


def write_checkpoint(family: str, fields: dict[str, Any], folder: Path) -> None:
    """Weights at which logits vary with the input; transformers writes them."""
    torch.manual_seed(5)
    sizes = {"vocab_size": 32, "classifier_proj_size": 13, "num_labels": 7} | fields
    config = tiny_wav2vec2_config(getattr(transformers, f"{family}Config"), **sizes)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if parameter.dim() == 1 and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.4 * noise)
            elif "classifier" in name or "projector" in name:
                parameter.copy_(noise)
            elif not name.endswith(("original0", "original1")):
                parameter.copy_(1.4 * noise / parameter[0].numel() ** 0.5)
    model.save_pretrained(folder)


class Case:
    """One checkpoint in both libraries."""

    def __init__(self, folder: Path, family: str) -> None:
        self.folder = folder
        self.theirs = getattr(transformers, f"{family}ForSequenceClassification").from_pretrained(folder)
        self.theirs.eval()
        self.ours, self.report = tritone.AutoModelForAudioClassification.from_pretrained(
            folder, output_loading_info=True
        )
        assert type(self.ours).__name__ == type(self.theirs).__name__


@pytest.fixture(scope="module", params=SPECS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    family, fields = SPECS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_checkpoint(family, fields, folder)
        return Case(folder, family)


@pytest.fixture(scope="module")
def waveforms() -> list[Tensor]:
    """[1, samples] each, no two alike."""
    drawn = [np.random.default_rng(samples).standard_normal(samples) for samples in LENGTHS]
    return [torch.tensor(values[None], dtype=torch.float32) for values in drawn]


def test_logits_and_loss_are_those_of_transformers(case, waveforms):
    assert not any(case.report.values())
    seen = []
    for index, values in enumerate(waveforms):
        labels = torch.tensor([index % case.ours.config.num_labels])
        with torch.no_grad():
            wanted = case.theirs(values, labels=labels)
            found = case.ours(values, labels=labels)
            by_mask = case.theirs(values, attention_mask=torch.ones_like(values).long(), labels=labels)
        assert_fields_close(found, wanted)
        assert_close(found.logits, by_mask.logits)
        seen.append(found.logits[0])
    assert (seen[0] - seen[1]).abs().max() > 0.01  # or the weights would say nothing


def test_a_packed_batch_is_what_transformers_says_of_each_alone(case, waveforms):
    packed = torch.cat([values[0] for values in waveforms])[:, None]
    ends = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    with torch.inference_mode():
        logits, _ = case.ours.predict(packed, ends)["logits"]
        for found, values in zip(logits, waveforms, strict=True):
            assert_close(found, case.theirs(values).logits[0])


def test_hidden_states_and_attentions_come_where_they_are_asked_for(case, waveforms):
    values = waveforms[2]
    theirs, ours = case.theirs, case.ours
    theirs.set_attn_implementation("eager")
    with torch.no_grad():
        assert_fields_close(ours(values, **STATES), theirs(values, **STATES), 2e-4)
    theirs.set_attn_implementation("sdpa" if "SEWD" not in type(theirs).__name__ else "eager")
    with torch.no_grad():
        plain = ours(values)
    assert (plain.hidden_states, plain.attentions, plain.loss) == (None, None, None)


def test_the_gradients_of_the_loss_are_those_of_transformers(case, waveforms):
    for model in (case.ours, case.theirs):
        model.zero_grad()
        model(waveforms[2], labels=torch.tensor([1])).loss.backward()
    # A key's bias has no gradient but by rounding.
    assert compare_gradients(case.ours, case.theirs, 2e-3, 1e-2) > 20
    for model in (case.ours, case.theirs):
        model.zero_grad(set_to_none=True)


def test_what_tritone_saves_transformers_loads(case, waveforms, tmp_path):
    case.ours.save_pretrained(tmp_path)
    model, report = transformers.AutoModelForAudioClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        assert_close(model.eval()(waveforms[0]).logits, case.theirs(waveforms[0]).logits, 1e-5)


@pytest.mark.parametrize("problem", [None, "regression", "multi_label_classification"])
def test_scores_are_those_of_the_pipeline(problem, waveforms, tmp_path):
    write_checkpoint("Wav2Vec2", {"problem_type": problem}, tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    pipeline = transformers.pipeline("audio-classification", model=str(tmp_path), device="cpu")
    arrays = [values[0].numpy() for values in waveforms]
    with tritone.Engine(tmp_path, device="cpu") as engine:
        for result, array in zip(engine.classify(arrays, top_k=7), arrays, strict=True):
            wanted = pipeline(array, top_k=7)
            scores = [label.score for label in result.labels]
            assert scores == sorted(scores, reverse=True)
            # By label: scores that are 1 but for rounding come in another order there.
            assert {label.label: label.score for label in result.labels} == pytest.approx(
                {one["label"]: one["score"] for one in wanted}, abs=1e-4
            )
