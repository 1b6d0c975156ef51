"""BART's, MBart's and Speech2Text2's decoders: configurations, checkpoints' names, and training."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tritone.models.auto import AutoConfig
from tritone.models.bart.config import BartConfig
from tritone.models.bart.model import BartForCausalLM
from tritone.models.mbart.config import MBartConfig
from tritone.models.mbart.model import MBartForCausalLM
from tritone.models.registry import families_with, family_of_config
from tritone.models.speech_to_text_2.config import Speech2Text2Config
from tritone.models.speech_to_text_2.model import Speech2Text2ForCausalLM

MODELS: dict[Any, Any] = {
    BartConfig: BartForCausalLM,
    MBartConfig: MBartForCausalLM,
    Speech2Text2Config: Speech2Text2ForCausalLM,
}
SIZES = {
    "vocab_size": 29,
    "d_model": 24,
    "decoder_layers": 3,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 20,
    "dropout": 0.0,
}
TOKENS = torch.tensor([[2, 7, 11, 1, 5, 9]])
ENCODED = torch.randn(1, 4, 24, generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=list(MODELS))
def config_class(request: pytest.FixtureRequest) -> Any:
    return request.param


def build(config_class: Any, **fields: Any) -> Any:
    """A model in evaluation mode with weights at which everything matters; no dropout unless asked for."""
    torch.manual_seed(0)
    model = MODELS[config_class](config_class(**{**SIZES, **fields}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def test_each_family_is_a_text_decoder_by_its_model_type(config_class: Any, tmp_path: Path) -> None:
    config = config_class(**SIZES)
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path) == config
    family = family_of_config(config, families_with("text_decoder"), "this test")
    assert family.load("text_decoder") is MODELS[config_class]


def test_names_are_a_checkpoints() -> None:
    names = {config: set(build(config, decoder_layers=1).state_dict()) for config in MODELS}
    layer = {
        f"model.decoder.layers.0.{part}.{kind}"
        for part in (
            *(f"{which}.{name}_proj" for which in ("self_attn", "encoder_attn") for name in "qkv"),
            *(f"{which}.out_proj" for which in ("self_attn", "encoder_attn")),
            *("self_attn_layer_norm", "encoder_attn_layer_norm", "fc1", "fc2", "final_layer_norm"),
        )
        for kind in ("weight", "bias")
    }
    tables = {"model.decoder.embed_tokens.weight", "lm_head.weight"}
    assert names[Speech2Text2Config] == layer | tables
    tables |= {"model.decoder.embed_positions.weight"}
    tables |= {f"model.decoder.layernorm_embedding.{kind}" for kind in ("weight", "bias")}
    assert names[BartConfig] == layer | tables
    tables |= {f"model.decoder.layer_norm.{kind}" for kind in ("weight", "bias")}
    assert names[MBartConfig] == layer | tables


def test_the_generation_contract_tells_sizes_and_the_longest_sequence(config_class: Any) -> None:
    limit = "max_target_positions" if config_class is Speech2Text2Config else "max_position_embeddings"
    model = build(config_class, **{limit: 17})
    assert model.cache_shape == (3, 2, 12)
    assert model.max_length == 17
    pairs = model.cross_key_values(ENCODED[0])
    assert [tensor.shape for pair in pairs for tensor in pair] == [(4, 2, 12)] * 6
    model(torch.full((1, 17), 4))
    with pytest.raises(ValueError, match="18 decoder tokens, and the model has 17 positions; give fewer"):
        model(torch.full((1, 18), 4))


def test_a_decoder_says_in_its_configuration_that_it_is_one(config_class: Any) -> None:
    config = config_class(**SIZES)
    model = MODELS[config_class].from_config(config)
    assert (model.config.is_decoder, model.config.is_encoder_decoder) == (True, False)
    assert model.config.hidden_size == 24
    assert model.training


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"decoder_attention_heads": 5}, "decoder_attention_heads 5 must divide d_model 24"),
        ({"decoder_attention_heads": 0}, "decoder_attention_heads 0 must divide d_model 24"),
        ({"activation_function": "quick"}, "activation_function 'quick' is not supported; one of gelu"),
        ({"cross_attention_hidden_size": 48}, "cross_attention_hidden_size is 48, .* decoder of width 24"),
    ],
)
def test_configurations_that_make_no_model_are_refused(
    config_class: Any, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        config_class(**{**SIZES, **fields})


def test_a_checkpoint_of_the_other_family_is_refused(tmp_path: Path) -> None:
    build(BartConfig).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a 'bart' model, not 'mbart'"):
        MBartForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"config is a MBartConfig .* give a BartConfig"):
        BartForCausalLM.from_config(MBartConfig(**SIZES))


def test_heads_are_tied_to_the_embedding_unless_the_configuration_says_no(config_class: Any) -> None:
    tied, untied = build(config_class), build(config_class, tie_word_embeddings=False)
    assert tied.lm_head.weight is tied.get_input_embeddings().weight
    assert untied.lm_head.weight is not untied.get_input_embeddings().weight
    resized = tied.resize_token_embeddings(40)
    assert tied(torch.tensor([[39]])).logits.shape == (1, 1, 40)
    assert tied.lm_head.weight is resized.weight
    other = torch.nn.Embedding(40, 24)
    tied.set_input_embeddings(other)
    tied.tie_weights()
    assert tied.get_output_embeddings().weight is other.weight
    tied.set_output_embeddings(untied.lm_head)
    assert torch.equal(tied(TOKENS).logits, untied.lm_head(tied.get_decoder()(TOKENS)[0]))


def test_labels_are_compared_with_the_logits_of_their_own_place(config_class: Any) -> None:
    model = build(config_class)
    output = model(TOKENS, encoder_hidden_states=ENCODED, labels=TOKENS.clamp(min=3))
    wanted = torch.nn.functional.cross_entropy(output.logits[0], TOKENS[0].clamp(min=3))
    torch.testing.assert_close(output.loss, wanted)
    some = TOKENS.clone()
    some[0, 2:] = -100
    loss = model(TOKENS, encoder_hidden_states=ENCODED, labels=some).loss
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(output.logits[0, :2], TOKENS[0, :2]))


@pytest.mark.parametrize("kind", ["dropout", "attention_dropout", "activation_dropout"])
def test_each_dropout_draws_in_training_alone_and_as_the_seed_says(config_class: Any, kind: str) -> None:
    model = build(config_class, **{kind: 0.4})

    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return model(TOKENS, encoder_hidden_states=ENCODED).logits[:, -1].detach()

    plain = draw(0)
    assert torch.equal(draw(1), plain)
    model.train()
    assert torch.equal(draw(3), draw(3))
    drawn = torch.stack([draw(seed) for seed in range(24)])
    assert (drawn.std(0) > 0.03).all()
    assert (drawn.mean(0) - plain).abs().mean() < drawn.std(0).mean()


def test_layer_drop_skips_some_layers_in_training_and_none_after(config_class: Any) -> None:
    model = build(config_class, decoder_layerdrop=0.5)
    asked = {"encoder_hidden_states": ENCODED, "output_attentions": True, "output_hidden_states": True}
    assert len(model(TOKENS, **asked).attentions) == 3
    model.train()
    ran = set()
    for seed in range(12):
        torch.manual_seed(seed)
        output = model(TOKENS, **asked)
        ran.add(len(output.attentions))
        assert len(output.cross_attentions) == len(output.attentions) == len(output.hidden_states) - 1
        assert (output.past_key_values is None) == (len(output.attentions) < 3)
    assert len(ran) > 2


def test_a_model_learns_what_it_is_shown(config_class: Any) -> None:
    model = build(config_class, dropout=0.1, attention_dropout=0.1, activation_dropout=0.1).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    labels = torch.tensor([[7, 11, 4, 5, 9, -100]])
    torch.manual_seed(0)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = model(TOKENS, encoder_hidden_states=ENCODED, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_the_padding_token_learns_nothing_from_being_read(config_class: Any) -> None:
    model = build(config_class, tie_word_embeddings=False)
    model(TOKENS, encoder_hidden_states=ENCODED).logits.square().sum().backward()
    gradient = model.get_input_embeddings().weight.grad
    assert not gradient[1].any()
    assert gradient[5].any()
