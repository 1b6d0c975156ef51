"""CTC models: the best path of packed waveforms, the loss, and what a configuration or label cannot be."""

import pytest
import torch
from factories import tiny_wav2vec2_config
from torch import Tensor
from waveform_encoders import NO_CHANCE

import tritone
from tritone.kernels.runtime.packing import cumulative
from tritone.models.wav2vec2.ctc import CTCModel

LENGTHS = [700, 9_000, 1_111, 16_001, 660, 5_000, 12_345, 4_321]  # samples
FAMILIES = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "unispeech": "UniSpeech",
    "unispeech-sat": "UniSpeechSat",
    "sew": "SEW",
    "sew-d": "SEWD",
}


def make(family: str = "wav2vec2", **fields) -> CTCModel:
    name = FAMILIES[family]
    sizes = {"vocab_size": 13, "initializer_range": 0.3} | fields
    torch.manual_seed(0)
    return getattr(tritone, f"{name}ForCTC")(
        tiny_wav2vec2_config(getattr(tritone, f"{name}Config"), **sizes)
    ).eval()


@pytest.fixture(scope="module")
def waveforms() -> list[Tensor]:
    """[samples, 1] each, as a front end packs them."""
    return [torch.randn(samples, 1, generator=torch.Generator().manual_seed(samples)) for samples in LENGTHS]


@torch.inference_mode()
def predict(model: CTCModel, waveforms: list[Tensor]) -> list[dict[str, Tensor]]:
    answers = model.predict(torch.cat(waveforms), cumulative([len(waveform) for waveform in waveforms]))
    return [
        {name: rows[cu[index] : cu[index + 1]] for name, (rows, cu) in answers.items()}
        for index in range(len(waveforms))
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_an_answer_is_the_best_path_of_the_logits_and_the_same_in_any_batch(family, norm, waveforms):
    model = make(family, feat_extract_norm=norm)
    alone = [predict(model, [waveform])[0] for waveform in waveforms]
    for answer, waveform in zip(alone, waveforms, strict=True):
        with torch.inference_mode():
            best = model(waveform.T).logits[0].log_softmax(-1).max(-1)
        assert torch.equal(answer["token_ids"], best.indices)
        torch.testing.assert_close(answer["log_probabilities"], best.values)
        assert len(answer["token_ids"]) == model.encoder_length(len(waveform))
    for order in (range(8), range(7, -1, -1), [3, 0, 5, 1, 7, 2, 6, 4]):
        for index, answer in zip(order, predict(model, [waveforms[i] for i in order]), strict=True):
            for name, rows in answer.items():
                assert torch.equal(rows, alone[index][name])


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_samples_per_token_count_what_an_adapter_skips(layers):
    model = make(add_adapter=layers > 0, num_adapter_layers=layers)
    assert model.samples_per_token == 320 * 2**layers
    tokens = model.encoder_length(160_000)
    assert abs(tokens - 160_000 / model.samples_per_token) <= 1


def test_the_loss_is_ctc_of_what_is_no_blank_and_no_padding(waveforms):
    model = make(pad_token_id=2, ctc_loss_reduction="none")
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
            loss = make(ctc_zero_infinity=zero)(waveforms[4].T, labels=labels).loss
        assert float(loss) == (0.0 if zero else float("inf"))


def test_training_reaches_every_weight_of_the_path(waveforms):
    model = make(apply_spec_augment=False, layerdrop=0.0).train()
    model.freeze_feature_encoder()
    model(waveforms[3].T, labels=torch.tensor([[4, 5, 6]])).loss.backward()
    for name, parameter in model.named_parameters():
        if "feature_extractor" in name:
            assert not parameter.requires_grad
        elif "masked_spec_embed" not in name:
            assert parameter.grad is not None, name
            # The keys' bias changes nothing: softmax takes it away again.
            assert "k_proj.bias" in name or bool(parameter.grad.abs().max() > 0), name


def test_a_frozen_base_leaves_the_head_alone_to_train():
    model = make()
    model.freeze_base_model()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained == ["lm_head.weight", "lm_head.bias"]


def test_dropout_before_the_head_is_for_training_alone(waveforms):
    model = make(final_dropout=0.5, **NO_CHANCE)
    inputs = waveforms[3].T
    with torch.no_grad():
        assert torch.equal(model(inputs).logits, model(inputs).logits)
        model.train()
        assert not torch.equal(model(inputs).logits, model(inputs).logits)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (torch.tensor([[3, 13]]), "labels go to 13, and the model tells tokens 0 to 12 apart"),
        (torch.tensor([3, 4]), r"labels must be \[1, target\], got \[2\]"),
        (torch.tensor([[3], [4]]), r"labels must be \[1, target\], got \[2, 1\]"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels, problem, waveforms):
    with pytest.raises(ValueError, match=problem):
        make()(waveforms[0].T, labels=labels)


def test_a_recording_of_no_frame_is_refused_with_what_is_needed():
    model = make()
    for ask in (
        lambda: model(torch.randn(1, 331)),
        lambda: model.encoder_length(331),
        lambda: model.predict(torch.randn(331, 1), cumulative([331])),
    ):
        with pytest.raises(ValueError, match="331 samples is too short: this model needs 332 at least"):
            ask()


def test_a_model_without_a_vocabulary_is_refused():
    with pytest.raises(ValueError, match="Wav2Vec2ForCTC tells tokens apart; set vocab_size"):
        make(vocab_size=None)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_is_loaded_by_its_own_class_and_the_auto_class(family, tmp_path, waveforms):
    model = make(family)
    model.save_pretrained(tmp_path)
    with torch.inference_mode():
        wanted = model(waveforms[0].T).logits
        for loader in (type(model), tritone.AutoModelForCTC):
            loaded = loader.from_pretrained(tmp_path)
            assert type(loaded) is type(model)
            assert torch.equal(loaded(waveforms[0].T).logits, wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_without_a_head_takes_its_weights_out_of_a_ctc_checkpoint(family, tmp_path, waveforms):
    model = make(family)
    model.save_pretrained(tmp_path)
    base = type(model.base).from_pretrained(tmp_path)
    with torch.inference_mode():
        assert torch.equal(base(waveforms[0].T)[0], model.base(waveforms[0].T)[0])


def test_a_checkpoint_without_a_head_loads_with_a_fresh_one_and_a_warning(tmp_path, waveforms):
    model = make()
    model.base.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"fresh.*lm_head\.bias; lm_head\.weight"):
        loaded = tritone.Wav2Vec2ForCTC.from_pretrained(tmp_path)
    with torch.inference_mode():
        assert torch.equal(loaded.base(waveforms[0].T)[0], model.base(waveforms[0].T)[0])
    assert bool(loaded.lm_head.weight.std() > 0)


@pytest.mark.parametrize("form", [".safetensors", ".bin"])
def test_weight_norm_as_checkpoints_before_torch_2_spell_it_is_read(form, tmp_path, waveforms):
    model = make()
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
