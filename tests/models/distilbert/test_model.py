"""DistilBERT's differences from BERT; conformance with transformers is in tests/conformance."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import tritone
from tritone.kernels.runtime.packing import cumulative
from tritone.models.distilbert.config import DistilBertConfig
from tritone.models.distilbert.model import DistilBertForSequenceClassification, sines_and_cosines

SMALL: dict[str, Any] = {
    "vocab_size": 31,
    "dim": 24,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 20,
    "max_position_embeddings": 12,
    "initializer_range": 0.3,
}
TOKENS = torch.tensor([[9, 4, 8, 7, 6]])


def model(**fields: Any) -> DistilBertForSequenceClassification:
    torch.manual_seed(0)
    return DistilBertForSequenceClassification(DistilBertConfig(**{**SMALL, **fields})).eval()


def test_sizes_go_by_berts_names_too() -> None:
    config = DistilBertConfig(vocab_size=31, hidden_size=24, num_attention_heads=3, num_hidden_layers=2)
    assert (config.dim, config.n_heads, config.n_layers) == (24, 3, 2)
    assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (24, 3, 2)
    assert "hidden_size" not in config.to_dict()


def test_a_fresh_position_table_is_sines_and_cosines_where_that_is_configured() -> None:
    fields = {**SMALL, "dim": 27}
    peer = transformers.DistilBertModel(transformers.DistilBertConfig(**fields, sinusoidal_pos_embds=True))
    table = peer.embeddings.position_embeddings.weight
    torch.testing.assert_close(sines_and_cosines(12, 27), table.detach())
    fresh = model(dim=27, sinusoidal_pos_embds=True).distilbert.embeddings.position_embeddings.weight
    assert torch.equal(fresh, sines_and_cosines(12, 27))
    other = model(dim=27).distilbert.embeddings.position_embeddings.weight
    assert not torch.equal(other, fresh)


def test_a_saved_position_table_goes_before_sines_and_cosines(tmp_path: Path) -> None:
    saved = model(sinusoidal_pos_embds=True)
    table = saved.distilbert.embeddings.position_embeddings.weight
    with torch.no_grad():
        table.mul_(2)
    saved.save_pretrained(tmp_path)
    loaded = DistilBertForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded.distilbert.embeddings.position_embeddings.weight, table)


def test_there_are_no_token_types() -> None:
    with pytest.raises(TypeError, match="token_type_ids"):
        model()(TOKENS, token_type_ids=torch.zeros_like(TOKENS))
    with pytest.raises(ValueError, match=r"token ids must be \[tokens, 1\]; got \[5, 2\]"):
        model().predict(torch.stack([TOKENS[0], TOKENS[0]], dim=1), cumulative([5]))


def test_arguments_are_in_the_order_of_transformers() -> None:
    classifier, mask = model(), torch.ones_like(TOKENS)
    labels, embedded = torch.tensor([1]), model().get_input_embeddings()(TOKENS)
    by_place = classifier(None, mask, embedded, labels, torch.arange(5)[None] + 2)
    by_name = classifier(
        inputs_embeds=embedded, attention_mask=mask, labels=labels, position_ids=torch.arange(5)[None] + 2
    )
    assert torch.equal(by_place.loss, by_name.loss)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_heads": 5}, "n_heads 5 must divide dim 24"),
        ({"n_heads": 0}, "n_heads 0 must divide dim 24"),
        ({"activation": "mish"}, "activation 'mish' is not supported"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistilBertConfig(**{**SMALL, **fields})


def test_the_factories_know_it(tmp_path: Path) -> None:
    config = tritone.AutoConfig.for_model("distilbert", **SMALL)
    made = tritone.AutoModelForSequenceClassification.from_config(config)
    assert type(made) is DistilBertForSequenceClassification
    made.save_pretrained(tmp_path / "my-distilbert")
    file = tmp_path / "my-distilbert" / "config.json"
    file.write_text(file.read_text().replace('"model_type": "distilbert"', '"finetuning_task": "mood"'))
    by_name = tritone.AutoModelForSequenceClassification.from_pretrained(tmp_path / "my-distilbert")
    assert type(by_name) is DistilBertForSequenceClassification
    assert torch.equal(by_name(TOKENS).logits, made.eval()(TOKENS).logits)
