"""Whisper's model: inputs that are refused, SpecAugment, dropout, training, kernels, and its place here."""

from typing import Any

import pytest
import torch
from factories import WHISPER, add_noise, seeded, tiny_whisper_config
from torch import Tensor
from training import assert_each_dropout_draws, train

import tritone
from tritone.models.core.layer_mixture import LayerMixture
from tritone.models.whisper.encoder import WhisperEncoder

FRAMES = 2 * WHISPER["max_source_positions"]
MELS = WHISPER["num_mel_bins"]


def build(model_class: Any = tritone.WhisperForConditionalGeneration, **fields: Any) -> Any:
    """A model in evaluation mode with weights at which everything matters."""
    torch.manual_seed(0)
    return add_noise(model_class(tiny_whisper_config(**fields)), 0.3)


def features(rows: int = 2) -> Tensor:
    return torch.randn(rows, MELS, FRAMES, generator=torch.Generator().manual_seed(rows))


TOKENS = torch.tensor([[3, 4, 5, 6, 7], [3, 9, 9, 2, 2]])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (torch.zeros(1, MELS, FRAMES - 1), r"39 frames, .* exactly 40 \(0.4 s\); pad or cut"),
        (torch.zeros(1, MELS, FRAMES + 10), "50 frames, .* exactly 40"),
        (torch.zeros(1, FRAMES, MELS), r"input_features must be \[batch, 8, frames\], got \[1, 40, 8\]"),
        (torch.zeros(MELS, FRAMES), r"input_features must be \[batch, 8, frames\], got \[8, 40\]"),
    ],
)
def test_features_of_another_length_or_shape_are_refused_with_the_numbers(
    given: Tensor, problem: str
) -> None:
    model = build()
    for call in (model.get_encoder(), lambda one: model(one, decoder_input_ids=TOKENS[:1])):
        with pytest.raises(ValueError, match=problem):
            call(given)


def test_generate_pads_short_features_and_refuses_another_shape() -> None:
    model, short = build(), features()[:, :, : FRAMES - 9]
    padded = torch.nn.functional.pad(short, (0, 9))
    assert torch.equal(model.generate(short), model.generate(padded))
    with pytest.raises(ValueError, match=r"input_features must be \[batch, 8, frames\], got \[1, 40, 8\]"):
        model.generate(torch.zeros(1, FRAMES, MELS))


