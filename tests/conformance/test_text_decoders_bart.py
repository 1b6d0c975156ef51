"""BART's and MBart's decoders against transformers."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import STATES, assert_close, pad_rows
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

import tritone
from tritone.models.core.past_key_values import KeyValues

# At least as many encoder layers as decoder layers: transformers counts its cache's layers by those.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bart-odd": (
        "Bart",
        {
            "vocab_size": 41,
            "max_position_embeddings": 13,
            "d_model": 21,
            "encoder_layers": 3,
            "decoder_layers": 3,
            "encoder_attention_heads": 1,
            "decoder_attention_heads": 3,
            "encoder_ffn_dim": 5,
            "decoder_ffn_dim": 19,
        },
    ),
    "bart-scaled-untied": (
        "Bart",
        {
            "vocab_size": 30,
            "max_position_embeddings": 33,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 8,
            "encoder_ffn_dim": 7,
            "decoder_ffn_dim": 48,
            "scale_embedding": True,
            "activation_function": "relu",
            "pad_token_id": 0,
            "bos_token_id": 1,
            "tie_word_embeddings": False,
        },
    ),
    "mbart-odd": (
        "MBart",
        {
            "vocab_size": 37,
            "max_position_embeddings": 11,
            "d_model": 15,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 3,
            "decoder_attention_heads": 5,
            "encoder_ffn_dim": 6,
            "decoder_ffn_dim": 23,
            "scale_embedding": True,
        },
    ),
    "mbart-untied": (
        "MBart",
        {
            "vocab_size": 53,
            "max_position_embeddings": 20,
            "d_model": 28,
            "encoder_layers": 4,
            "decoder_layers": 4,
            "encoder_attention_heads": 1,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 4,
            "decoder_ffn_dim": 9,
            "activation_function": "gelu_new",
            "tie_word_embeddings": False,
        },
    ),
}
ONE_EACH = pytest.mark.parametrize("both", ["bart-odd", "mbart-odd"], indirect=True)


@dataclass(frozen=True)
class Both:
    """One decoder in both libraries, from the checkpoint that transformers wrote."""

    family: str
    fields: dict[str, Any]
    folder: Path
    theirs: Any
    ours: Any

    def load(self, **fields: Any) -> tuple[Any, Any]:
        """Ours and theirs anew, with fields of the configuration replaced."""
        return _ours(self.family).from_pretrained(self.folder, **fields), _theirs(self.family)(
            self.folder, **fields
        )

    def encoded(self, tokens: int = 6) -> Tensor:
        """Encoder output [1, tokens, width], different for each number of tokens."""
        draw = torch.Generator().manual_seed(tokens)
        return torch.randn(1, tokens, self.ours.config.d_model, generator=draw)

    def tokens(self, length: int = 9) -> Tensor:
        """int64 [1, length], the padding token among them."""
        tokens = torch.randint(3, self.ours.config.vocab_size, (1, length))
        tokens[0, min(4, length - 1)] = self.ours.config.pad_token_id
        return tokens


def _ours(family: str) -> Any:
    return getattr(tritone, f"{family}ForCausalLM")


def _theirs(family: str) -> Callable[..., Any]:
    loaded = getattr(transformers, f"{family}ForCausalLM").from_pretrained
    return lambda folder, **fields: loaded(folder, attn_implementation="eager", **fields).eval()


def draw_weights(model: Any) -> None:
    """Weights at which outputs vary with everything that goes in, norms and biases too."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter + 0.4 * torch.randn_like(parameter))


@pytest.fixture(scope="module")
def both_of(tmp_path_factory: pytest.TempPathFactory, _quiet: None) -> Callable[[str], Both]:
    """Both libraries' decoder of a configuration, made once. Leave them as they are."""
    made: dict[str, Both] = {}

    def both(name: str) -> Both:
        if name not in made:
            family, fields = CONFIGS[name]
            folder = tmp_path_factory.mktemp(name)
            model = getattr(transformers, f"{family}ForCausalLM")(
                getattr(transformers, f"{family}Config")(**fields)
            )
            draw_weights(model)
            model.save_pretrained(folder)
            ours = _ours(family).from_pretrained(folder)
            made[name] = Both(family, fields, folder, _theirs(family)(folder), ours)
        return made[name]

    return both


