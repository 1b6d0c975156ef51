"""Classifiers of recordings: the mean of the true length, the mixture of layers, and what trains."""

import pytest
import torch
from factories import tiny_wav2vec2_config
from torch import Tensor
from waveform_encoders import NO_CHANCE, padded

import tritone
from tritone.kernels.runtime.packing import cumulative
from tritone.models.wav2vec2.audio_classification import AudioClassifier

LENGTHS = [700, 9_000, 1_111, 16_001, 990, 5_000, 12_345, 4_321]  # samples
FAMILIES = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "unispeech": "UniSpeech",
    "unispeech-sat": "UniSpeechSat",
    "sew": "SEW",
    "sew-d": "SEWD",
}


def make(family: str = "wav2vec2", **fields) -> AudioClassifier:
    name = FAMILIES[family]
    sizes = {"vocab_size": 32, "num_labels": 5, "classifier_proj_size": 11, "initializer_range": 0.3} | fields
    config = tiny_wav2vec2_config(getattr(tritone, f"{name}Config"), **sizes)
    torch.manual_seed(0)
    made = getattr(tritone, f"{name}ForSequenceClassification")(config).eval()
    if made.layer_weights is not None:
        with torch.no_grad():
            made.layer_weights.copy_(torch.tensor([0.3, -0.9, 0.6]))
    return made


@pytest.fixture(scope="module")
def waveforms() -> list[Tensor]:
    """[samples, 1] each, as a front end packs them."""
    return [torch.randn(samples, 1, generator=torch.Generator().manual_seed(samples)) for samples in LENGTHS]


@torch.inference_mode()
def predict(model: AudioClassifier, waveforms: list[Tensor]) -> Tensor:
    answers = model.predict(torch.cat(waveforms), cumulative([len(waveform) for waveform in waveforms]))
    logits, cu_rows = answers["logits"]
    assert cu_rows.tolist() == list(range(len(waveforms) + 1))
    return logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weighted", [False, True])
def test_an_answer_is_the_same_alone_in_any_batch_and_by_any_padding(family, weighted, waveforms):
    norm = "layer" if weighted else "group"
    model = make(family, use_weighted_layer_sum=weighted, feat_extract_norm=norm, conv_bias=weighted)
    alone = [predict(model, [waveform])[0] for waveform in waveforms]
    assert all(logits.dtype == torch.float32 and logits.shape == (5,) for logits in alone)
    assert (alone[0] - alone[1]).abs().max() > 1e-3  # or a constant would pass
    for order in (range(8), range(7, -1, -1), [3, 0, 5, 1, 7, 2, 6, 4]):
        together = predict(model, [waveforms[i] for i in order])
        for index, logits in zip(order, together, strict=True):
            assert torch.equal(logits, alone[index])
    width = max(LENGTHS)
    values, mask = torch.full((2, 8, width), 7.0), torch.zeros(2, 8, width, dtype=torch.long)
    for row, waveform in enumerate(waveforms):
        size = len(waveform)
        values[0, row, :size], mask[0, row, :size] = waveform[:, 0], 1
        values[1, row, width - size :], mask[1, row, width - size :] = waveform[:, 0], 1
    with torch.inference_mode():
        for side in range(2):
            for row, logits in enumerate(model(values[side], attention_mask=mask[side]).logits):
                assert torch.equal(logits, alone[row])
        assert torch.equal(model(waveforms[3].T).logits[0], alone[3])


@pytest.mark.parametrize("family", ["hubert", "sew"])
def test_the_mixture_is_the_softmax_weighted_sum_of_all_states_and_the_pool_their_mean(family, waveforms):
    model = make(family, use_weighted_layer_sum=True)
    values = waveforms[1].T
    with torch.inference_mode():
        output = model(values, output_hidden_states=True, output_attentions=True)
        states = model.base(values, output_hidden_states=True).hidden_states
        mixed = sum(
            state * weight for state, weight in zip(states, model.layer_weights.softmax(0), strict=True)
        )
        wanted = model.classifier(model.projector(mixed).mean(1))
    torch.testing.assert_close(output.logits, wanted, atol=1e-5, rtol=1e-5)
    assert (len(output.hidden_states), len(output.attentions)) == (3, 2)
    for state, same in zip(output.hidden_states, states, strict=True):
        assert torch.equal(state, same)
    tupled = model(values, output_hidden_states=True, return_dict=False)
    assert isinstance(tupled, tuple)
    assert len(tupled) == 2


