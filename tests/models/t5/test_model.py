"""T5 and what it shares with BART as a classifier: configuration, inputs, and encoder-only answers."""

from typing import Any

import pytest
import torch
from factories import add_noise
from text_families import SIZES, classifier, packed, text
from torch import Tensor

from tritone.kernels.runtime.packing import cumulative
from tritone.models.core import encoder_decoder_classifier
from tritone.models.t5.config import T5Config
from tritone.models.t5.model import T5ForSequenceClassification, T5Model


def build(family: str, **fields: Any) -> Any:
    """A classifier with weights at which everything matters."""
    return add_noise(classifier(family, **fields), 0.2)


@pytest.fixture(params=["T5", "Bart"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize(
    ("given", "activation", "gated"),
    [("relu", "relu", False), ("gated-gelu", "gelu_new", True), ("gated-silu", "silu", True)],
)
def test_the_feed_forward_part_goes_by_one_name(given: str, activation: str, gated: bool) -> None:
    config = T5Config(feed_forward_proj=given)
    assert (config.dense_act_fn, config.is_gated_act) == (activation, gated)
    assert T5Config.from_dict(config.to_dict()) == config


def test_fresh_weights_are_spread_as_t5_needs_them() -> None:
    torch.manual_seed(0)
    sizes = {
        "d_model": 256,
        "d_kv": 32,
        "num_heads": 8,
        "d_ff": 512,
        "vocab_size": 500,
        "initializer_factor": 0.5,
    }
    state = T5ForSequenceClassification(T5Config(**{**SIZES["T5"], **sizes})).state_dict()
    block = "transformer.decoder.block.0.layer"
    for name, spread in {
        "transformer.shared.weight": 0.5,
        f"{block}.0.SelfAttention.q.weight": 0.5 * (256 * 32) ** -0.5,
        f"{block}.1.EncDecAttention.k.weight": 0.5 * 256**-0.5,
        f"{block}.0.SelfAttention.o.weight": 0.5 * 256**-0.5,
        f"{block}.2.DenseReluDense.wi.weight": 0.5 * 256**-0.5,
        f"{block}.2.DenseReluDense.wo.weight": 0.5 * 512**-0.5,
        "classification_head.dense.weight": 0.5 * 256**-0.5,
    }.items():
        assert float(state[name].std()) == pytest.approx(spread, rel=0.05), name
    assert float(state[f"{block}.0.SelfAttention.relative_attention_bias.weight"].std()) < 0.06
    assert bool((state[f"{block}.0.layer_norm.weight"] == 0.5).all())


@torch.no_grad()
def test_bits_stay_where_widths_are_those_of_real_models(family: str) -> None:
    """Wide models, for which matrix libraries take other paths than for narrow ones."""
    sizes = {"d_model": 256, "vocab_size": 300}
    if family == "T5":
        sizes |= {"d_ff": 512, "d_kv": 64, "num_heads": 4, "relative_attention_max_distance": 60}
    else:
        sizes |= {"encoder_ffn_dim": 512, "decoder_ffn_dim": 512, "decoder_attention_heads": 4}
        sizes |= {"max_position_embeddings": 200}
    model = build(family, **sizes)
    lengths = [1, 2, 3, 7, 17, 64, 90, 150]
    texts = [text(length)[:, None] for length in lengths]

    def run(order: list[int]) -> Tensor:
        counts = cumulative([lengths[index] for index in order])
        return model.predict(torch.cat([texts[index] for index in order]), counts)["logits"][0]

    alone = torch.cat([run([index]) for index in range(8)])
    for order in ([0, 1, 2, 3, 4, 5, 6, 7], [7, 3, 5, 1, 0, 6, 2, 4], [1, 0]):
        assert torch.equal(run(order), alone[order])


@torch.no_grad()
def test_many_texts_are_answered_in_chunks_with_the_same_bits(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given = build(family), packed([5, 1, 12, 33, 20, 2])
    together, cu_rows = model.predict(*given)["logits"]
    monkeypatch.setattr(encoder_decoder_classifier, "_MAX_CHUNK_TOKENS", 20)
    apart, cu_parts = model.predict(*given)["logits"]
    assert torch.equal(together, apart)
    assert cu_rows.tolist() == cu_parts.tolist() == [0, 1, 2, 3, 4, 5, 6]


@torch.no_grad()
def test_a_decoder_goes_on_from_what_an_earlier_call_left() -> None:
    model: T5Model = build("T5").transformer
    ids, own = text(9)[None], text(14)[None]
    whole = model(ids, decoder_input_ids=own).last_hidden_state
    first = model(ids, decoder_input_ids=own[:, :5], use_cache=True)
    second = model(
        encoder_outputs=(first.encoder_last_hidden_state,),
        decoder_input_ids=own[:, 5:],
        past_key_values=first.past_key_values,
    )
    both = torch.cat([first.last_hidden_state, second.last_hidden_state], 1)
    torch.testing.assert_close(both, whole, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_classified_is_refused(family: str) -> None:
    model, ids = build(family), text(6)[None]
    with pytest.raises(ValueError, match="input_ids is missing"):
        model()
    with pytest.raises(NotImplementedError, match="finds the end token in input_ids"):
        model(inputs_embeds=torch.zeros(1, 3, 24))
    with pytest.raises(ValueError, match=r"must be \[batch, source\], got \[6\]"):
        model(ids[0])
    with pytest.raises(ValueError, match=r"attention_mask must be \[1, 6\]"):
        model(ids, torch.ones(1, 5))
    uneven = torch.tensor([[5, 2, 6, 2], [5, 7, 6, 2]])
    with pytest.raises(ValueError, match=r"same number of end tokens \(<eos>\).*\[2, 1\]"):
        model(uneven)
    assert model(uneven, torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])).logits.shape[0] == 2
    with pytest.raises(ValueError, match=r"at least one; these have \[0\]"):
        model(ids[:, :-1])
    with pytest.raises(ValueError, match="the decoder was given 4 tokens a row, and input_ids has 6"):
        model(ids, decoder_input_ids=ids[:, :4])
    with pytest.raises(ValueError, match="decoder_input_ids go from 4 to 99"):
        model(ids, decoder_input_ids=torch.tensor([[4, 5, 6, 7, 8, 99]]))


def test_one_shot_requests_that_do_not_fit_are_refused(family: str) -> None:
    model, whole = build(family), text(6)[:, None]
    with pytest.raises(ValueError, match="text 1 of the batch has no end token"):
        model.predict(torch.cat([whole, whole[:3]]), cumulative([6, 3]))
    with pytest.raises(ValueError, match="the model knows tokens 0 to 28"):
        model.predict(whole + 24, cumulative([6]))
    with pytest.raises(ValueError, match=r"must be \[tokens, 1\]"):
        model.predict(whole.expand(-1, 2), cumulative([6]))
    with pytest.raises(ValueError, match="a text of 0 tokens"):
        model.encoder_length(0)
    assert model.encoder_length(40) == 40


def test_a_text_longer_than_barts_positions_is_refused() -> None:
    model = build("Bart")
    with pytest.raises(ValueError, match=r"41 tokens.*1 to 40.*truncation=True, max_length=40"):
        model.encoder_length(41)
    with pytest.raises(ValueError, match="41 decoder tokens, and the model has 40 positions"):
        model(text(41)[None])


def test_without_a_start_token_the_decoder_has_nothing_to_read() -> None:
    model = build("T5", decoder_start_token_id=None)
    with pytest.raises(ValueError, match="decoder_start_token_id is None"):
        model(text(5)[None])
    assert model(text(5)[None], decoder_input_ids=text(5)[None]).logits.shape == (1, 2)


def test_layer_drop_skips_layers_in_training_alone() -> None:
    model = build("Bart", encoder_layerdrop=1.0, decoder_layerdrop=1.0)
    ids = text(7)[None]
    counts = [len(model(ids, output_hidden_states=True).encoder_hidden_states)]
    counts.append(len(model.train()(ids, output_hidden_states=True).encoder_hidden_states))
    assert counts == [3, 1]


def test_more_tokens_are_known_to_encoder_and_decoder(family: str) -> None:
    model = build(family)
    before = model(text(6)[None]).logits
    assert model.resize_token_embeddings(33).weight.shape[0] == 33
    assert model.config.vocab_size == 33
    torch.testing.assert_close(model(text(6)[None]).logits, before)
    ids = torch.tensor([[31, 32, 2]])
    assert model(ids, decoder_input_ids=ids).logits.shape[0] == 1
    base = model.base
    assert base.encoder.embed_tokens.weight is base.decoder.embed_tokens.weight is base.shared.weight


def test_tables_that_are_not_shared_are_not_resized() -> None:
    model = build("Bart", tie_word_embeddings=False)
    assert model.base.encoder.embed_tokens.weight is not model.base.shared.weight
    with pytest.raises(ValueError, match="token embeddings of their own"):
        model.resize_token_embeddings(33)


@torch.no_grad()
def test_any_of_several_end_tokens_ends_a_text(family: str) -> None:
    ids = text(7)
    one, several = build(family), build(family, eos_token_id=[28, 2])
    other = ids.clone()
    other[-1] = 28
    assert torch.equal(one(ids[None]).logits, several(ids[None]).logits)
    assert several(other[None]).logits.shape == one(ids[None]).logits.shape
    with pytest.raises(ValueError, match="same number of end tokens"):
        one(other[None])
