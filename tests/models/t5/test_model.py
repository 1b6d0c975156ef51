"""T5 and what it shares with BART as a classifier: configuration, inputs, encoder-only answers, training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tritone.kernels.runtime.packing import cumulative
from tritone.models.auto import AutoConfig, AutoModelForSequenceClassification
from tritone.models.bart.config import BartConfig
from tritone.models.bart.model import BartForSequenceClassification
from tritone.models.core import encoder_decoder_classifier
from tritone.models.t5.config import T5Config
from tritone.models.t5.model import T5ForSequenceClassification, T5Model

T5_SIZES = {
    "vocab_size": 29,
    "d_model": 24,
    "d_kv": 7,
    "d_ff": 20,
    "num_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 9,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
    "eos_token_id": 2,
}
BART_SIZES = {
    "vocab_size": 29,
    "max_position_embeddings": 40,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20,
    "dropout": 0.0,
}
CLASSIFIERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "t5": (T5ForSequenceClassification, T5Config, T5_SIZES),
    "bart": (BartForSequenceClassification, BartConfig, BART_SIZES),
}


def build(family: str, **fields: Any) -> Any:
    model_class, config_class, sizes = CLASSIFIERS[family]
    torch.manual_seed(0)
    model = model_class(config_class(**{**sizes, **fields}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(params=list(CLASSIFIERS))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def text(length: int) -> Tensor:
    """Token ids [length] that end with the end token."""
    ids = torch.randint(4, 29, (length,), generator=torch.Generator().manual_seed(length))
    ids[-1] = 2
    return ids


def test_a_classifier_is_found_by_its_configuration(family: str) -> None:
    model_class, config_class, sizes = CLASSIFIERS[family]
    model = AutoModelForSequenceClassification.from_config(config_class(**sizes, num_labels=7))
    assert type(model) is model_class
    assert model(text(5)[None]).logits.shape == (1, 7)


@pytest.mark.parametrize(
    ("given", "activation", "gated"),
    [("relu", "relu", False), ("gated-gelu", "gelu_new", True), ("gated-silu", "silu", True)],
)
def test_the_feed_forward_part_goes_by_one_name(given: str, activation: str, gated: bool) -> None:
    config = T5Config(feed_forward_proj=given)
    assert (config.dense_act_fn, config.is_gated_act) == (activation, gated)
    assert T5Config.from_dict(config.to_dict()) == config


def test_a_configuration_is_written_and_read(tmp_path: Path) -> None:
    config = T5Config(num_layers=3, relative_attention_max_distance=50, num_labels=4, hidden_size=48)
    assert (config.num_decoder_layers, config.d_model) == (3, 48)
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path) == config


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"feed_forward_proj": "double-gelu"}, "'double-gelu'"),
        ({"feed_forward_proj": "gated-nothing"}, "dense_act_fn 'nothing' is not supported"),
        ({"relative_attention_num_buckets": 3}, "3 buckets up to distance 128 cannot be divided"),
        ({"relative_attention_max_distance": 16}, "32 buckets up to distance 16"),
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
        ({"d_kv": -3}, "d_kv must be at least 1, got -3"),
    ],
)
def test_what_makes_no_t5_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        T5Config(**fields)


def test_names_are_a_checkpoints() -> None:
    names = set(build("t5", num_layers=2, num_decoder_layers=1, feed_forward_proj="gated-gelu").state_dict())
    attention = {f"{part}.weight" for part in "qkvo"}
    dense = {"layer_norm.weight", *(f"DenseReluDense.{name}.weight" for name in ("wi_0", "wi_1", "wo"))}
    own = {"layer_norm.weight", *(f"SelfAttention.{name}" for name in attention)}
    bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    encoder = {f"block.{block}.layer.0.{name}" for block in (0, 1) for name in own}
    encoder |= {f"block.{block}.layer.1.{name}" for block in (0, 1) for name in dense}
    decoder = {f"block.0.layer.0.{name}" for name in own} | {f"block.0.layer.2.{name}" for name in dense}
    decoder |= {f"block.0.layer.1.EncDecAttention.{name}" for name in attention}
    decoder |= {"block.0.layer.1.layer_norm.weight"}
    common = {bias, "embed_tokens.weight", "final_layer_norm.weight"}
    expected = {f"transformer.encoder.{name}" for name in encoder | common}
    expected |= {f"transformer.decoder.{name}" for name in decoder | common}
    expected |= {
        f"classification_head.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias")
    }
    assert names == expected | {"transformer.shared.weight"}


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
    state = T5ForSequenceClassification(T5Config(**{**T5_SIZES, **sizes})).state_dict()
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
def test_texts_are_the_same_packed_and_padded_on_either_side(family: str) -> None:
    model = build(family)
    texts = [text(length) for length in (5, 1, 12, 33)]
    given = torch.cat(texts)[:, None], cumulative([len(one) for one in texts])
    logits = model.predict(*given)["logits"][0]
    for side in ("left", "right"):
        padded = torch.nn.utils.rnn.pad_sequence(texts, True, 3, side)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in texts], True, 0, side)
        torch.testing.assert_close(model(padded, mask).logits, logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_bits_stay_where_widths_are_those_of_real_models(family: str) -> None:
    """Wide models, for which matrix libraries take other paths than for narrow ones."""
    sizes = {"d_model": 256, "vocab_size": 300}
    if family == "t5":
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
    model, texts = build(family), [text(length) for length in (5, 1, 12, 33, 20, 2)]
    given = torch.cat(texts)[:, None], cumulative([len(one) for one in texts])
    together, cu_rows = model.predict(*given)["logits"]
    monkeypatch.setattr(encoder_decoder_classifier, "_MAX_CHUNK_TOKENS", 20)
    apart, cu_parts = model.predict(*given)["logits"]
    assert torch.equal(together, apart)
    assert cu_rows.tolist() == cu_parts.tolist() == [0, 1, 2, 3, 4, 5, 6]


@torch.no_grad()
def test_a_decoder_goes_on_from_what_an_earlier_call_left() -> None:
    model: T5Model = build("t5").transformer
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
    model = build("bart")
    with pytest.raises(ValueError, match=r"41 tokens.*1 to 40.*truncation=True, max_length=40"):
        model.encoder_length(41)
    with pytest.raises(ValueError, match="41 decoder tokens, and the model has 40 positions"):
        model(text(41)[None])


def test_without_a_start_token_the_decoder_has_nothing_to_read() -> None:
    model = build("t5", decoder_start_token_id=None)
    with pytest.raises(ValueError, match="decoder_start_token_id is None"):
        model(text(5)[None])
    assert model(text(5)[None], decoder_input_ids=text(5)[None]).logits.shape == (1, 2)


def test_a_loss_trains(family: str) -> None:
    dropout = {"dropout_rate": 0.1} if family == "t5" else {"dropout": 0.1, "attention_dropout": 0.1}
    model = build(family, num_labels=3, classifier_dropout=0.1, **dropout).train()
    ids = torch.stack([torch.cat([text(length), text(9 - length)])[-8:] for length in (7, 8, 6)])
    ids[:, :-1] = ids[:, :-1].clamp(min=4)
    labels = torch.tensor([0, 1, 2])
    assert not torch.equal(model(ids).logits, model(ids).logits)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    model.eval()
    assert model(ids).logits.argmax(1).tolist() == [0, 1, 2]


def test_layer_drop_skips_layers_in_training_alone() -> None:
    model = build("bart", encoder_layerdrop=1.0, decoder_layerdrop=1.0)
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
    model = build("bart", tie_word_embeddings=False)
    assert model.base.encoder.embed_tokens.weight is not model.base.shared.weight
    with pytest.raises(ValueError, match="token embeddings of their own"):
        model.resize_token_embeddings(33)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@torch.no_grad()
def test_a_model_on_kernels_answers_as_on_the_processor(family: str, dtype: str, kernels_on: str) -> None:
    model_class, config_class, sizes = CLASSIFIERS[family]
    more = {"feed_forward_proj": "gated-gelu"} if family == "t5" else {"init_std": 0.3}
    torch.manual_seed(0)
    model = model_class.from_config(config_class(**sizes, **more), dtype=dtype).eval()
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.delenv("TRITON_INTERPRET", raising=False)
        texts = [text(length) for length in (5, 1, 12, 33)]
        given = torch.cat(texts)[:, None], cumulative([len(one) for one in texts])
        expected = model.predict(*given)["logits"][0]
    model.to(device=kernels_on)
    logits = model.predict(*(tensor.to(kernels_on) for tensor in given))["logits"][0].cpu()
    tolerance = 1e-5 if dtype == "float32" else 1e-2
    assert float(expected.std()) > 10 * tolerance
    torch.testing.assert_close(logits, expected, atol=tolerance, rtol=tolerance)


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


def test_halves_keep_one_weight_in_float32_and_other_types_do_not() -> None:
    for dtype, kinds in {"float16": {"wo.weight": torch.float32}, "bfloat16": {}}.items():
        model = T5ForSequenceClassification.from_config(T5Config(**T5_SIZES), dtype=dtype).eval()
        own = getattr(torch, dtype)
        for name, parameter in model.named_parameters():
            assert parameter.dtype == next((kind for end, kind in kinds.items() if name.endswith(end)), own)
        assert model.dtype == own
        logits = model.predict(text(9)[:, None], cumulative([9]))["logits"][0]
        assert logits.dtype == torch.float32
        assert bool(logits.isfinite().all())
