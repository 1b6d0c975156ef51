"""CTC models and classifiers of recordings: batches, best paths, poolings, losses, checkpoints, refusals."""

from typing import Any

import pytest
import torch
from factories import tiny_wav2vec2_config
from torch import Tensor
from training import assert_every_weight_learns
from waveform_encoders import NO_CHANCE

import tritone
from tritone.kernels.runtime.packing import cumulative

LENGTHS = [700, 9_000, 1_111, 16_001, 990, 5_000, 12_345, 4_321]  # samples
FAMILIES = ["Wav2Vec2", "Hubert", "UniSpeech", "UniSpeechSat", "SEW", "SEWD"]
CTC, CLASSIFIER = "ForCTC", "ForSequenceClassification"
WEIGHTED = {"use_weighted_layer_sum": True}

every_family = pytest.mark.parametrize("family", FAMILIES)
both_kinds = pytest.mark.parametrize("kind", [CTC, CLASSIFIER])


def make(kind: str, family: str = "Wav2Vec2", **fields: Any) -> Any:
    sizes = {"vocab_size": 13, "num_labels": 5, "classifier_proj_size": 11, "initializer_range": 0.3}
    config = tiny_wav2vec2_config(getattr(tritone, f"{family}Config"), **sizes | fields)
    torch.manual_seed(0)
    made = getattr(tritone, f"{family}{kind}")(config).eval()
    if kind == CLASSIFIER and made.layer_weights is not None:
        with torch.no_grad():
            made.layer_weights.copy_(torch.tensor([0.3, -0.9, 0.6]))
    return made


@pytest.fixture(scope="module")
def waveforms() -> list[Tensor]:
    """[samples, 1] each, as a front end packs them."""
    return [torch.randn(samples, 1, generator=torch.Generator().manual_seed(samples)) for samples in LENGTHS]


@torch.inference_mode()
def predict(model: Any, waveforms: list[Tensor]) -> list[dict[str, Tensor]]:
    """Each recording's rows of what the model predicts of a packed batch."""
    answers = model.predict(torch.cat(waveforms), cumulative([len(waveform) for waveform in waveforms]))
    return [
        {name: rows[cu[index] : cu[index + 1]] for name, (rows, cu) in answers.items()}
        for index in range(len(waveforms))
    ]


def trained(model: Any) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


# What comes out.


@every_family
@both_kinds
@pytest.mark.parametrize("weighted", [False, True])
def test_an_answer_is_the_same_alone_and_in_any_batch(family, kind, weighted, waveforms):
    norm = "layer" if weighted else "group"
    fields = {"feat_extract_norm": norm, "conv_bias": weighted, "use_weighted_layer_sum": weighted}
    model = make(kind, family, **fields)
    alone = [predict(model, [waveform])[0] for waveform in waveforms]
    for order in (range(8), range(7, -1, -1), [3, 0, 5, 1, 7, 2, 6, 4]):
        for index, answer in zip(order, predict(model, [waveforms[i] for i in order]), strict=True):
            assert answer.keys() == alone[index].keys()
            assert all(torch.equal(rows, alone[index][name]) for name, rows in answer.items())


@every_family
@torch.inference_mode()
def test_a_ctc_models_answer_is_the_best_path_of_the_logits(family, waveforms):
    model = make(CTC, family)
    for answer, waveform in zip(predict(model, waveforms), waveforms, strict=True):
        best = model(waveform.T).logits[0].log_softmax(-1).max(-1)
        assert torch.equal(answer["token_ids"], best.indices)
        torch.testing.assert_close(answer["log_probabilities"], best.values)
        assert len(answer["token_ids"]) == model.encoder_length(len(waveform))