def test_packed_frames_of_another_number_are_refused() -> None:
    model = build()
    with pytest.raises(ValueError, match="41 frames, and this Whisper model reads exactly 40"):
        model.encode(torch.zeros(41, MELS), torch.tensor([0, 41]).int())
    with pytest.raises(ValueError, match="20 frames"):
        model.encoder_length(20)
    assert model.encoder_length(FRAMES) == 20


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"decoder_input_ids": TOKENS}, r"input_features is missing; give features \[batch, mels, frames\]"),
        ({"input_features": features()}, "decoder_input_ids"),
        (
            {"input_features": features(1), "labels": torch.full((1, 33), 4)},
            "33 decoder tokens, and the model has 32 positions",
        ),
        ({"input_features": features(), "labels": torch.tensor([[40], [3]])}, "labels|input_ids"),
    ],
)
def test_calls_that_lack_inputs_or_have_too_many_tokens_are_refused(given: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        build()(**given)


def test_sizes_are_those_of_the_generation_interface() -> None:
    model = build(decoder_layers=3)
    assert model.cache_shape == (3, 2, 12)
    assert model.max_length == WHISPER["max_target_positions"]
    assert [pair[0].shape for pair in model.cross_key_values(torch.randn(20, 24))] == [(20, 2, 12)] * 3


def test_key_projections_have_no_bias_and_the_encoders_positions_are_not_trained() -> None:
    model = build()
    biases = [name for name, _ in model.named_parameters() if name.endswith("k_proj.bias")]
    assert biases == []
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen == ["model.encoder.embed_positions.weight"]
    fresh = tritone.WhisperForConditionalGeneration(tiny_whisper_config())
    assert torch.equal(
        fresh.model.encoder.embed_positions.weight,
        WhisperEncoder(tiny_whisper_config()).embed_positions.weight,
    )
    model.freeze_encoder()
    assert not any(parameter.requires_grad for parameter in model.get_encoder().parameters())


def test_an_attention_mask_changes_nothing_in_evaluation() -> None:
    model = build(apply_spec_augment=True)
    mask = torch.ones(2, FRAMES).long()
    mask[:, 9:] = 0
    plain = model(features(), decoder_input_ids=TOKENS).logits
    assert torch.equal(model(features(), mask, decoder_input_ids=TOKENS).logits, plain)
    assert torch.equal(
        model.generate(features(), attention_mask=mask, max_length=9),
        model.generate(features(), max_length=9),
    )


def test_spec_augment_zeroes_spans_of_real_frames_and_of_mels_in_training_alone() -> None:
    fields = {"mask_time_prob": 0.3, "mask_time_length": 4, "mask_time_min_masks": 1}
    fields |= {"mask_feature_prob": 0.3, "mask_feature_length": 2, "mask_feature_min_masks": 1}
    model = build(tritone.WhisperModel, apply_spec_augment=True, **fields).train()
    given = torch.ones(2, MELS, FRAMES)
    mask = torch.zeros(2, FRAMES).long()
    mask[0], mask[1, :10] = 1, 1
    torch.manual_seed(1)
    masked = model._augmented(given, mask)
    assert (given == 1).all()
    frames, mels = (masked == 0).all(1), (masked == 0).all(2)
    assert frames[0].sum() >= 4
    assert frames[1, :10].sum() >= 4
    assert not frames[1, 10:].any()
    assert (mels.sum(1) >= 2).all()
    assert torch.equal(masked == 0, frames[:, None] | mels[:, :, None])
    assert model.eval()._augmented(given, mask) is given
    assert build(tritone.WhisperModel, **fields).train()._augmented(given, None) is given


def test_each_dropout_draws_in_training_alone() -> None:
    def run(model: Any) -> Tensor:
        torch.manual_seed(2)
        return model(features(), decoder_input_ids=TOKENS).logits.detach()

    assert_each_dropout_draws(build, run, ["dropout", "attention_dropout", "activation_dropout"])


def test_layer_drop_skips_some_layers_in_training_and_none_after() -> None:
    model = build(encoder_layerdrop=0.5, decoder_layerdrop=0.5)
    asked = {"output_hidden_states": True, "decoder_input_ids": TOKENS}
    assert len(model(features(), **asked).encoder_hidden_states) == 3
    model.train()
    ran = set()
    for seed in range(12):
        torch.manual_seed(seed)
        output = model(features(), **asked)
        ran.add((len(output.encoder_hidden_states), len(output.decoder_hidden_states)))
    assert len(ran) > 3


@pytest.mark.parametrize("fields", [{}, {"apply_spec_augment": True, "dropout": 0.1}], ids=str)
def test_a_model_learns_what_it_is_shown(fields: dict[str, Any]) -> None:
    model = build(**fields).train()
    torch.manual_seed(0)
    losses = train(model.parameters(), lambda: model(features(), labels=TOKENS).loss, steps=15, lr=0.01)
    assert losses[-1] < 0.5 * losses[0]
    assert model.proj_out.weight is model.get_input_embeddings().weight


def test_a_classifier_with_a_weighted_sum_learns_its_weights() -> None:
    model = build(tritone.WhisperForAudioClassification, use_weighted_layer_sum=True, num_labels=2).train()
    labels = torch.tensor([0, 1])
    losses = train(model.parameters(), lambda: model(features(), labels=labels).loss, steps=15, lr=0.01)
    assert losses[-1] < 0.5 * losses[0]
    assert model.layer_weights.std() > 0


def test_a_classifier_refuses_outputs_without_the_states_that_it_sums() -> None:
    model = build(tritone.WhisperForAudioClassification, use_weighted_layer_sum=True)
    with pytest.raises(
        ValueError, match=r"0 hidden states, and the weighted sum reads 3; .*output_hidden_states"
    ):
        model(encoder_outputs=model.encoder(features()))
    with pytest.raises(ValueError, match="input_features are missing"):
        model()
    with pytest.raises(ValueError, match="num_labels is 0"):
        tritone.WhisperForAudioClassification(tiny_whisper_config(num_labels=0))


def test_a_mixture_repeats_the_state_of_a_skipped_layer_and_replaces_the_last() -> None:
    kept: list[Tensor] = []
    mixture = LayerMixture(torch.tensor([1.0, 10.0, 100.0]), kept)
    mixture.append(torch.tensor(1.0))
    mixture.skip()
    mixture.append(torch.tensor(2.0))
    mixture.replace_last(torch.tensor(3.0))
    assert mixture.total() == 1 + 10 + 300
    assert kept == [1.0, 3.0]


def test_the_vocabulary_grows_with_the_head() -> None:
    model = build()
    model.resize_token_embeddings(47)
    assert (model.proj_out.out_features, model.config.vocab_size) == (47, 47)
    assert model(features(), decoder_input_ids=torch.full((2, 1), 46)).logits.shape == (2, 1, 47)


def test_the_default_sizes_are_those_of_tiny_with_the_published_number_of_parameters() -> None:
    model = tritone.WhisperForConditionalGeneration(tritone.WhisperConfig())
    assert model.num_parameters() / 1e6 == pytest.approx(37.8, abs=0.05)  # 39 M as OpenAI counts
    assert model.encoder_length(3000) == 1500
    assert model.max_length == 448


@torch.inference_mode()
def test_on_kernels_too_encoder_and_logits_are_those_of_the_cpu_in_any_batch(kernels_on: str) -> None:
    model = seeded(
        tritone.WhisperForConditionalGeneration, tiny_whisper_config(encoder_layers=1, decoder_layers=1)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRITON_INTERPRET", raising=False)
        wanted = model(features(), decoder_input_ids=TOKENS)
        tokens = model.generate(features(), max_length=4)
    model.to(kernels_on)
    given = features().to(kernels_on), TOKENS.to(kernels_on)
    found = model(given[0], decoder_input_ids=given[1])
    for name in ("logits", "encoder_last_hidden_state"):
        torch.testing.assert_close(found[name].cpu(), wanted[name], rtol=1e-4, atol=1e-4)
        for row in range(2):
            alone = model(given[0][row : row + 1], decoder_input_ids=given[1][row : row + 1])
            assert torch.equal(found[name][row], alone[name][0])
    assert model.generate(given[0], max_length=4).tolist() == tokens.tolist()
