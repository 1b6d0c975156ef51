"""Speech2Text's forward surface: losses, gradients and attention weights against transformers, and errors."""

import pytest
import torch
from torch import Tensor
from transformers import Speech2TextConfig as TheirConfig
from transformers import Speech2TextForConditionalGeneration as TheirModel

from tritone.models.core.outputs import BaseModelOutput
from tritone.models.speech_to_text.config import Speech2TextConfig
from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration, Speech2TextModel

SMALL = {
    "vocab_size": 41,
    "d_model": 36,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 50,
    "decoder_ffn_dim": 44,
    "conv_channels": 24,
    "max_source_positions": 60,
    "max_target_positions": 30,
    "input_feat_per_channel": 7,
    "dropout": 0.0,
}
VARIANTS = {
    "small": {},
    "one convolution, gelu, no scaling": {
        "num_conv_layers": 1,
        "conv_kernel_sizes": [3],
        "activation_function": "gelu",
        "scale_embedding": False,
    },
    "three convolutions, untied, other special tokens": {
        "num_conv_layers": 3,
        "conv_kernel_sizes": [5, 3, 3],
        "tie_word_embeddings": False,
        "pad_token_id": 3,
        "eos_token_id": 0,
        "decoder_start_token_id": 4,
        "bos_token_id": 5,
    },
    "odd widths": {"d_model": 30, "encoder_attention_heads": 5, "encoder_layers": 1, "conv_channels": 10},
}


def pair(variant: str, folder) -> tuple[Speech2TextForConditionalGeneration, TheirModel]:
    torch.manual_seed(0)
    theirs = TheirModel(TheirConfig(**{**SMALL, **VARIANTS[variant]})).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)  # fresh weights are so small that outputs hardly vary
    theirs.save_pretrained(folder)
    theirs.set_attn_implementation("eager")
    return Speech2TextForConditionalGeneration.from_pretrained(folder), theirs