@every_family
@pytest.mark.parametrize("weighted", [False, True])
@torch.inference_mode()
def test_a_classifiers_logits_are_float32_and_the_same_by_any_padding(family, weighted, waveforms):
    norm = "layer" if weighted else "group"
    fields = {"feat_extract_norm": norm, "conv_bias": weighted, "use_weighted_layer_sum": weighted}
    model = make(CLASSIFIER, family, **fields)
    packed = torch.cat([answer["logits"] for answer in predict(model, waveforms)])
    assert (packed.dtype, packed.shape) == (torch.float32, (8, 5))
    assert (packed[0] - packed[1]).abs().max() > 1e-3  # or a constant would pass
    width = max(LENGTHS)
    values, mask = torch.full((2, 8, width), 7.0), torch.zeros(2, 8, width, dtype=torch.long)
    for row, (waveform, size) in enumerate(zip(waveforms, LENGTHS, strict=True)):
        for side, there in enumerate((slice(0, size), slice(width - size, width))):
            values[side, row, there], mask[side, row, there] = waveform[:, 0], 1
    for side in range(2):
        assert torch.equal(model(values[side], attention_mask=mask[side]).logits, packed)
    assert torch.equal(model(waveforms[3].T).logits[0], packed[3])


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_samples_per_token_count_what_an_adapter_skips(layers):
    model = make(CTC, add_adapter=layers > 0, num_adapter_layers=layers)
    assert model.samples_per_token == 320 * 2**layers
    tokens = model.encoder_length(160_000)
    assert abs(tokens - 160_000 / model.samples_per_token) <= 1


@pytest.mark.parametrize("family", ["Hubert", "SEW"])
@torch.inference_mode()
def test_the_mixture_is_the_softmax_weighted_sum_of_all_states_and_the_pool_their_mean(family, waveforms):
    model = make(CLASSIFIER, family, **WEIGHTED)
    values = waveforms[1].T
    output = model(values, output_hidden_states=True, output_attentions=True)
    states = model.base(values, output_hidden_states=True).hidden_states
    mixed = sum(state * weight for state, weight in zip(states, model.layer_weights.softmax(0), strict=True))
    wanted = model.classifier(model.projector(mixed).mean(1))
    torch.testing.assert_close(output.logits, wanted, atol=1e-5, rtol=1e-5)
    assert (len(output.hidden_states), len(output.attentions)) == (3, 2)
    for state, same in zip(output.hidden_states, states, strict=True):
        assert torch.equal(state, same)
    tupled = model(values, output_hidden_states=True, return_dict=False)
    assert isinstance(tupled, tuple)
    assert len(tupled) == 2


# Training.


def test_a_layer_that_training_drops_counts_as_what_passed_it(waveforms):
    model = make(CLASSIFIER, **WEIGHTED, **{**NO_CHANCE, "layerdrop": 1.0})
    values = waveforms[1].T
    with torch.no_grad():
        first = model.base(values, output_hidden_states=True).hidden_states[0]
        dropped = model.train()(values).logits
        wanted = model.classifier(model.projector(first).mean(1))
    torch.testing.assert_close(dropped, wanted, atol=1e-5, rtol=1e-5)


def test_dropout_before_the_head_is_for_training_alone(waveforms):
    model = make(CTC, final_dropout=0.5, **NO_CHANCE)
    inputs = waveforms[3].T
    with torch.no_grad():
        assert torch.equal(model(inputs).logits, model(inputs).logits)
        model.train()
        assert not torch.equal(model(inputs).logits, model(inputs).logits)


@every_family
def test_training_a_classifier_reaches_every_weight_of_the_path(family, waveforms):
    weighted = family in ("Wav2Vec2", "SEWD")
    model = make(CLASSIFIER, family, use_weighted_layer_sum=weighted, **NO_CHANCE).train()
    model(waveforms[3].T, labels=torch.tensor([4])).loss.backward()
    assert_every_weight_learns(model, ("masked_spec_embed", "encoder.layer_norm", "upsample"))


def test_training_a_ctc_model_reaches_every_weight_but_the_frozen(waveforms):
    model = make(CTC, apply_spec_augment=False, layerdrop=0.0).train()
    model.freeze_feature_encoder()
    model(waveforms[3].T, labels=torch.tensor([[4, 5, 6]])).loss.backward()
    assert_every_weight_learns(model, ("feature_extractor", "masked_spec_embed"))