def test_a_layer_that_training_drops_counts_as_what_passed_it(waveforms):
    model = make(use_weighted_layer_sum=True, **{**NO_CHANCE, "layerdrop": 1.0})
    values = waveforms[1].T
    with torch.no_grad():
        first = model.base(values, output_hidden_states=True).hidden_states[0]
        dropped = model.train()(values).logits
        wanted = model.classifier(model.projector(first).mean(1))
    torch.testing.assert_close(dropped, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_reaches_every_weight_of_the_path(family, waveforms):
    model = make(family, use_weighted_layer_sum=family in ("wav2vec2", "sew-d"), **NO_CHANCE).train()
    output = model(waveforms[3].T, labels=torch.tensor([4]))
    output.loss.backward()
    unused = ("masked_spec_embed", "encoder.layer_norm", "upsample")
    for name, parameter in model.named_parameters():
        if any(part in name for part in unused) and parameter.grad is None:
            continue
        assert parameter.grad is not None, name
        # The keys' bias changes nothing: softmax takes it away again.
        known_zero = "k_proj.bias" in name or "key_proj.bias" in name
        assert known_zero or bool(parameter.grad.abs().max() > 0), name


def test_some_steps_of_training_lower_the_loss(waveforms):
    torch.manual_seed(1)
    model = make("hubert", use_weighted_layer_sum=True).train()
    model.freeze_feature_encoder()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    values, mask = padded([waveform[:, 0] for waveform in waveforms[:4]])
    losses = []
    for _ in range(25):
        loss = model(values, attention_mask=mask, labels=torch.tensor([0, 1, 2, 3])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.5 * losses[0]


def test_what_is_frozen_does_not_train():
    model = make()
    model.freeze_feature_encoder()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen
    assert all("feature_extractor" in name for name in frozen)
    model = make(use_weighted_layer_sum=True)
    model.freeze_base_model()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained == ["layer_weights", *(f"{head}.{part}" for head in ("projector", "classifier")
                                          for part in ("weight", "bias"))]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "labels", "loss"),
    [
        ({"num_labels": 1}, torch.tensor([0.5]), lambda logits: (logits[0, 0] - 0.5) ** 2),
        (
            {"problem_type": "multi_label_classification"},
            torch.tensor([[1.0, 0, 0, 1, 0]]),
            lambda logits: torch.nn.functional.binary_cross_entropy_with_logits(
                logits, torch.tensor([[1.0, 0, 0, 1, 0]])
            ),
        ),
        ({}, torch.tensor([2]), lambda logits: -logits.log_softmax(-1)[0, 2]),
    ],
)
def test_the_loss_is_that_of_the_kind_of_problem(fields, labels, loss, waveforms):
    model = make(**fields)
    with torch.no_grad():
        output = model(waveforms[0].T, labels=labels)
    assert float(output.loss) == pytest.approx(float(loss(output.logits)), rel=1e-5)


def test_a_pretrained_encoder_gets_a_fresh_head_and_says_so(tmp_path):
    base = make().base
    base.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"classifier"):
        model = tritone.Wav2Vec2ForSequenceClassification.from_pretrained(
            tmp_path, num_labels=3, use_weighted_layer_sum=True
        )
    assert model.classifier.weight.shape == (3, 11)
    torch.testing.assert_close(model.layer_weights.data, torch.full((3,), 1 / 3))
    for name, parameter in base.named_parameters():
        assert torch.equal(model.base.get_parameter(name), parameter)


def test_names_are_those_of_checkpoints_and_a_saved_model_is_the_same(tmp_path, waveforms):
    model = make("sew-d", use_weighted_layer_sum=True, id2label=dict(enumerate("abcde")))
    assert {name.split(".")[0] for name in model.state_dict()} == {
        "layer_weights", "sew_d", "projector", "classifier",
    }  # fmt: skip
    model.save_pretrained(tmp_path)
    again = tritone.AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert torch.equal(predict(again, waveforms[:2]), predict(model, waveforms[:2]))
    assert again.config.id2label == dict(enumerate("abcde"))
    assert again.config.architectures == ["SEWDForSequenceClassification"]


def test_what_cannot_be_a_classifier_or_its_input_is_refused(waveforms):
    with pytest.raises(ValueError, match=r"has no adapter, as in transformers; set add_adapter=False"):
        make(add_adapter=True)
    with pytest.raises(ValueError, match=r"gives labels; set num_labels, it is 0"):
        make(num_labels=0)
    model = make("sew")
    with pytest.raises(ValueError, match="a recording of 500 samples is too short"):
        model(torch.zeros(1, 500))
    with pytest.raises(ValueError, match="too short"):
        model.encoder_length(500)
    with pytest.raises(ValueError, match=r"labels are"):
        model(waveforms[0].T, labels=torch.tensor([5]))
    mask = torch.ones(1, 700)
    mask[0, 300] = 0
    with pytest.raises(ValueError, match="must begin with the real samples of each row"):
        model(waveforms[0].T, attention_mask=mask)
