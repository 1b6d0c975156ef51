"""GPT-Neo's configuration, windows and checkpoints, and classifiers that read the last token, GPT-2's too;
see tests/conformance for transformers."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tritone
from tritone.kernels.runtime.launch import recorded
from tritone.kernels.runtime.packing import cumulative
from tritone.models.gpt_neo.config import GPTNeoConfig
from tritone.models.gpt_neo.model import GPTNeoModel

SMALL: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 24,
    "num_layers": 3,
    "attention_types": [[["global"], 1], [["local"], 2]],
    "num_heads": 3,
    "window_size": 4,
    "max_position_embeddings": 60,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
GPT2: dict[str, Any] = {
    "vocab_size": 31,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 3,
    "n_positions": 60,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}


def classifier(family: str, **fields: Any) -> Any:
    torch.manual_seed(0)
    given = {**(SMALL if family == "GPTNeo" else GPT2), **fields}
    config = getattr(tritone, f"{family}Config")(**given)
    return getattr(tritone, f"{family}ForSequenceClassification")(config).eval()


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(1, 31, shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"activation_function": "softsign"}, "activation_function 'softsign'"),
        ({"num_heads": 5}, "num_heads 5 must divide hidden_size 24"),
        ({"num_layers": 4}, "are of 3 layers, and num_layers is 4"),
        ({"attention_types": [[["global", "sparse"], 1], [["local"], 1]]}, "has 'sparse'"),
        ({"window_size": 0}, "window_size must be at least 1, got 0"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        GPTNeoConfig(**{**SMALL, **fields})


def test_the_kinds_of_layers_follow_from_the_types_by_default_and_after_a_round_trip(tmp_path: Path) -> None:
    assert GPTNeoConfig().attention_layers == ["global", "local"] * 12
    config = GPTNeoConfig(**SMALL)
    assert config.attention_layers == ["global", "local", "local"]
    config.save_pretrained(tmp_path)
    assert GPTNeoConfig.from_pretrained(tmp_path) == config
    changed = GPTNeoConfig.from_pretrained(tmp_path, attention_types=[[["local", "global", "local"], 1]])
    assert changed.attention_layers == ["local", "global", "local"]
    assert GPTNeoConfig(num_hidden_layers=2, attention_types=[[["local"], 2]]).num_layers == 2


@torch.no_grad()
def test_a_local_layer_sees_so_many_tokens_and_no_more() -> None:
    torch.manual_seed(0)
    model = GPTNeoModel(
        GPTNeoConfig(**{**SMALL, "num_layers": 1, "attention_types": [[["local"], 1]]})
    ).eval()
    given = tokens(1, 12)
    changed = given.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 31
    differs = (model(given).last_hidden_state != model(changed).last_hidden_state).any(-1)[0]
    assert differs.nonzero()[:, 0].tolist() == [5, 6, 7, 8]


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


@pytest.mark.parametrize("family", ["GPT2", "GPTNeo"])
def test_dropout_is_drawn_in_training_everywhere_that_the_configuration_says(family: str) -> None:
    names = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
    if family == "GPTNeo":
        names = ("resid_dropout", "embed_dropout", "attention_dropout")
    nothing, given = dict.fromkeys(names, 0.0), tokens(2, 9)
    usual = classifier(family, **nothing)(given).logits
    torch.testing.assert_close(classifier(family, **nothing).train()(given).logits, usual)
    for name in nothing:
        model = classifier(family, **{**nothing, name: 0.5}).train()
        assert not torch.allclose(model(given).logits, usual)


@pytest.mark.parametrize("family", ["GPT2", "GPTNeo"])
def test_it_learns_labels(family: str) -> None:
    model = classifier(family, num_labels=3).train()
    given, labels = tokens(6, 9), torch.tensor([0, 1, 2, 2, 1, 0])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = model(given, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.parametrize("family", ["GPT2", "GPTNeo"])
def test_a_language_models_checkpoint_gets_a_fresh_head_and_says_so(family: str, tmp_path: Path) -> None:
    model = classifier(family)
    model.save_pretrained(tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    del held["score.weight"]
    held["lm_head.weight"] = torch.zeros(31, 24)
    inner = "attn.attention" if family == "GPTNeo" else "attn"
    for layer in range(2):  # masks of old checkpoints
        held[f"transformer.h.{layer}.{inner}.bias"] = torch.ones(1, 1, 60, 60)
        held[f"transformer.h.{layer}.{inner}.masked_bias"] = torch.tensor(-1e9)
    save_file(held, tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match="score") as caught:
        loaded = tritone.AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=7)
    assert len(caught) == 1
    assert loaded.score.weight.shape == (7, 24)
    assert loaded.score.weight.any()
    held["score.weight"] = model.score.weight.detach().clone()
    save_file(held, tmp_path / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = type(model).from_pretrained(tmp_path)
    assert torch.equal(again(tokens(1, 8)).logits, model(tokens(1, 8)).logits)


@pytest.mark.parametrize("family", ["GPT2", "GPTNeo"])
@torch.no_grad()
def test_the_kernels_give_what_the_processor_gives(
    family: str, kernels_on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, lengths = classifier(family), [19, 1, 6]
    features = tokens(sum(lengths), 2)
    with recorded() as cases:
        given = model.to(kernels_on).predict(features.to(kernels_on), cumulative(lengths, kernels_on))
    layers = 3 if family == "GPTNeo" else 2
    assert sum(case.kernel.name == "flash_attention_kernel" for case in cases) == layers
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    wanted = model.cpu().predict(features, cumulative(lengths))
    torch.testing.assert_close(given["logits"][0].cpu(), wanted["logits"][0], atol=1e-4, rtol=0)