@pytest.fixture(scope="module", params=VARIANTS)
def models(request, tmp_path_factory):
    return pair(request.param, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Speech2TextForConditionalGeneration:
    return pair("small", tmp_path_factory.mktemp("checkpoint"))[0]


def features(*shape: int) -> Tensor:
    return torch.randn(*shape, 7, generator=torch.Generator().manual_seed(sum(shape)))


LABELS = torch.tensor([[7, 9, 40, -100, 12, 2, -100, -100]])


def test_loss_and_logits_equal_transformers_with_labels_left_out(models):
    ours, theirs = models
    inputs = features(1, 53)
    mine, yours = ours(inputs, labels=LABELS), theirs(inputs, labels=LABELS)
    torch.testing.assert_close(mine.logits, yours.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mine.loss, yours.loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        mine.encoder_last_hidden_state, yours.encoder_last_hidden_state, rtol=1e-4, atol=1e-4
    )
    assert float(mine.logits.detach().std()) > 0.1, "the outputs vary"


def test_gradients_equal_transformers(models):
    ours, theirs = models
    inputs = features(1, 53)
    for model in models:
        model.train()
        model.zero_grad()
        model(inputs, labels=LABELS).loss.backward()
        model.eval()
    yours = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    mine = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert mine.keys() == yours.keys()
    for name, gradient in yours.items():
        assert mine[name] is not None, name
        torch.testing.assert_close(
            mine[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}"
        )
    assert sum(float(gradient.norm()) > 0 for gradient in yours.values()) > len(yours) // 2


def test_attention_weights_equal_transformers(models):
    ours, theirs = models
    inputs, tokens = features(1, 41), torch.tensor([[2, 9, 8, 40, 6]])
    with torch.no_grad():
        mine = ours(inputs, decoder_input_ids=tokens, output_attentions=True)
        yours = theirs(inputs, decoder_input_ids=tokens, output_attentions=True)
    for name in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        assert len(mine[name]) == len(yours[name])
        for one, other in zip(mine[name], yours[name], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        plain = ours(inputs, decoder_input_ids=tokens)
    assert plain.cross_attentions is plain.encoder_attentions is plain.decoder_attentions is None
    assert torch.equal(plain.logits, mine.logits)


def test_padding_tokens_in_the_decoder_have_the_positions_of_transformers(models):
    ours, _theirs = models
    pad = ours.config.pad_token_id
    inputs, tokens = features(1, 30), torch.tensor([[2, 9, pad, 8, pad, pad, 6]])
    mine, yours = (model(inputs, decoder_input_ids=tokens).logits for model in models)
    torch.testing.assert_close(mine, yours, rtol=1e-4, atol=1e-4)


def padded_batch() -> tuple[Tensor, Tensor, list[int]]:
    lengths = [1, 37, 5, 64, 16]
    batch = torch.full((5, 64, 7), float("nan"))
    mask = torch.zeros(5, 64, dtype=torch.int64)
    for row, length in enumerate(lengths):
        batch[row, :length] = features(1, length)[0]
        mask[row, :length] = 1
    return batch, mask, lengths


def test_a_row_of_a_padded_batch_equals_the_row_alone_to_the_bit(models):
    ours, _ = models
    batch, mask, lengths = padded_batch()
    tokens = torch.randint(6, 41, (5, 9), generator=torch.Generator().manual_seed(3))
    tokens[:, 0] = ours.config.decoder_start_token_id
    with torch.no_grad():
        out = ours(batch, mask, tokens, output_attentions=True)
        for row, length in enumerate(lengths):
            alone = ours(batch[row : row + 1, :length], None, tokens[row : row + 1], output_attentions=True)
            source = alone.encoder_last_hidden_state.shape[1]
            assert torch.equal(out.logits[row], alone.logits[0])
            assert torch.equal(
                out.encoder_last_hidden_state[row, :source], alone.encoder_last_hidden_state[0]
            )
            assert not out.encoder_last_hidden_state[row, source:].any()
            assert torch.equal(out.cross_attentions[-1][row, :, :, :source], alone.cross_attentions[-1][0])
            assert not out.cross_attentions[-1][row, :, :, source:].any()


def test_tokens_behind_a_decoder_mask_change_nothing_before_them(model):
    inputs, tokens = features(2, 20), torch.tensor([[2, 9, 8, 40], [2, 9, 8, 40]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    whole = model(inputs, decoder_input_ids=tokens).logits
    masked = model(inputs, decoder_input_ids=tokens, decoder_attention_mask=mask).logits
    assert torch.equal(masked[0], whole[0])
    torch.testing.assert_close(masked[1, :2], whole[1, :2])


def test_an_encoders_output_is_used_again_instead_of_running_it(model):
    batch, mask, _ = padded_batch()
    tokens = torch.tensor([[2, 9, 8]] * 5)
    with torch.no_grad():
        first = model(batch, mask, tokens)
        for again in (
            BaseModelOutput(first.encoder_last_hidden_state),
            (first.encoder_last_hidden_state,),
        ):
            out = model(None, mask, tokens, encoder_outputs=again)
            assert torch.equal(out.logits, first.logits)
            assert torch.equal(out.encoder_last_hidden_state, first.encoder_last_hidden_state)
        one = features(1, 20)
        unmasked = model(one, decoder_input_ids=tokens[:1])
        again = model(encoder_outputs=(unmasked.encoder_last_hidden_state,), decoder_input_ids=tokens[:1])
        assert torch.equal(again.logits, unmasked.logits)
        changed = model(
            encoder_outputs=(unmasked.encoder_last_hidden_state + 1.0,), decoder_input_ids=tokens[:1]
        )
        assert not torch.allclose(changed.logits, unmasked.logits)


def test_labels_without_decoder_tokens_are_read_shifted_right(model):
    inputs = features(1, 20)
    shifted = torch.tensor([[2, 7, 9, 40, 1, 12, 2, 1]])  # -100 becomes the padding token
    assert torch.equal(model(inputs, labels=LABELS).logits, model(inputs, decoder_input_ids=shifted).logits)
    both = model(inputs, decoder_input_ids=shifted.flip(1), labels=LABELS)
    assert torch.equal(both.logits, model(inputs, decoder_input_ids=shifted.flip(1)).logits)


def test_outputs_go_by_name_by_index_and_as_a_tuple(model):
    inputs, tokens = features(1, 20), torch.tensor([[2, 9]])
    out = model(inputs, decoder_input_ids=tokens, use_cache=False)
    assert out.keys() == ["logits", "encoder_last_hidden_state"]
    assert list(out) == out.keys()
    assert len(out) == 2
    assert out[0] is out["logits"] is out.logits
    assert out.loss is None
    plain = model(inputs, decoder_input_ids=tokens, return_dict=False)
    assert isinstance(plain, tuple)
    assert torch.equal(plain[0], out.logits)
    assert model(inputs, labels=tokens)[0].dim() == 0, "the loss comes first where there is one"


DROPOUTS = ["dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop"]


@pytest.mark.parametrize("kind", DROPOUTS)
def test_what_is_dropped_is_dropped_in_training_alone(kind):
    torch.manual_seed(0)
    config = Speech2TextConfig(**{**SMALL, "init_std": 0.1, kind: 0.5})
    model = Speech2TextForConditionalGeneration(config).eval()
    inputs, tokens = features(1, 40), torch.tensor([[2, 9, 8, 7]])
    first = model(inputs, decoder_input_ids=tokens).logits
    assert torch.equal(model(inputs, decoder_input_ids=tokens).logits, first)
    model.train()
    draws = [model(inputs, decoder_input_ids=tokens).logits for _ in range(6)]
    assert any(not torch.equal(draw, draws[0]) for draw in draws), "no two draws are alike"
    draws[0].sum().backward()
    model.eval()
    assert torch.equal(model(inputs, decoder_input_ids=tokens).logits, first)


def test_a_training_step_lowers_the_loss():
    torch.manual_seed(0)
    model = Speech2TextForConditionalGeneration(Speech2TextConfig(**SMALL)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batch, mask, _ = padded_batch()
    labels = torch.randint(6, 41, (5, 6))
    losses = []
    for _ in range(15):
        loss = model(batch.nan_to_num(), mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_stays_near_single(model, dtype):
    half = Speech2TextForConditionalGeneration(model.config).eval()
    half.load_state_dict(model.state_dict())
    half.to(dtype)
    inputs, tokens = features(1, 40), torch.tensor([[2, 9, 8, 7]])
    with torch.no_grad():
        out, wanted = half(inputs, decoder_input_ids=tokens), model(inputs, decoder_input_ids=tokens)
    assert out.logits.dtype == dtype
    error = (out.logits.float() - wanted.logits).norm() / wanted.logits.norm()
    assert float(error) < (2e-2 if dtype == torch.float16 else 1e-1)


def test_greedy_decoding_over_pages_takes_the_tokens_that_teacher_forcing_likes_best(models):
    ours, _ = models
    batch, mask, _lengths = padded_batch()
    found = ours.generate(batch.nan_to_num(), attention_mask=mask, max_length=20, eos_token_id=-1)
    assert found.shape == (5, 20)
    with torch.no_grad():
        logits = ours(batch, mask, found).logits
    assert torch.equal(logits[:, :-1].argmax(-1), found[:, 1:])


def test_the_bare_model_gives_the_hidden_states_that_the_logits_are_made_of(model):
    inputs, tokens = features(1, 20), torch.tensor([[2, 9]])
    inner = model.model(inputs, decoder_input_ids=tokens)
    assert isinstance(model.model, Speech2TextModel)
    assert inner.last_hidden_state.shape == (1, 2, 36)
    torch.testing.assert_close(model.lm_head(inner.last_hidden_state), model(inputs, None, tokens).logits)


def test_encoder_lengths_are_those_that_the_encoder_gives(models):
    ours, theirs = models
    for frames in range(1, 60):
        wanted = int(theirs.model._get_feat_extract_output_lengths(torch.tensor(frames)))
        assert ours.encoder_length(frames) == wanted
        if frames in (1, 2, 31, 59):
            encoded, cu = ours.encode(features(frames), torch.tensor([0, frames], dtype=torch.int32))
            assert len(encoded) == int(cu[1]) == wanted


def test_a_recording_longer_than_the_encoders_positions_is_refused_with_the_limit_in_seconds(model):
    assert model.encoder_length(240) == 60
    for call in (
        lambda: model.encoder_length(241),
        lambda: model(features(1, 241), decoder_input_ids=torch.tensor([[2]])),
        lambda: model.generate(features(1, 241)),
    ):
        with pytest.raises(
            ValueError, match=r"241 frames are 61 encoder positions, and the model has 60 \(about 2 s\)"
        ):
            call()


def test_more_tokens_than_the_decoder_has_positions_are_refused(model):
    tokens = torch.full((1, 30), 9)
    assert model(features(1, 9), decoder_input_ids=tokens).logits.shape == (1, 30, 41)
    with pytest.raises(ValueError, match="31 decoder tokens, and the model has 30 positions; give fewer"):
        model(features(1, 9), decoder_input_ids=torch.full((1, 31), 9))


TOKENS = torch.tensor([[2, 9]])
WRONG = [
    ({"input_features": features(1, 9)}, "give the decoder either decoder_input_ids"),
    ({"decoder_input_ids": TOKENS}, "input_features is missing; give features .* or encoder_outputs"),
    (
        {"input_features": features(9), "decoder_input_ids": TOKENS},
        r"input_features must be \[batch, frames, features\], got \[9, 7\]",
    ),
    (
        {"input_features": torch.zeros(1, 9, 8), "decoder_input_ids": TOKENS},
        "takes frames of 7 channels .*, got 8 channels",
    ),
    (
        {"input_features": features(1, 9), "attention_mask": torch.ones(1, 8), "decoder_input_ids": TOKENS},
        r"attention_mask is \[1, 8\], input_features \[1, 9, 7\]",
    ),
    (
        {
            "input_features": features(2, 9),
            "attention_mask": torch.eye(2, 9) * 0,
            "decoder_input_ids": TOKENS,
        },
        "attention_mask has a row without frames",
    ),
    ({"input_features": torch.zeros(1, 0, 7), "decoder_input_ids": TOKENS}, "a row without frames"),
    ({"input_features": torch.zeros(0, 9, 7), "decoder_input_ids": TOKENS}, "a row without frames"),
    ({"input_features": features(2, 9), "decoder_input_ids": TOKENS}, "given 1 rows, and .* output has 2"),
    ({"input_features": features(1, 9), "decoder_input_ids": TOKENS[0]}, "decoder_input_ids must be"),
    (
        {"input_features": features(1, 9), "decoder_input_ids": TOKENS + 32},
        "decoder_input_ids go from 34 to 41, and the model knows tokens 0 to 40",
    ),
    ({"input_features": features(1, 9), "labels": TOKENS[0]}, "labels must be"),
    (
        {"input_features": features(1, 9), "decoder_input_ids": TOKENS, "labels": TOKENS[:, :1]},
        r"labels \[1, 1\] do not fit decoder inputs \[1, 2\]",
    ),
    (
        {
            "input_features": features(1, 9),
            "decoder_input_ids": TOKENS,
            "decoder_attention_mask": torch.ones(1, 3),
        },
        r"decoder_attention_mask must be \[1, 2\], got \[1, 3\]",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "problem"), WRONG, ids=lambda value: value if isinstance(value, str) else ""
)
def test_inputs_that_are_missing_or_do_not_fit_are_refused(arguments, problem, model):
    with pytest.raises(ValueError, match=problem):
        model(**arguments)


def test_generate_without_features_is_refused(model):
    with pytest.raises(ValueError, match="give the features to decode"):
        model.generate()