@pytest.fixture(params=list(CONFIGS))
def both(request: pytest.FixtureRequest, both_of: Callable[[str], Both]) -> Both:
    torch.manual_seed(1)
    return both_of(request.param)


EVERYTHING = STATES | {"use_cache": True}


@torch.inference_mode()
def test_every_field_agrees_by_name_and_as_a_tuple(both: Both) -> None:
    tokens = both.tokens()
    labels = tokens.clone()
    labels[0, 2] = -100
    given = {
        "input_ids": tokens,
        "encoder_hidden_states": both.encoded(),
        "encoder_attention_mask": torch.tensor([[1, 1, 0, 1, 1, 0]]),
        "labels": labels,
        **EVERYTHING,
    }
    wanted, output = both.theirs(**given), both.ours(**given)
    assert output.keys() == list(wanted.keys())
    assert len(output.hidden_states) == both.ours.config.decoder_layers + 1
    for name in set(wanted) - {"past_key_values", "cross_attentions"}:
        assert_close(output[name], wanted[name])
    # Ours are zero where there is no encoder token.
    there = [0, 1, 3, 4]
    assert_close(
        [weights[..., there] for weights in output.cross_attentions],
        [weights[..., there] for weights in wanted.cross_attentions],
    )
    assert not any(weights[..., [2, 5]].any() for weights in output.cross_attentions)
    del given["encoder_attention_mask"]
    wanted = both.theirs(**given, return_dict=False)
    output = both.ours(**given, return_dict=False)
    assert type(output) is tuple
    assert_close(output, wanted)
    decoded = both.ours.get_decoder()(tokens, encoder_hidden_states=both.encoded())
    wanted = both.theirs.model.decoder(tokens, encoder_hidden_states=both.encoded())
    assert_close(decoded.last_hidden_state, wanted.last_hidden_state)


@torch.inference_mode()
def test_without_an_encoder_cross_attention_is_left_out(both: Both) -> None:
    tokens = both.tokens()
    wanted, output = both.theirs(tokens, **EVERYTHING), both.ours(tokens, **EVERYTHING)
    assert output.keys() == list(wanted.keys())
    for name in wanted:
        assert_close(output[name], wanted[name])
    beside = both.ours(tokens, encoder_hidden_states=both.encoded()).logits
    assert (beside - output.logits).abs().max() > 0.1
    past = both.ours(tokens[:, :5]).past_key_values
    assert_close(both.ours(tokens[:, 5:], past_key_values=past).logits, wanted.logits[:, 5:])
    extended = DynamicCache()
    for part in (tokens[:, :5], tokens[:, 5:]):
        output = both.ours(part, past_key_values=extended)
    assert output.past_key_values is extended
    assert_close(output.logits, wanted.logits[:, 5:])
    assert_close(KeyValues((layer.keys, layer.values) for layer in extended.layers), wanted.past_key_values)


@torch.inference_mode()
def test_decoding_token_by_token_agrees_however_the_past_is_carried(both: Both) -> None:
    tokens, encoded = both.tokens(), both.encoded()
    whole = both.ours(tokens, encoder_hidden_states=encoded).logits
    theirs = EncoderDecoderCache(DynamicCache(), DynamicCache())
    own, cross = DynamicCache(config=both.theirs.config), DynamicCache(config=both.theirs.config)
    extended = EncoderDecoderCache(own, cross)
    past = None
    for start, end in ((0, 1), (1, 2), (2, 6), (6, 9)):
        piece = tokens[:, start:end]
        wanted = both.theirs(piece, encoder_hidden_states=encoded, past_key_values=theirs)
        output = both.ours(piece, encoder_hidden_states=encoded, past_key_values=past, output_attentions=True)
        assert_close(output.logits, wanted.logits)
        assert_close(output.logits, whole[:, start:end])
        assert_close(output.past_key_values, theirs)
        assert output.attentions[0].shape[2:] == (end - start, end)
        assert output.past_key_values.get_seq_length() == end
        # With the encoder's keys in the past its output need not be given again.
        given = {"encoder_hidden_states": encoded} if start == 0 else {}
        mine = both.ours(piece, past_key_values=extended, use_cache=False, **given)
        assert mine.past_key_values is extended
        assert torch.equal(mine.logits, output.logits)
        past = tuple(tuple(layer) for layer in output.past_key_values)
    assert_close(KeyValues(past), extended)