@both_kinds
def test_what_is_frozen_does_not_train(kind):
    model = make(kind)
    model.freeze_feature_encoder()
    frozen = {name for name, _ in model.named_parameters()} - set(trained(model))
    assert frozen
    assert all("feature_extractor" in name for name in frozen)
    model = make(kind, **WEIGHTED)
    model.freeze_base_model()
    head = ["lm_head.weight", "lm_head.bias"]
    if kind == CLASSIFIER:
        head = ["projector.weight", "projector.bias", "classifier.weight", "classifier.bias"]
        head = ["layer_weights", *head]
    assert trained(model) == head


# Losses.


def test_the_loss_is_ctc_of_what_is_no_blank_and_no_padding(waveforms):
    model = make(CTC, pad_token_id=2, ctc_loss_reduction="none")
    inputs = waveforms[1].T
    labels = torch.tensor([[5, 5, -100, 2, 7, -1]])
    with torch.no_grad():
        output = model(inputs, labels=labels)
    steps = output.logits[0].double().log_softmax(-1)
    # The sum over all paths, position by position, in float64.
    target = [2, 5, 2, 5, 2, 7, 2]
    total = torch.full((7,), float("-inf"), dtype=torch.float64)
    total[:2] = steps[0, target[:2]]
    for step in steps[1:]:
        before = total.clone()
        for place in range(7):
            sources = [before[place]] + ([before[place - 1]] if place else [])
            if place > 1 and target[place] not in (2, target[place - 2]):
                sources.append(before[place - 2])
            total[place] = torch.logsumexp(torch.stack(sources), 0) + step[target[place]]
    wanted = -torch.logsumexp(total[-2:], 0)
    assert output.loss.shape == (1,)
    assert float(output.loss) == pytest.approx(float(wanted), rel=1e-5)


def test_a_label_longer_than_the_recording_is_infinite_unless_the_configuration_says_zero(waveforms):
    labels = torch.arange(1, 13)[None]
    for zero in (False, True):
        with torch.no_grad():
            loss = make(CTC, ctc_zero_infinity=zero)(waveforms[0].T, labels=labels).loss
        assert float(loss) == (0.0 if zero else float("inf"))


@pytest.mark.parametrize(
    ("fields", "labels", "loss"),
    [
        ({"num_labels": 1}, torch.tensor([0.5]), lambda logits, labels: (logits[0, 0] - labels[0]) ** 2),
        (
            {"problem_type": "multi_label_classification"},
            torch.tensor([[1.0, 0, 0, 1, 0]]),
            torch.nn.functional.binary_cross_entropy_with_logits,
        ),
        ({}, torch.tensor([2]), torch.nn.functional.cross_entropy),
    ],
)
def test_the_loss_is_that_of_the_kind_of_problem(fields, labels, loss, waveforms):
    model = make(CLASSIFIER, **fields)
    with torch.no_grad():
        output = model(waveforms[0].T, labels=labels)
    assert float(output.loss) == pytest.approx(float(loss(output.logits, labels)), rel=1e-5)


# Checkpoints.


@every_family
@both_kinds
def test_a_saved_model_is_loaded_by_its_own_class_and_the_auto_class(family, kind, tmp_path, waveforms):
    fields = {**WEIGHTED, "id2label": dict(enumerate("abcde"))} if kind == CLASSIFIER else {}
    model = make(kind, family, **fields)
    model.save_pretrained(tmp_path)
    auto = tritone.AutoModelForCTC if kind == CTC else tritone.AutoModelForAudioClassification
    with torch.inference_mode():
        wanted = model(waveforms[0].T).logits
        for loader in (type(model), auto):
            loaded = loader.from_pretrained(tmp_path)
            assert type(loaded) is type(model)
            assert torch.equal(loaded(waveforms[0].T).logits, wanted)
            assert loaded.config.architectures == [f"{family}{kind}"]
            assert loaded.config.id2label == model.config.id2label


