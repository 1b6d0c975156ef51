"""Behavior common to text families: names of fields, positions, ties, dropout, checkpoints and kernels."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from text_families import CLASSIFIERS, classifier, make, packed, tokens
from training import assert_each_dropout_draws

import tritone
from tritone.kernels.runtime.launch import recorded
from tritone.kernels.runtime.packing import cumulative

# Given names, and the fields that they are other names of.
ALIASES: dict[str, tuple[dict[str, int], dict[str, Any]]] = {
    "DistilBert": (
        {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2},
        {"dim": 24, "n_heads": 3, "n_layers": 2},
    ),
    "GPT2": (
        {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 9},
        {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 9},
    ),
    "T5": ({"hidden_size": 48, "num_hidden_layers": 3}, {"d_model": 48, "num_decoder_layers": 3}),
    "XLNet": (
        {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4},
        {"d_model": 48, "n_layer": 3, "n_head": 4, "d_head": 12},
    ),
}


@pytest.mark.parametrize("family", ALIASES)
def test_fields_go_by_their_common_names_too_and_survive_a_round_trip(family: str, tmp_path: Path) -> None:
    given, fields = ALIASES[family]
    config = getattr(tritone, f"{family}Config")(**given, num_labels=4)
    assert {name: getattr(config, name) for name in (*given, *fields)} == given | fields
    assert not given.keys() & config.to_dict().keys()
    config.save_pretrained(tmp_path)
    assert tritone.AutoConfig.from_pretrained(tmp_path) == config


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("family", "kind"), [("Bert", "LMHeadModel"), ("GPT2", "LMHeadModel"), ("Roberta", "ForCausalLM")]
)
def test_a_changed_vocabulary_keeps_ties_and_loads_again(
    family: str, kind: str, tied: bool, tmp_path: Path
) -> None:
    model = make(family, kind, is_decoder=True, tie_word_embeddings=tied)
    head = model.get_output_embeddings()
    before = head.weight.detach().clone()
    model.resize_token_embeddings(40)
    assert (head.weight is model.get_input_embeddings().weight) is tied
    assert torch.equal(head.weight[:31], before)
    if head.bias is not None:
        own = model.cls.predictions if family == "Bert" else model.lm_head
        assert (own.bias is head.bias) is tied
    given = torch.tensor([[13, 18, 9, 26, 39]])
    assert model(given).logits.shape == (1, 5, 40)
    model.save_pretrained(tmp_path)
    assert torch.equal(type(model).from_pretrained(tmp_path)(given).logits, model(given).logits)


@pytest.mark.parametrize("family", ["GPT2", "GPTNeo"])
@torch.no_grad()
def test_more_tokens_than_positions_are_refused_with_both_numbers(family: str) -> None:
    model = classifier(family)
    assert model.encoder_length(60) == 60
    for count in (0, 61):
        with pytest.raises(ValueError, match=f"of {count} tokens, and the model takes 1 to 60"):
            model.encoder_length(count)
    with pytest.raises(ValueError, match="61 decoder tokens, and the model has 60 positions"):
        model(tokens(1, 61))


@pytest.mark.parametrize("family", ["GPT2", "GPTNeo"])
@torch.no_grad()
def test_several_texts_need_a_padding_token(family: str) -> None:
    model = classifier(family, pad_token_id=None)
    with pytest.raises(ValueError, match="a batch of 2 texts needs pad_token_id"):
        model(tokens(2, 5))
    alone = model(tokens(1, 5)).logits
    assert torch.equal(model.predict(tokens(1, 5).T, cumulative([5]))["logits"][0], alone)
    # In a packed batch it is known where each ends.
    both = model.predict(tokens(1, 5).T.repeat(2, 1), cumulative([5, 5]))["logits"][0]
    assert torch.equal(both, alone.expand(2, -1))


@pytest.mark.parametrize("family", ["GPT2", "GPTNeo"])
@torch.no_grad()
def test_a_mask_decides_where_a_text_ends_and_a_row_without_tokens_is_refused(family: str) -> None:
    model = classifier(family)
    given, mask = tokens(2, 9), torch.ones(2, 9)
    mask[1, 4:] = 0  # padding that is not the padding token
    assert torch.equal(model(given, attention_mask=mask).logits[1], model(given[1:, :4]).logits[0])
    mask[1] = 0
    for rows in (slice(0, 2), slice(1, 2)):
        with pytest.raises(ValueError, match="a row without tokens"):
            model(given[rows], attention_mask=mask[rows])


DROPOUTS = {
    "Bart": ("dropout", "attention_dropout", "activation_dropout", "classifier_dropout"),
    "GPT2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "GPTNeo": ("resid_dropout", "embed_dropout", "attention_dropout"),
    "T5": ("dropout_rate", "classifier_dropout"),
    "XLNet": ("dropout", "summary_last_dropout"),
}


@pytest.mark.parametrize("family", DROPOUTS)
def test_dropout_is_drawn_in_training_everywhere_that_the_configuration_says(family: str) -> None:
    given = tokens(2, 9)
    given[:, -1] = 2
    assert_each_dropout_draws(
        lambda **chances: classifier(family, **chances), lambda model: model(given).logits, DROPOUTS[family]
    )


@pytest.mark.parametrize(
    ("family", "head"), [("GPT2", "score"), ("GPTNeo", "score"), ("XLNet", "logits_proj")]
)
def test_a_language_models_checkpoint_gets_a_fresh_head_and_says_so(
    family: str, head: str, tmp_path: Path
) -> None:
    model = classifier(family)
    model.save_pretrained(tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    body = {name: tensor for name, tensor in held.items() if name.startswith("transformer.")}
    if family == "XLNet":
        unread = {"lm_loss.weight": torch.zeros(31, 24), "lm_loss.bias": torch.zeros(31)}
    else:
        unread = {"lm_head.weight": torch.zeros(31, 24)}
        inner = "attn.attention" if family == "GPTNeo" else "attn"
        for layer in range(2):  # masks of old checkpoints
            unread[f"transformer.h.{layer}.{inner}.bias"] = torch.ones(1, 1, 60, 60)
            unread[f"transformer.h.{layer}.{inner}.masked_bias"] = torch.tensor(-1e9)
    save_file(body | unread, tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match=head) as caught:
        loaded = tritone.AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=7)
    assert len(caught) == 1
    fresh = loaded.get_parameter(f"{head}.weight")
    assert fresh.shape == (7, 24)
    assert fresh.any()
    save_file(held | unread, tmp_path / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = type(model).from_pretrained(tmp_path)
        base = type(model.transformer).from_pretrained(tmp_path)
    given = tokens(1, 8)
    assert torch.equal(again(given).logits, model(given).logits)
    assert torch.equal(base(given).last_hidden_state, model.transformer(given).last_hidden_state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", CLASSIFIERS)
@torch.no_grad()
def test_packed_texts_of_half_precision_have_float32_logits_near_those_of_single(
    family: str, dtype: torch.dtype
) -> None:
    model = classifier(family)
    wanted, given = (
        type(model).from_config(model.config, dtype=kind).eval() for kind in (torch.float32, dtype)
    )
    given.load_state_dict(wanted.state_dict())
    features, cu_tokens = packed([9, 1, 6], types=family in ("GPT2", "GPTNeo", "XLNet"))
    logits = given.predict(features, cu_tokens)["logits"][0]
    exact = wanted.predict(features, cu_tokens)["logits"][0]
    assert given.dtype == dtype
    assert logits.dtype == torch.float32
    assert float((logits - exact).norm() / exact.norm()) < 0.05


# Fields, and how often each kernel is launched.
KERNELS: list[tuple[str, dict[str, Any], dict[str, int]]] = [
    ("Bart", {"init_std": 0.3}, {}),
    ("Bart", {"init_std": 0.3, "dtype": "float16"}, {}),
    ("GPT2", {}, {"flash_attention_kernel": 2}),
    ("GPTNeo", {}, {"flash_attention_kernel": 3}),
    ("T5", {"feed_forward_proj": "gated-gelu"}, {}),
    ("T5", {"feed_forward_proj": "gated-gelu", "dtype": "float16"}, {}),
    ("XLNet", {"clamp_len": 7}, {"relative_attention_kernel": 2, "mean_pool_kernel": 0}),
    (
        "XLNet",
        {"clamp_len": 7, "attn_type": "uni", "summary_type": "mean"},
        {"relative_attention_kernel": 2, "mean_pool_kernel": 1},
    ),
]


@pytest.mark.parametrize(("family", "fields", "launches"), KERNELS, ids=str)
@torch.no_grad()
def test_the_kernels_give_what_the_processor_gives(
    family: str,
    fields: dict[str, Any],
    launches: dict[str, int],
    kernels_on: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = classifier(family, **fields)
    model = type(model).from_config(model.config, dtype=fields.get("dtype", "float32")).eval()
    features, cu_tokens = packed([19, 1, 6], types=family in ("GPT2", "GPTNeo", "XLNet"))
    with recorded() as cases:
        given = model.to(kernels_on).predict(features.to(kernels_on), cu_tokens.to(kernels_on))
    launched = [case.kernel.name for case in cases]
    assert {name: launched.count(name) for name in launches} == launches
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    wanted = model.cpu().predict(features, cu_tokens)["logits"][0]
    tolerance = 1e-2 if "dtype" in fields else 1e-5
    assert float(wanted.std()) > 10 * tolerance
    torch.testing.assert_close(given["logits"][0].cpu(), wanted, atol=tolerance, rtol=tolerance)
