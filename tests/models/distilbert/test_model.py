"""DistilBERT's differences from BERT; conformance with transformers is in tests/conformance."""

from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
from text_families import SIZES, classifier

from tritone.kernels.runtime.packing import cumulative
from tritone.models.distilbert.model import DistilBertForSequenceClassification, sines_and_cosines

TOKENS = torch.tensor([[9, 4, 8, 7, 6]])
model = partial(classifier, "DistilBert")


def test_a_fresh_position_table_is_sines_and_cosines_where_that_is_configured() -> None:
    fields = {**SIZES["DistilBert"], "dim": 27}
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