@pytest.mark.parametrize(
    ("kind", "message"), [(CTC, r"fresh.*lm_head\.bias; lm_head\.weight"), (CLASSIFIER, "classifier")]
)
def test_a_checkpoint_without_a_head_loads_with_a_fresh_one_and_a_warning(kind, message, tmp_path):
    base = make(kind).base
    base.save_pretrained(tmp_path)
    fields = {"num_labels": 3, **WEIGHTED} if kind == CLASSIFIER else {}
    with pytest.warns(UserWarning, match=message):
        model = getattr(tritone, f"Wav2Vec2{kind}").from_pretrained(tmp_path, **fields)
    for name, parameter in base.named_parameters():
        assert torch.equal(model.base.get_parameter(name), parameter)
    if kind == CTC:
        assert bool(model.lm_head.weight.std() > 0)
    else:
        assert model.classifier.weight.shape == (3, 11)
        torch.testing.assert_close(model.layer_weights.data, torch.full((3,), 1 / 3))


@pytest.mark.parametrize("form", [".safetensors", ".bin"])
def test_weight_norm_as_checkpoints_before_torch_2_spell_it_is_read(form, tmp_path, waveforms):
    model = make(CTC)
    older = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = {}
    for name, tensor in model.state_dict().items():
        for new, old in older.items():
            name = name.replace(new, old)
        state[name] = tensor
    assert "wav2vec2.encoder.pos_conv_embed.conv.weight_g" in state
    model.save_pretrained(tmp_path, state_dict=state, safe_serialization=form == ".safetensors")
    loaded = tritone.AutoModelForCTC.from_pretrained(tmp_path)
    with torch.inference_mode():
        assert torch.equal(loaded(waveforms[0].T).logits, model(waveforms[0].T).logits)


# Refusals.


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (CTC, {"vocab_size": None}, "Wav2Vec2ForCTC tells tokens apart; set vocab_size"),
        (CLASSIFIER, {"add_adapter": True}, "has no adapter, as in transformers; set add_adapter=False"),
        (CLASSIFIER, {"num_labels": 0}, "gives labels; set num_labels, it is 0"),
    ],
)
def test_a_head_that_cannot_be_is_refused(kind, fields, message):
    with pytest.raises(ValueError, match=message):
        make(kind, **fields)


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        (CTC, torch.tensor([[3, 13]]), "labels go to 13, and the model tells tokens 0 to 12 apart"),
        (CTC, torch.tensor([3, 4]), r"labels must be \[1, target\], got \[2\]"),
        (CTC, torch.tensor([[3], [4]]), r"labels must be \[1, target\], got \[2, 1\]"),
        (CLASSIFIER, torch.tensor([5]), "labels are"),
    ],
)
def test_labels_that_cannot_be_are_refused(kind, labels, message, waveforms):
    with pytest.raises(ValueError, match=message):
        make(kind)(waveforms[0].T, labels=labels)


def test_padding_in_the_middle_of_a_recording_is_refused(waveforms):
    mask = torch.ones(1, 700)
    mask[0, 300] = 0
    with pytest.raises(ValueError, match="must begin with the real samples of each row"):
        make(CLASSIFIER, "SEW")(waveforms[0].T, attention_mask=mask)


@pytest.mark.parametrize(("kind", "family", "least"), [(CTC, "Wav2Vec2", 332), (CLASSIFIER, "SEW", 652)])
def test_a_recording_of_no_frame_is_refused_with_what_is_needed(kind, family, least):
    model, short = make(kind, family), least - 1
    for ask in (
        lambda: model(torch.randn(1, short)),
        lambda: model.encoder_length(short),
        lambda: model.predict(torch.randn(short, 1), cumulative([short])),
    ):
        with pytest.raises(ValueError, match=f"{short} samples is too short: this model needs {least} at"):
            ask()