@torch.inference_mode()
def test_embeddings_stand_for_the_tokens_that_they_are_of(both: Both) -> None:
    tokens, encoded = both.tokens(), both.encoded()
    config = both.ours.config
    scale = config.d_model**0.5 if config.scale_embedding else 1.0
    embeds = both.ours.get_input_embeddings()(tokens) * scale
    given = {"encoder_hidden_states": encoded, "labels": tokens}
    wanted = both.theirs(inputs_embeds=embeds, **given)
    output = both.ours(inputs_embeds=embeds, **given)
    assert_close((output.loss, output.logits), (wanted.loss, wanted.logits))
    assert_close(output.logits, both.ours(tokens, **given).logits)
    assert torch.equal(
        both.ours(inputs_embeds=embeds, encoder_hidden_states=encoded, logits_to_keep=2).logits,
        output.logits[:, -2:],
    )


@pytest.mark.parametrize("side", ["right", "left"])
@torch.inference_mode()
def test_each_row_of_a_padded_batch_agrees_with_the_row_alone(both: Both, side: str) -> None:
    lengths, sources = (4, 9, 1, 6), (3, 8, 5, 1)
    rows = [both.tokens(length) for length in lengths]
    ids, mask = pad_rows([tokens[0] for tokens in rows], 2, side)
    # Padding that is not a number shows where it is read.
    encoded, source_mask = pad_rows([both.encoded(source)[0] for source in sources], float("nan"), "right")
    output = both.ours(ids, mask, encoded, source_mask, **EVERYTHING)
    for row, (tokens, source) in enumerate(zip(rows, sources, strict=True)):
        wanted = both.theirs(tokens, encoder_hidden_states=both.encoded(source), **EVERYTHING)
        there = mask[row].bool()
        assert_close(output.logits[row, there], wanted.logits[0])
        assert_close(
            [state[row, there] for state in output.hidden_states], [one[0] for one in wanted.hidden_states]
        )
        own, cross = output.attentions, output.cross_attentions
        assert_close([one[row][:, there][:, :, there] for one in own], [one[0] for one in wanted.attentions])
        assert_close(
            [one[row][:, there, :source] for one in cross], [one[0] for one in wanted.cross_attentions]
        )
        cached = wanted.past_key_values
        if side == "right" and tokens.shape[1] < 9:
            token = torch.tensor([[5]])
            wanted = both.theirs(token, encoder_hidden_states=both.encoded(source), past_key_values=cached)
            ahead = both.ours(
                token.expand(4, 1),
                torch.cat([mask, torch.ones(4, 1)], dim=1),
                encoder_attention_mask=source_mask,
                past_key_values=output.past_key_values,
            )
            assert_close(ahead.logits[row], wanted.logits[0])


def test_losses_and_every_gradient_agree_in_training_without_dropout(both: Both) -> None:
    ours, theirs = both.load(dropout=0.0)
    tokens = both.tokens()
    labels = tokens.clone()
    labels[0, 6] = -100
    leaves = [both.encoded().requires_grad_() for _ in range(2)]
    losses = [
        model.train()(tokens, encoder_hidden_states=leaf, labels=labels).loss
        for model, leaf in zip((ours, theirs), leaves, strict=True)
    ]
    assert_close(*losses)
    for loss in losses:
        loss.backward()
    assert_close(leaves[0].grad, leaves[1].grad)
    wanted = dict(theirs.named_parameters())
    assert wanted.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad,
            wanted[name].grad,
            rtol=1e-3,
            atol=1e-4,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@ONE_EACH
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_new", "gelu_fast", "silu", "swish", "tanh"])
@torch.inference_mode()
def test_each_activation_agrees(both: Both, activation: str) -> None:
    ours, theirs = both.load(activation_function=activation)
    given = {"input_ids": both.tokens(), "encoder_hidden_states": both.encoded()}
    assert_close(ours(**given).logits, theirs(**given).logits)


@ONE_EACH
@torch.inference_mode()
def test_layer_drop_of_one_skips_every_layer(both: Both) -> None:
    ours, theirs = both.load(dropout=0.0, decoder_layerdrop=1.0)
    tokens, encoded = both.tokens(), both.encoded()
    output = ours.train()(tokens, encoder_hidden_states=encoded, **EVERYTHING)
    wanted = theirs.train()(tokens, encoder_hidden_states=encoded, use_cache=False)
    assert_close(output.logits, wanted.logits)
    assert output.attentions == ()
    assert output.past_key_values is None


def test_what_is_saved_is_read_by_transformers(both: Both, tmp_path: Path) -> None:
    both.ours.save_pretrained(tmp_path)
    again = _theirs(both.family)(tmp_path)
    given = {"input_ids": both.tokens(), "encoder_hidden_states": both.encoded()}
    with torch.inference_mode():
        assert torch.equal(again(**given).logits, both.theirs(**given).logits)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["is_decoder"] is True
    assert config["is_encoder_decoder"] is False
    assert again.config.to_dict() == again.config.to_dict() | {
        name: value for name, value in both.theirs.config.to_dict().items() if name != "_name_or_path"
    }


@pytest.mark.parametrize("whole", ["ForConditionalGeneration", "Model"])
@pytest.mark.filterwarnings("error")
def test_the_decoder_is_taken_out_of_a_checkpoint_with_an_encoder(
    both: Both, whole: str, tmp_path: Path
) -> None:
    # transformers itself leaves the embedding fresh where encoder and decoder share it: it looks for the
    # decoder's own name.
    config = getattr(transformers, f"{both.family}Config")(**both.fields)
    model = getattr(transformers, f"{both.family}{whole}")(config).eval()
    draw_weights(model)
    model.save_pretrained(tmp_path)
    if whole == "Model" and not config.tie_word_embeddings:
        with pytest.raises(ValueError, match=r"missing: lm_head\.weight"):
            _ours(both.family).from_pretrained(tmp_path)
        return
    ours = _ours(both.family).from_pretrained(tmp_path)
    tokens, encoded = both.tokens(), both.encoded()
    with torch.inference_mode():
        hidden = getattr(model, "model", model).decoder(tokens, encoder_hidden_states=encoded)[0]
        head = ours.lm_head if whole == "Model" else model.lm_head
        assert_close(ours(tokens, encoder_hidden_states=encoded).logits, head(hidden))
        assert_close(ours.get_decoder()(tokens, encoder_hidden_states=encoded).last_hidden_state, hidden)
    assert (ours.lm_head.weight is ours.get_input_embeddings().weight) == config.tie_word_embeddings


@pytest.mark.parametrize("family", ["Bart", "MBart"])
def test_a_configuration_has_transformers_fields_and_defaults(family: str) -> None:
    ours, theirs = getattr(tritone, f"{family}Config")(), getattr(transformers, f"{family}Config")()
    for name, value in ours.to_dict().items():
        assert getattr(theirs, name) == value, name
    assert set(type(theirs).__annotations__) - {"keys_to_ignore_at_inference", "attribute_map"} <= {
        *ours.to_dict()
    }
    assert type(ours).adopt(theirs).to_dict().items() >= ours.to_dict().items()
